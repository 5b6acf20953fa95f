"""The operator Attention of ONNX, opsets 23 to 25: run by the library, and written by it.

    import polyhead.onnx
    rep = polyhead.onnx.Backend.prepare(onnx.load("attention.onnx"))     # an onnx.backend.base.Backend
    y, = rep.run([query, key, value])
    polyhead.onnx.export(module, "attention.onnx")       # a MultiheadAttention, for other runtimes

Needs the package onnx: `pip install "polyhead[onnx]"`.
"""

try:
    import onnx as _onnx  # noqa: F401
except ImportError as _error:
    raise ImportError("polyhead.onnx: the package onnx cannot be imported "
                      f"({_error}); need it: pip install \"polyhead[onnx]\"") from _error

from polyhead.onnx._backend import Backend, PreparedModel
from polyhead.onnx._export import export

__all__ = ["Backend", "PreparedModel", "export"]

"""export: a MultiheadAttention as an ONNX model with one Attention node."""

from __future__ import annotations

import os
import sys
from typing import Any, Literal, get_args

from polyhead._arguments import plain_bool, type_name
from polyhead._modules import MultiheadAttention
from polyhead._typing import Path, Weights
from polyhead.onnx._writer import Writer

MaskKind = Literal["bool", "float"]
_OPSET = 23  # the first with Attention
_MOST_BYTES = 2**31 - 2**20  # a file of protobuf's ends at 2^31, and has more than parameters


def export(module: Any, path: Path, *, attn_mask: MaskKind | None = None,
           key_padding_mask: MaskKind | None = None, is_causal: bool = False,
           weights: Weights | None = None) -> None:
    """Writes `module` as an ONNX model of opset 23: projections, norms and rotary positions around
    one Attention node.

    module            a MultiheadAttention of polyhead, polyhead.torch or torch.nn, in float32
    path              of the file, which appears whole or not at all
    attn_mask         None, or "bool" or "float": an input attn_mask [q_len, kv_len] of this kind
    key_padding_mask  likewise, an input key_padding_mask [batch, kv_len]
    is_causal         query i sees keys j <= i, in addition to the masks
    weights           "per_head" or "average": also an output weights [batch, num_heads, q_len,
                      kv_len] or [batch, q_len, kv_len], with the keys that a module appends

    The inputs of the model are query, key and value, its first output is out, in the layout that
    the module's batch_first says; batch and lengths are any. Masks mean what they mean to the module:
    True hides, floats are added. Positions count from 0; dropout is left out, as after eval(). Raises
    TypeError for another module, ValueError for options that do not fit, for a module in float64 and for
    2 GiB of parameters; OSError.
    """
    own, is_causal = _own(module), plain_bool(is_causal)
    _check(own, {"attn_mask": (attn_mask, MaskKind), "key_padding_mask": (key_padding_mask, MaskKind),
                 "weights": (weights, Weights)}, is_causal)
    try:
        file = os.fsdecode(path)
    except TypeError:
        raise TypeError(f"export: path: got {type_name(path)}; need a path") from None
    kinds = {"attn_mask": attn_mask, "key_padding_mask": key_padding_mask}
    writer = Writer(own)
    # The operator would count what a module appends as positions.
    by_mask = is_causal and (own.add_bias_kv or own.add_zero_attn)
    mask = writer.mask({name: kind for name, kind in kinds.items() if kind is not None}, by_mask)
    writer.attend(mask, is_causal and not by_mask, weights)
    _write(file, writer.graph.model("MultiheadAttention", _OPSET).SerializeToString())


def _own(module: Any) -> MultiheadAttention:
    """The module itself, or torch's as one of numpy's."""
    if type(module) is MultiheadAttention:
        return module
    torch: Any = sys.modules.get("torch")  # a module of it has loaded it
    known = [] if torch is None else [torch.nn.MultiheadAttention]
    if "polyhead.torch" in sys.modules:
        known.append(sys.modules["polyhead.torch"].MultiheadAttention)
    if type(module) not in known:
        raise TypeError(f"export: module: got {type_name(module)}; need a MultiheadAttention of "
                        "polyhead, polyhead.torch or torch.nn")
    state = {name: tensor.detach() for name, tensor in module.state_dict().items()}
    dtypes = {str(tensor.dtype).removeprefix("torch.") for tensor in state.values()}
    if dtypes != {"float32"}:
        raise ValueError(f"export: module: dtype is {', '.join(sorted(dtypes))}; need float32: "
                         "module.float()")
    own = MultiheadAttention(
        module.embed_dim, module.num_heads, 0.0, "in_proj_bias" in state, "bias_k" in state,
        module.add_zero_attn, module.kdim, module.vdim, module.batch_first,
        **{name: getattr(module, name) for name in _OF_OURS if hasattr(module, name)})
    own.load_state_dict({name: tensor.cpu().numpy() for name, tensor in state.items()})
    return own


# What torch's class has not.
_OF_OURS = ("num_kv_heads", "head_dim", "qk_norm", "qk_norm_eps", "rope")


def _check(own: MultiheadAttention, words: dict[str, tuple[Any, Any]], is_causal: Any) -> None:
    for name, (value, literal) in words.items():
        need = f"None, {' or '.join(map(repr, get_args(literal)))}"
        if value is not None and not isinstance(value, str):  # a mask, maybe
            raise TypeError(f"export: {name}: got {type_name(value)}; need {need}")
        if value not in (None, *get_args(literal)):
            raise ValueError(f"export: {name}: got {value!r}; need {need}")
    if not isinstance(is_causal, bool):
        raise TypeError(f"export: is_causal: got {type_name(is_causal)}; need True or False")
    if own.dtype != "float32":
        raise ValueError(f"export: module: dtype is {own.dtype}; need float32: the operator's scale is "
                         "one, whatever the tensors are")
    size = sum(parameter.nbytes for parameter in own.state_dict().values())
    if size > _MOST_BYTES:
        raise ValueError(f"export: module: has {size} bytes of parameters; need at most {_MOST_BYTES}, "
                         "as much as one file of ONNX holds")


def _write(file: str, content: bytes) -> None:
    if not file:
        raise FileNotFoundError("export: : cannot write: the path is empty")
    part = f"{file}.{os.getpid()}.part"
    try:
        with open(part, "wb") as stream:
            stream.write(content)
        os.replace(part, file)
    except ValueError:
        raise ValueError(f"export: path: got {file!r}; need a path without null characters and "
                         "surrogates") from None
    except OSError as error:  # which speaks of `part`
        raise type(error)(f"export: {file}: cannot write: {error.strerror or error}") from None
    finally:
        if os.path.exists(part):
            os.remove(part)

"""export: a MultiheadAttention as an ONNX model with one Attention node."""

from __future__ import annotations

import math
import os
import sys
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from polyhead import __version__
from polyhead._arguments import type_name
from polyhead._modules import MultiheadAttention
from polyhead._typing import Path, Weights

Array = npt.NDArray[Any]
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
                      kv_len] or [batch, q_len, kv_len]

    The inputs of the model are query, key and value, its first output is out, in the layout that
    the module's batch_first says; batch and lengths are any. Masks mean what they mean to the module:
    True hides, floats are added. Positions count from 0; dropout is left out, as after eval(). Raises
    TypeError for another module, ValueError for options that do not fit, for a module in float64 or
    with add_bias_kv or add_zero_attn, and for 2 GiB of parameters; OSError.
    """
    own = _own(module)
    _check(own, {"attn_mask": (attn_mask, MaskKind), "key_padding_mask": (key_padding_mask, MaskKind),
                 "weights": (weights, Weights)}, is_causal)
    try:
        file = os.fsdecode(path)
    except TypeError:
        raise TypeError(f"export: path: got {type_name(path)}; need a path") from None
    graph = _Graph(own)
    mask = graph.mask(attn_mask, key_padding_mask)
    graph.attend(mask, is_causal, weights)
    _write(file, graph.model().SerializeToString())


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
        if value is not None and value not in get_args(literal):
            raise ValueError(f"export: {name}: got {value!r}; need None, "
                             f"{' or '.join(map(repr, get_args(literal)))}")
    if not isinstance(is_causal, bool):
        raise TypeError(f"export: is_causal: got {type_name(is_causal)}; need True or False")
    for name in ("add_bias_kv", "add_zero_attn"):
        if getattr(own, name):
            raise ValueError(f"export: module: has {name}; need one without: the operator appends no "
                             "keys")
    if own.dtype != "float32":
        raise ValueError(f"export: module: dtype is {own.dtype}; need float32: the operator's scale is "
                         "one, whatever the tensors are")
    size = sum(parameter.nbytes for parameter in own.state_dict().values())
    if size > _MOST_BYTES:
        raise ValueError(f"export: module: has {size} bytes of parameters; need at most {_MOST_BYTES}, "
                         "as much as one file of ONNX holds")


class _Graph:
    """Nodes in the order in which they are added; a tensor is known by its name."""

    def __init__(self, own: MultiheadAttention) -> None:
        self._own = own
        self._nodes: list[NodeProto] = []
        self._tensors: dict[str, TensorProto] = {}
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []
        lengths = {"query": ("q_len", own.embed_dim), "key": ("kv_len", own.kdim),
                   "value": ("kv_len", own.vdim)}
        # The inputs, batch first: [batch, len, width].
        self._x = {name: self._input(name, *sizes) for name, sizes in lengths.items()}

    def mask(self, attn_mask: str | None, key_padding_mask: str | None) -> str:
        """[q_len, kv_len] or [batch, 1, q_len, kv_len], bool (True = visible) or float; "" for none."""
        own_kinds = {"attn_mask": attn_mask, "key_padding_mask": key_padding_mask}
        sizes = {"attn_mask": ("q_len", "kv_len"), "key_padding_mask": ("batch", "kv_len")}
        kinds = {name: kind for name, kind in own_kinds.items() if kind is not None}
        terms = []
        for name, kind in kinds.items():
            self._inputs.append(self._info(name, sizes[name], kind == "bool"))
            term = name
            if name == "key_padding_mask":
                term = self._add("Unsqueeze", term, self._constant("padding_axes", [1, 2]))
            if kind == "bool" and "float" in kinds.values():
                term = self._add("Where", term, self._constant("hidden", np.float32(-np.inf)),
                                 self._constant("visible", np.float32(0)))
            terms.append(term)
        if not terms:
            return ""
        is_bool = "float" not in kinds.values()
        joined = terms[0] if len(terms) == 1 else self._add("Or" if is_bool else "Add", *terms)
        joined = self._add("Not", joined) if is_bool else joined
        if "attn_mask" in kinds:
            return joined
        one = self._constant("one", [1])  # a row for each query: ONNX Runtime asks for them
        q_len = self._add("Shape", self._x["query"], start=1, end=2)
        return self._add("Expand", joined, self._add("Concat", one, one, q_len, one, axis=0))

    def attend(self, mask: str, is_causal: bool, weights: str | None) -> None:
        own, state = self._own, self._own.state_dict()
        heads = [own.num_heads, own.num_kv_heads, own.num_kv_heads]
        bounds = np.cumsum(heads)[:-1] * own.head_dim
        if "in_proj_weight" in state:
            matrices = np.split(state["in_proj_weight"], bounds)
        else:
            matrices = [state[f"{part}_proj_weight"] for part in "qkv"]
        biases = np.split(state["in_proj_bias"], bounds) if own.bias else [None] * 3
        parts = [self._linear(part, x, matrix, bias) for part, x, matrix, bias in
                 zip("qkv", self._x.values(), matrices, biases)]
        for i, part in enumerate("qk"):
            parts[i] = self._turned(part, self._normed(part, parts[i], heads[i]), heads[i])
        wanted = ["heads"] if weights is None else ["heads", "", "", f"weights_{weights}"]
        self._nodes.append(helper.make_node(
            "Attention", [*parts, mask] if mask else parts, wanted, "attention",
            q_num_heads=heads[0], kv_num_heads=heads[1], is_causal=int(is_causal),
            qk_matmul_output_mode=3 if weights else 0))
        out = self._linear("out", "heads", state["out_proj.weight"], state.get("out_proj.bias"))
        self._output("out", out, "Identity" if own.batch_first else "Transpose",
                     self._sizes("q_len", own.embed_dim))
        if weights == "average":
            axis = self._constant("head_axis", [1])
            self._output("weights", "weights_average", "ReduceMean", ("batch", "q_len", "kv_len"), axis)
        elif weights == "per_head":
            self._output("weights", "weights_per_head", "Identity",
                         ("batch", own.num_heads, "q_len", "kv_len"))

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(self._nodes, "MultiheadAttention", self._inputs, self._outputs,
                                  list(self._tensors.values()))
        return helper.make_model_gen_version(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="polyhead",
            producer_version=__version__)

    def _linear(self, part: str, x: str, matrix: Array, bias: Array | None) -> str:
        y = self._add("MatMul", x, self._constant(f"{part}_weight", matrix.T))
        return y if bias is None else self._add("Add", y, self._constant(f"{part}_bias", bias))

    def _normed(self, part: str, x: str, heads: int) -> str:
        """x [batch, len, heads * head_dim]"""
        own = self._own
        if not own.qk_norm:
            return x
        apart = self._constant(f"{part}_heads", [0, 0, heads, own.head_dim])
        weight = self._constant(f"{part}_norm_weight", own.state_dict()[f"{part}_norm.weight"])
        y = self._add("RMSNormalization", self._add("Reshape", x, apart), weight, axis=-1,
                      epsilon=own.qk_norm_eps)
        together = self._constant(f"{part}_width", [0, 0, heads * own.head_dim])
        return self._add("Reshape", y, together)

    def _turned(self, part: str, x: str, heads: int) -> str:
        """x [batch, len, heads * head_dim]. Angles are double: their rounding grows with positions."""
        rope: Any = self._own.rope
        if rope is None:
            return x
        frequencies = self._constant("frequencies", _frequencies(rope)[None])  # [1, rotary_dim / 2]
        zero, one = self._constant("first", np.int64(0)), self._constant("step", np.int64(1))
        length = self._add("Squeeze", self._add("Shape", x, start=1, end=2))
        positions = self._add("Cast", self._add("Range", zero, length, one), to=TensorProto.DOUBLE)
        column = self._add("Unsqueeze", positions, self._constant("column_axis", [1]))
        angles = self._add("Mul", column, frequencies)  # [len, rotary_dim / 2]
        pairs = self._constant("pairs", [rope["rotary_dim"] // 2])
        sizes = self._add("Concat", self._add("Shape", x, start=0, end=2), pairs, axis=0)
        rounded = [self._add("Cast", self._add(function, angles), to=TensorProto.FLOAT)
                   for function in ("Cos", "Sin")]
        tables = [self._add("Expand", table, sizes) for table in rounded]
        is_whole = rope["rotary_dim"] == self._own.head_dim
        return self._add("RotaryEmbedding", x, *tables, num_heads=heads,
                         interleaved=int(rope["pairs"] == "interleaved"),
                         rotary_embedding_dim=0 if is_whole else rope["rotary_dim"])

    def _sizes(self, length: str, width: int) -> tuple[Any, ...]:
        return ("batch", length, width) if self._own.batch_first else (length, "batch", width)

    def _input(self, name: str, length: str, width: int) -> str:
        self._inputs.append(self._info(name, self._sizes(length, width)))
        return name if self._own.batch_first else self._add("Transpose", name, perm=[1, 0, 2])

    # The names of the model's outputs are said, those between are counted.
    def _output(self, name: str, source: str, kind: str, sizes: tuple[Any, ...], *more: str) -> None:
        attributes: Any = {"Transpose": {"perm": [1, 0, 2]}, "ReduceMean": {"keepdims": 0}}.get(kind, {})
        self._nodes.append(helper.make_node(kind, [source, *more], [name], name, **attributes))
        self._outputs.append(self._info(name, sizes))

    def _info(self, name: str, sizes: tuple[Any, ...], is_bool: bool = False) -> ValueInfoProto:
        kind = TensorProto.BOOL if is_bool else TensorProto.FLOAT
        return helper.make_tensor_value_info(name, kind, sizes)

    def _add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def _constant(self, name: str, value: Any) -> str:
        """An initializer; of one name there is one value."""
        if name not in self._tensors:
            array = np.array(value, np.int64) if isinstance(value, list) else np.ascontiguousarray(value)
            self._tensors[name] = numpy_helper.from_array(array.reshape(np.shape(value)), name)
        return name


def _frequencies(rope: dict[str, Any]) -> npt.NDArray[np.float64]:
    """Radians for each position, of each pair."""
    dim, scaling, factor = rope["rotary_dim"], rope["scaling"], float(rope["factor"])
    base = float(rope["base"])
    if scaling == "ntk" and dim > 2:
        base *= factor ** (dim / (dim - 2))
    plain: npt.NDArray[np.float64] = np.power(base, -np.arange(0, dim, 2) / dim)
    if scaling == "linear":
        return plain / factor
    if scaling != "llama3":
        return plain
    turns = rope["original_length"] * plain / (2 * math.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    kept: npt.NDArray[np.float64] = np.clip((turns - low) / (high - low), 0, 1)
    return plain * ((1 - kept) / factor + kept)


def _write(file: str, content: bytes) -> None:
    part = f"{file}.{os.getpid()}.part"
    try:
        with open(part, "wb") as stream:
            stream.write(content)
        os.replace(part, file)
    except BaseException:
        if os.path.exists(part):
            os.remove(part)
        raise

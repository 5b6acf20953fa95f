"""A MultiheadAttention as nodes of ONNX."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from polyhead._modules import MultiheadAttention
from polyhead._typing import Rope
from polyhead.onnx._graph import Graph, Sizes

Array = npt.NDArray[Any]


class Writer:
    """The nodes of a module. Inside, all is batch first."""

    def __init__(self, own: MultiheadAttention) -> None:
        self._own, self._state = own, own.state_dict()
        self._extras = own.add_bias_kv + own.add_zero_attn  # keys that every query sees
        self.graph = Graph()
        sizes = {"query": self._sizes("q_len", own.embed_dim), "key": self._sizes("kv_len", own.kdim),
                 "value": self._sizes("kv_len", own.vdim)}
        self._x = [self._batch_first_or_back(self.graph.input(name, each))
                   for name, each in sizes.items()]

    def mask(self, kinds: dict[str, str], is_causal: bool) -> str:
        """What the node's attn_mask is, [q_len, kv_len] or [batch, 1, q_len, kv_len], bool (True =
        visible) or float; "" for none. kinds: of those of attn_mask and key_padding_mask there are."""
        graph, terms = self.graph, []
        is_bool = "float" not in kinds.values()
        for name, kind in kinds.items():
            sizes = ("q_len", "kv_len") if name == "attn_mask" else ("batch", "kv_len")
            term = graph.input(name, sizes, TensorProto.BOOL if kind == "bool" else TensorProto.FLOAT)
            if name == "key_padding_mask":
                term = graph.add("Unsqueeze", term, graph.constant("padding_axes", [1, 2]))
            terms.append(self._as_float(term) if kind == "bool" and not is_bool else term)
        if is_causal:
            key, query = (graph.indices(graph.size(self._x[i], 1)) for i in (1, 0))
            later = graph.add("Greater", key, graph.column(query))  # [q_len, kv_len]
            terms.append(later if is_bool else self._as_float(later))
        if not terms:
            return ""
        joined = terms[0]
        for term in terms[1:]:
            joined = graph.add("Or" if is_bool else "Add", joined, term)
        joined = graph.add("Not", joined) if is_bool else joined
        has_rows = is_causal or "attn_mask" in kinds
        joined = joined if has_rows else self._with_rows(joined)
        return self._with_extras(joined, rank=4 if "key_padding_mask" in kinds else 2, is_bool=is_bool)

    def attend(self, mask: str, is_causal: bool, weights: str | None) -> None:
        """Projections, the node, the last projection; the model's outputs."""
        own, graph = self._own, self.graph
        heads = [own.num_heads, own.num_kv_heads, own.num_kv_heads]
        parts = self._projected(heads)
        for i, part in enumerate("qk"):
            parts[i] = self._turned(self._normed(part, parts[i], heads[i]), heads[i])
        parts[1:] = [self._with_extra_keys(name, x) for name, x in zip(("bias_k", "bias_v"), parts[1:])]
        y, _, _, probs = graph.add_many(
            "Attention", (*parts, mask) if mask else tuple(parts), (True, False, False, weights is not None),
            q_num_heads=heads[0], kv_num_heads=heads[1], is_causal=int(is_causal),
            qk_matmul_output_mode=3 if weights else 0)
        out = self._linear("out", y, self._state["out_proj.weight"], self._state.get("out_proj.bias"))
        graph.output("out", self._batch_first_or_back(out), self._sizes("q_len", own.embed_dim))
        kv_len = f"kv_len + {self._extras}" if self._extras else "kv_len"
        probs = self._with_sizes(probs, parts) if weights else ""
        if weights == "average":
            average = graph.add("ReduceMean", probs, graph.constant("head_axis", [1]), keepdims=0)
            graph.output("weights", average, ("batch", "q_len", kv_len))
        elif weights == "per_head":
            graph.output("weights", probs, ("batch", own.num_heads, "q_len", kv_len))

    def _with_sizes(self, probs: str, parts: list[str]) -> str:
        """What these sizes are: the operator's shape inference, ONNX Runtime's too, says that probs has
        no keys where kv_len is a name."""
        graph = self.graph
        heads = graph.constant("num_heads", [self._own.num_heads])
        sizes = graph.add("Concat", graph.size(parts[0], 0), heads, graph.size(parts[0], 1),
                          graph.size(parts[1], 1), axis=0)
        return graph.add("Reshape", probs, sizes)

    def _projected(self, heads: list[int]) -> list[str]:
        """q, k, v [batch, len, heads * head_dim]"""
        bounds = np.cumsum(heads)[:-1] * self._own.head_dim
        if "in_proj_weight" in self._state:
            matrices = np.split(self._state["in_proj_weight"], bounds)
        else:
            matrices = [self._state[f"{part}_proj_weight"] for part in "qkv"]
        biases = np.split(self._state["in_proj_bias"], bounds) if self._own.bias else [None] * 3
        return [self._linear(*each) for each in zip("qkv", self._x, matrices, biases)]

    def _linear(self, part: str, x: str, matrix: Array, bias: Array | None) -> str:
        y = self.graph.add("MatMul", x, self.graph.constant(f"{part}_weight", matrix.T))
        return y if bias is None else self.graph.add("Add", y, self.graph.constant(f"{part}_bias", bias))

    def _normed(self, part: str, x: str, heads: int) -> str:
        """x [batch, len, heads * head_dim]"""
        graph, own = self.graph, self._own
        if not own.qk_norm:
            return x
        apart = graph.constant(f"{part}_heads", [0, 0, heads, own.head_dim])
        weight = graph.constant(f"{part}_norm_weight", self._state[f"{part}_norm.weight"])
        y = graph.add("RMSNormalization", graph.add("Reshape", x, apart), weight, axis=-1,
                      epsilon=own.qk_norm_eps)
        return graph.add("Reshape", y, graph.constant(f"{part}_width", [0, 0, heads * own.head_dim]))

    def _turned(self, x: str, heads: int) -> str:
        """x [batch, len, heads * head_dim]. Angles are double: their rounding grows with positions."""
        graph, rope = self.graph, self._own.rope
        if rope is None:
            return x
        positions = graph.add("Cast", graph.indices(graph.size(x, 1)), to=TensorProto.DOUBLE)
        frequencies = graph.constant("frequencies", _frequencies(rope))
        angles = graph.add("Mul", graph.column(positions), frequencies)  # [len, rotary_dim / 2]
        pairs = graph.constant("pairs", [rope["rotary_dim"] // 2])
        sizes = graph.add("Concat", graph.add("Shape", x, start=0, end=2), pairs, axis=0)
        rounded = [graph.add("Cast", graph.add(function, angles), to=TensorProto.FLOAT)
                   for function in ("Cos", "Sin")]
        tables = [graph.add("Expand", table, sizes) for table in rounded]
        is_whole = rope["rotary_dim"] == self._own.head_dim
        return graph.add("RotaryEmbedding", x, *tables, num_heads=heads,
                         interleaved=int(rope["pairs"] == "interleaved"),
                         rotary_embedding_dim=0 if is_whole else rope["rotary_dim"])

    def _with_extra_keys(self, name: str, x: str) -> str:
        """x [batch, kv_len, width] with what add_bias_kv and add_zero_attn append to it."""
        graph, own = self.graph, self._own
        width = own.num_kv_heads * own.head_dim
        rows = [self._state[name].reshape(1, 1, width)] if own.add_bias_kv else []
        rows += [np.zeros((1, 1, width), np.float32)] if own.add_zero_attn else []
        if not rows:
            return x
        one = graph.constant("one", [1])
        sizes = graph.add("Concat", graph.size(x, 0), one, one, axis=0)
        extra = graph.constant(f"extra_{name}", np.concatenate(rows, axis=1))
        return graph.add("Concat", x, graph.add("Expand", extra, sizes), axis=1)

    def _with_extras(self, mask: str, rank: int, is_bool: bool) -> str:
        """Visible columns for them, at the end."""
        if not self._extras:
            return mask
        pads = self.graph.constant("extra_columns", [0] * (2 * rank - 1) + [self._extras])
        shown = self.graph.constant("shown", np.bool_(True) if is_bool else np.float32(0))
        return self.graph.add("Pad", mask, pads, shown)

    def _with_rows(self, mask: str) -> str:
        """One for each query, which ONNX Runtime asks for: [batch, 1, 1, kv_len] -> [.., q_len, ..]"""
        one = self.graph.constant("one", [1])
        sizes = self.graph.add("Concat", one, one, self.graph.size(self._x[0], 1), one, axis=0)
        return self.graph.add("Expand", mask, sizes)

    def _as_float(self, hidden: str) -> str:
        return self.graph.add("Where", hidden, self.graph.constant("minus_infinity", np.float32(-np.inf)),
                              self.graph.constant("zero", np.float32(0)))

    def _sizes(self, length: str, width: int) -> Sizes:
        return ("batch", length, width) if self._own.batch_first else (length, "batch", width)

    def _batch_first_or_back(self, x: str) -> str:
        return x if self._own.batch_first else self.graph.add("Transpose", x, perm=[1, 0, 2])


def _frequencies(rope: Rope) -> npt.NDArray[np.float64]:
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

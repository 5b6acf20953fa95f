"""The operator Attention on the op: what a node says becomes the op's options."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto

from polyhead._attention import scaled_dot_product_attention
from polyhead.onnx._attributes import Attributes, Mode, refuse

Array = npt.NDArray[Any]
INPUTS = ("Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen")
OUTPUTS = ("Y", "present_key", "present_value", "qk_matmul_output")
VERSIONS = (23, 24, 25)
_FLOATS = tuple(map(np.dtype, (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)))


@dataclass
class _Operands:
    """What is computed with, once the inputs are known to fit together."""

    query: Array  # [B, H, L, D]
    key: Array  # [B, Hkv, S, D], the past before it
    value: Array  # [B, Hkv, S, Dv], likewise
    mask: Array | None  # broadcasts onto [B, H, L, S]
    past_len: int | None
    lengths: Array | None  # [B]

    @property
    def scores_shape(self) -> tuple[int, ...]:
        return *self.query.shape[:3], self.key.shape[2]


class AttentionNode:
    """A node of the operator, as opset `version` defines it. Calls may run side by side."""

    def __init__(self, node: NodeProto, version: int) -> None:
        self._version = version
        self._attributes = Attributes(**{
            attribute.name: onnx.helper.get_attribute_value(attribute)
            for attribute in node.attribute})
        self._attributes.check()
        self._wanted = [bool(name) for name in node.output]
        self._wanted += [False] * (len(OUTPUTS) - len(self._wanted))
        self._check_presence([bool(name) for name in node.input])

    def _check_presence(self, given: Sequence[bool]) -> None:
        has = dict.fromkeys(INPUTS, False) | dict(zip(INPUTS, given))  # the checker has seen Q, K, V
        if has["past_key"] != has["past_value"]:
            refuse("past_key, past_value", "got one of them", "both or neither")
        if self._wanted[1] != self._wanted[2]:
            refuse("present_key, present_value", "one of them is wanted", "both or neither")
        if has["nonpad_kv_seqlen"] and (has["past_key"] or self._wanted[1]):
            refuse("nonpad_kv_seqlen", "given, with past or present keys and values",
                    "one or the other")

    def __call__(self, inputs: Sequence[Array | None]) -> list[Array]:
        """The outputs that the node names, from its inputs by position; None where it names none."""
        given = {name: array for name, array in zip(INPUTS, inputs) if array is not None}
        _check_types(given)
        query, key, value = self._four_dimensional(given)
        key, value = _with_past(key, value, given)
        operands = self._operands(query, key, value, given)
        with np.errstate(all="ignore"):  # what is too large for a narrow type is infinite there
            out, scores = self._attend(operands)
            out = out.astype(query.dtype, copy=False)
            scores = None if scores is None else scores.astype(query.dtype, copy=False)
        if given["Q"].ndim == 3:
            batch, heads, length, width = out.shape
            out = out.swapaxes(1, 2).reshape(batch, length, heads * width)
        if self._wanted[1] and "past_key" not in given:
            key, value = np.array(key), np.array(value)  # not the memory of the inputs
        results = (out, key, value, scores)
        return [result for result, wanted in zip(results, self._wanted) if wanted and result is not None]

    def _four_dimensional(self, given: Mapping[str, Array]) -> list[Array]:
        """Q, K and V as [B, heads, len, width]; views."""
        rank = given["Q"].ndim
        heads = (self._attributes.q_num_heads, self._attributes.kv_num_heads)
        if rank not in (3, 4):
            refuse("Q", _shape(given["Q"]), "3 or 4 dimensions")
        if rank == 3 and None in heads:
            refuse("q_num_heads, kv_num_heads", "one is missing", "both, with 3-D inputs")
        if rank == 4 and heads != (None, None) and self._version >= 25:
            refuse("q_num_heads, kv_num_heads", "given", "neither, with 4-D inputs")
        views = []
        for name, count in zip(INPUTS[:3], (heads[0], heads[1], heads[1])):
            array = given[name]
            if array.ndim != rank:
                refuse(name, _shape(array), f"{rank} dimensions, as Q has")
            if rank == 4:
                if count not in (None, array.shape[1]):
                    refuse(name, _shape(array), f"{count} heads, as the attribute says")
                views.append(array)
                continue
            assert count is not None
            batch, length, width = array.shape
            if width % count != 0:
                refuse(name, _shape(array), f"a last size that {count} heads divide")
            views.append(array.reshape(batch, length, count, width // count).swapaxes(1, 2))
        return views

    def _operands(self, query: Array, key: Array, value: Array,
                  given: Mapping[str, Array]) -> _Operands:
        batch, heads, _, head_dim = query.shape
        kv_heads, kv_len = key.shape[1:3]
        if key.shape[0] != batch or key.shape[3] != head_dim:
            refuse("K", _shape(key), f"batch {batch} and head size {head_dim}, as Q has")
        if value.shape[:3] != key.shape[:3]:
            refuse("V", _shape(value), f"[{batch}, {kv_heads}, {kv_len}, ..], as K has")
        if kv_heads == 0 or heads % kv_heads != 0:
            refuse("K", f"{kv_heads} heads", f"a divisor of the {heads} of Q")
        past = given.get("past_key")
        lengths = given.get("nonpad_kv_seqlen")
        if lengths is not None and lengths.shape != (batch,):
            refuse("nonpad_kv_seqlen", _shape(lengths), f"[{batch}]")
        for length in () if lengths is None else lengths.tolist():
            if not 0 <= length <= kv_len:
                refuse("nonpad_kv_seqlen", f"got {length}", f"0 to {kv_len}, the keys there are")
        dtype = self._dtype(given)
        query, key, value = (x.astype(dtype, copy=False) for x in (query, key, value))
        operands = _Operands(query, key, value, None, None if past is None else past.shape[2], lengths)
        if "attn_mask" in given:
            operands.mask = self._mask(given["attn_mask"], operands.scores_shape)
        return operands

    def _dtype(self, given: Mapping[str, Array]) -> npt.DTypeLike:
        """Of the computation: what any of them needs, and softmax_precision at least."""
        is_double = self._attributes.softmax_precision == TensorProto.DOUBLE
        is_double |= np.float64 in (given["Q"].dtype, given["V"].dtype)
        return np.float64 if is_double else np.float32

    def _mask(self, mask: Array, full: tuple[int, ...]) -> Array:
        if not 1 <= mask.ndim <= 4:
            refuse("attn_mask", _shape(mask), "1 to 4 dimensions")
        if mask.dtype in _FLOATS[:2]:
            mask = mask.astype(np.float32)
        missing = full[3] - mask.shape[-1]
        if missing > 0 and self._version >= 24:  # opset 23 has no padding: a size of 1 broadcasts
            hidden = False if mask.dtype == np.bool_ else -np.inf
            mask = np.pad(mask, [(0, 0)] * (mask.ndim - 1) + [(0, missing)], constant_values=hidden)
        if any(size not in (1, whole) for size, whole in zip(mask.shape[::-1], full[::-1])):
            refuse("attn_mask", _shape(mask), f"what broadcasts onto {list(full)}")
        return np.atleast_2d(mask)

    def _attend(self, operands: _Operands) -> tuple[Array, Array | None]:
        """(out [B, H, L, Dv], qk_matmul_output [B, H, L, S] if it is wanted)"""
        attributes, mode = self._attributes, self._attributes.qk_matmul_output_mode
        has_probs = self._wanted[3] and mode == Mode.PROBS
        window = None
        if attributes.has_window:
            window = (attributes.left_window_size, attributes.right_window_size)
        compares = attributes.is_causal == 1 or window is not None
        # Bottom right means the end of each item's own keys.
        ends = compares and operands.lengths is not None
        result: Any = scaled_dot_product_attention(
            operands.query, operands.key, operands.value, operands.mask,
            is_causal=attributes.is_causal == 1, scale=attributes.scale, enable_gqa=True,
            causal_align="bottom_right" if ends else "top_left",
            weights="per_head" if has_probs else None, window=window,
            query_offset=operands.past_len if compares else None, key_lengths=operands.lengths,
            softcap=attributes.softcap)
        if has_probs:
            return result[0], result[1]
        return result, self._scores(operands) if self._wanted[3] else None

    def _scores(self, operands: _Operands) -> Array:
        """What the op keeps to itself, for those who debug: before the softmax."""
        attributes = self._attributes
        batch, heads, q_len, kv_len = operands.scores_shape
        kv_heads, head_dim = operands.key.shape[1], operands.key.shape[3]
        grouped = operands.query.reshape(batch, kv_heads, heads // kv_heads, q_len, head_dim)
        scores = grouped @ operands.key[:, :, None].swapaxes(-1, -2)  # [B, Hkv, group, L, S]
        scale = attributes.scale
        if scale is None:
            scale = 1 / math.sqrt(head_dim) if head_dim else 1.0
        scores = scale * scores.reshape(operands.scores_shape)
        if attributes.qk_matmul_output_mode != Mode.RAW and attributes.softcap:
            scores = attributes.softcap * np.tanh(scores / attributes.softcap)
        if attributes.qk_matmul_output_mode == Mode.WITH_BIAS:
            visible, mask = self._visible(operands), operands.mask
            if mask is not None and mask.dtype == np.bool_:
                visible = visible & mask
            elif mask is not None:
                scores = scores + mask
            scores = np.where(visible, scores, -np.inf)
        return scores

    def _visible(self, operands: _Operands) -> Array:
        """By position alone: [B or 1, 1, L, S]."""
        attributes, lengths = self._attributes, operands.lengths
        q_len, kv_len = operands.scores_shape[2:]
        start: Any = operands.past_len or 0
        if lengths is not None:
            start = (lengths - q_len)[:, None, None, None]
        key = np.arange(kv_len)
        behind = np.arange(q_len)[:, None] + start - key  # [.., L, S]: of the key, its query
        visible = np.ones((1, 1, q_len, kv_len), bool)
        if attributes.is_causal:
            visible = visible & (behind >= 0)
        if attributes.left_window_size >= 0:
            visible = visible & (behind <= attributes.left_window_size)
        if attributes.right_window_size >= 0:
            visible = visible & (-behind <= attributes.right_window_size)
        if lengths is not None:
            visible = visible & (key < lengths[:, None, None, None])
        return visible


def _with_past(key: Array, value: Array, given: Mapping[str, Array]) -> tuple[Array, Array]:
    if "past_key" not in given:
        return key, value
    pasts = given["past_key"], given["past_value"]
    for name, past, now in zip(INPUTS[4:6], pasts, (key, value)):
        fits = past.ndim == 4 and past.shape[:2] == now.shape[:2] and past.shape[3] == now.shape[3]
        if not fits:
            batch, heads, _, width = now.shape
            refuse(name, _shape(past), f"[{batch}, {heads}, .., {width}]")
    if pasts[0].shape[2] != pasts[1].shape[2]:
        refuse("past_value", _shape(pasts[1]), f"length {pasts[0].shape[2]}, as past_key has")
    joined = [np.concatenate(pair, axis=2) for pair in zip(pasts, (key, value))]
    return joined[0], joined[1]


def _check_types(given: Mapping[str, Array]) -> None:
    for name, like in (("Q", "Q"), ("K", "Q"), ("V", "V"), ("past_key", "Q"), ("past_value", "V")):
        if name not in given:
            continue
        dtype = given[name].dtype
        if dtype not in _FLOATS:
            refuse(name, f"dtype is {dtype}", "float32, float64, float16 or bfloat16")
        if dtype != given[like].dtype:
            refuse(name, f"dtype is {dtype}", f"{given[like].dtype}, as {like} has")
    if "attn_mask" in given and given["attn_mask"].dtype not in (np.dtype(bool), *_FLOATS):
        refuse("attn_mask", f"dtype is {given['attn_mask'].dtype}", "bool (True = attend) or a float")
    if "nonpad_kv_seqlen" in given and given["nonpad_kv_seqlen"].dtype != np.int64:
        refuse("nonpad_kv_seqlen", f"dtype is {given['nonpad_kv_seqlen'].dtype}", "int64")


def _shape(array: Array) -> str:
    return f"shape is {list(array.shape)}"

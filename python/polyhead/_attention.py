"""scaled_dot_product_attention: the op, without a module around it."""

from __future__ import annotations

import secrets
from typing import Any, overload

from polyhead import _core
from polyhead._arguments import explained
from polyhead._typing import Array, CausalAlign, EmptyRows, FloatArray, Weights


@overload
def scaled_dot_product_attention(
    query: Array, key: Array, value: Array, attn_mask: Array | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
    enable_gqa: bool = False, *, causal_align: CausalAlign = "top_left", weights: None = None,
    empty_rows: EmptyRows = "zero", seed: int | None = None) -> FloatArray: ...
@overload
def scaled_dot_product_attention(
    query: Array, key: Array, value: Array, attn_mask: Array | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
    enable_gqa: bool = False, *, causal_align: CausalAlign = "top_left", weights: Weights,
    empty_rows: EmptyRows = "zero", seed: int | None = None
) -> tuple[FloatArray, FloatArray]: ...


def scaled_dot_product_attention(
        query: Array, key: Array, value: Array, attn_mask: Array | None = None,
        dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
        enable_gqa: bool = False, *, causal_align: CausalAlign = "top_left",
        weights: Weights | None = None, empty_rows: EmptyRows = "zero",
        seed: int | None = None) -> Any:
    """softmax(scale * query . key^T + attn_mask) . value, as torch's function of this name.

    query       [..., H, L, D], float32 or float64; without heads [L, D]
    key         [..., H, S, D], of the query's dtype
    value       [..., H, S, Dv], likewise. Sizes of 1 before the last two broadcast
    attn_mask   broadcasts onto [..., H, L, S]. bool: True = attend. float32 or float64: added to the
                scaled scores. Together with is_causal both hold
    dropout_p   probability of dropping a weight; the others count 1 / (1 - dropout_p) times
    is_causal   query i sees keys j <= i; causal_align="bottom_right": j <= i + S - L (a KV cache)
    scale       default 1 / sqrt(D)
    enable_gqa  key and value may have fewer heads: query head h reads head h // (H / H of key)
    weights     "per_head" [..., H, L, S] or "average" [..., L, S]: also return them, after dropout
    empty_rows  a row whose every key is masked: "zero" or "nan"
    seed        of dropout: the same number drops the same weights. None: others at each call

    Returns out [..., H, L, Dv], or (out, weights): new numpy arrays of the query's dtype.

    Nothing of a masked key or value reaches a result, be it NaN. Raises ValueError for shapes,
    dtypes and options that do not fit, TypeError for what is no array.
    """
    if seed is None:
        is_zero = isinstance(dropout_p, (int, float)) and not dropout_p
        seed = 0 if is_zero else secrets.randbits(64)
    try:
        options = _core.AttentionOptions(
            attn_mask, dropout_p, seed, is_causal, scale, causal_align, weights, empty_rows)
        return _core.attend(query, key, value, options, enable_gqa)
    except TypeError as error:
        raise explained(error, scaled_dot_product_attention, locals()) from None

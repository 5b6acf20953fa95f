"""scaled_dot_product_attention: the op, without a module around it; packed_attention, for sequences
that stand one after the other."""

from __future__ import annotations

import secrets
from typing import Any, cast, overload

from polyhead import _core
from polyhead._arguments import explained, pair_of, plain_bool, refuse_masked
from polyhead._score_mod import block_function
from polyhead._typing import (
    Array, CausalAlign, EmptyRows, FloatArray, ScoreFunction, Weights, Window)


@overload
def scaled_dot_product_attention(
    query: Array, key: Array, value: Array, attn_mask: Array | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
    enable_gqa: bool = False, *, causal_align: CausalAlign = "top_left", weights: None = None,
    empty_rows: EmptyRows = "zero", seed: int | None = None, window: Window | None = None,
    query_offset: int | None = None, key_lengths: Array | None = None,
    segments: tuple[Array, Array] | None = None, softcap: float = 0.0,
    alibi_slopes: Array | None = None, sinks: Array | None = None,
    score_mod: ScoreFunction | None = None) -> FloatArray: ...
@overload
def scaled_dot_product_attention(
    query: Array, key: Array, value: Array, attn_mask: Array | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
    enable_gqa: bool = False, *, causal_align: CausalAlign = "top_left", weights: Weights,
    empty_rows: EmptyRows = "zero", seed: int | None = None, window: Window | None = None,
    query_offset: int | None = None, key_lengths: Array | None = None,
    segments: tuple[Array, Array] | None = None, softcap: float = 0.0,
    alibi_slopes: Array | None = None, sinks: Array | None = None,
    score_mod: ScoreFunction | None = None) -> tuple[FloatArray, FloatArray]: ...


# over-budget: 20 parameters, a line of text or more for each; the public names fix them.
def scaled_dot_product_attention(
        query: Array, key: Array, value: Array, attn_mask: Array | None = None,
        dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
        enable_gqa: bool = False, *, causal_align: CausalAlign = "top_left",
        weights: Weights | None = None, empty_rows: EmptyRows = "zero",
        seed: int | None = None, window: Window | None = None, query_offset: int | None = None,
        key_lengths: Array | None = None, segments: tuple[Array, Array] | None = None,
        softcap: float = 0.0, alibi_slopes: Array | None = None,
        sinks: Array | None = None, score_mod: ScoreFunction | None = None) -> Any:
    """softmax(scale * query . key^T + attn_mask) . value, as torch's function of this name.

    query       [..., H, L, D], float32 or float64; without heads [L, D]
    key         [..., H, S, D], of the query's dtype
    value       [..., H, S, Dv], likewise. Sizes of 1 before the last two broadcast
    attn_mask   broadcasts onto [..., H, L, S]; 2 dimensions at least, at most the operands'. bool:
                True = attend; float32 or float64: added to the scaled scores. Together with
                is_causal both hold
    dropout_p   probability of dropping a weight; the others count 1 / (1 - dropout_p) times
    is_causal   query i sees keys j <= i; causal_align="bottom_right": j <= i + S - L (a KV cache)
    scale       default 1 / sqrt(D)
    enable_gqa  key and value may have fewer heads: query head h reads head h // (H / H of key)
    weights     "per_head" [..., H, L, S] or "average" [..., L, S]: also return them, after dropout
    empty_rows  a row whose every key is masked: "zero" or "nan"
    seed        of dropout: the same number drops the same weights. None: others at each call

    What a row sees by its position, without a mask in memory:

    query_offset  query i stands at key i + query_offset, for is_causal, window and alibi_slopes;
                  None: as causal_align says
    window        (left, right): so many keys before and after where the query stands; None (or
                  -1) on a side: all of them. A sliding window of n keys is (n - 1, 0)
    key_lengths   [B], int32 or int64: batch item b sees its first key_lengths[b] keys
    segments      (of the queries [L] or [B, L], of the keys [S] or [B, S]), int32 or int64: a query
                  sees the keys of its own number

    What changes the scores:

    softcap       scaled scores become softcap * tanh(score / softcap); 0: they do not
    alibi_slopes  [H] or [B, H], float32 or float64: -slope * |i - j| is added
    sinks         [H], of the query's dtype: a score beside those of the keys, without a value
    score_mod     score_mod(scores, batch, head, queries, keys) -> new scores, of a block of one head:
                  scores [queries, keys] after the softcap and before masks, a copy of the query's
                  dtype, with the positions queries [queries, 1] and keys [1, keys]; -inf hides. It is
                  called for each block, by several threads but not at once, and must give a pair the
                  same score in whatever block it comes. Slow: many calls of Python. What it raises
                  is raised here

    Returns out [..., H, L, Dv], or (out, weights): new numpy arrays of the query's dtype. Nothing of
    a masked key or value reaches them, be it NaN. Raises ValueError for shapes, dtypes and options
    that do not fit, TypeError for what is no array.
    """
    seed = _new_seed(dropout_p) if seed is None else seed
    is_causal = plain_bool(is_causal)
    refuse_masked("scaled_dot_product_attention", _OPERANDS, (query, key, value, attn_mask))
    try:
        structure = None
        if any(x is not None for x in (sinks, alibi_slopes, key_lengths, segments)):
            pair = pair_of(segments, "scaled_dot_product_attention")
            structure = (sinks, alibi_slopes, key_lengths, *pair, None, None)
            refuse_masked("scaled_dot_product_attention", _STRUCTURE, structure)
        options = _core.AttentionOptions(
            "scaled_dot_product_attention", attn_mask, dropout_p, seed, is_causal, scale,
            causal_align, weights, empty_rows, window, query_offset, softcap, structure,
            block_function(score_mod, "scaled_dot_product_attention"))
        return _core.attend(query, key, value, options, enable_gqa)
    except TypeError as error:
        raise explained(error, scaled_dot_product_attention, locals()) from None


_OPERANDS = ("query", "key", "value", "attn_mask")
_STRUCTURE = ("sinks", "alibi_slopes", "key_lengths", "segments", "segments", "cu_seqlens_q",
              "cu_seqlens_k")


def _new_seed(dropout_p: float) -> int:
    is_zero = isinstance(dropout_p, (int, float)) and not dropout_p
    return 0 if is_zero else secrets.randbits(64)


# over-budget: 18 parameters; the public names fix them.
def packed_attention(
        query: Array, key: Array, value: Array, cu_seqlens_q: Array,
        cu_seqlens_k: Array | None = None, *, dropout_p: float = 0.0, is_causal: bool = False,
        scale: float | None = None, causal_align: CausalAlign = "top_left",
        empty_rows: EmptyRows = "zero", seed: int | None = None, window: Window | None = None,
        query_offset: int | None = None, key_lengths: Array | None = None, softcap: float = 0.0,
        alibi_slopes: Array | None = None, sinks: Array | None = None,
        score_mod: ScoreFunction | None = None) -> FloatArray:
    """Attention of N sequences that stand one after the other, each by itself: no padding.

    query         [tokens, H, D], float32 or float64
    key           [tokens, Hkv, D] and
    value         [tokens, Hkv, Dv]: query head h reads head h // (H / Hkv)
    cu_seqlens_q  [N + 1], int32 or int64: sequence n has the queries from cu_seqlens_q[n] to before
                  cu_seqlens_q[n + 1]; the first is 0, the last the number of tokens
    cu_seqlens_k  the same of keys and values; None: cu_seqlens_q
    key_lengths   [N]: sequence n sees its first key_lengths[n] keys
    alibi_slopes  [H] or [N, H]

    The other options are those of scaled_dot_product_attention; positions count from 0 in each
    sequence, whose result has the bits of a call of its own; a score_mod's batch is the sequence.
    Returns [tokens, H, Dv].
    """
    if seed is None:
        seed = _new_seed(dropout_p)
    is_causal = plain_bool(is_causal)
    try:
        if cu_seqlens_q is None:
            raise TypeError("packed_attention: cu_seqlens_q: got NoneType; need an array")
        structure = (sinks, alibi_slopes, key_lengths, None, None, cu_seqlens_q,
                     cu_seqlens_q if cu_seqlens_k is None else cu_seqlens_k)
        refuse_masked("packed_attention", _OPERANDS, (query, key, value))
        refuse_masked("packed_attention", _STRUCTURE, structure)
        options = _core.AttentionOptions(
            "packed_attention", None, dropout_p, seed, is_causal, scale, causal_align, None,
            empty_rows, window, query_offset, softcap, structure,
            block_function(score_mod, "packed_attention"))
        return cast(FloatArray, _core.attend_packed(query, key, value, options))
    except TypeError as error:
        raise explained(error, packed_attention, locals()) from None

"""What a row sees by its position and what changes its scores, on the way to the op; and sequences
that stand one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from polyhead._arguments import explained, pair_of
from polyhead._typing import CausalAlign, EmptyRows, Window
from polyhead.torch import _checks
from polyhead.torch._attention_call import OpOptions, Structure, attend


def structure_of(dtype: torch.dtype, batch: Sequence[int], *, sinks: Tensor | None,
                 alibi_slopes: Tensor | None, key_lengths: Tensor | None,
                 segments: tuple[Tensor, Tensor] | None) -> Structure:
    """For operands of this dtype, whose `batch` has been made one dimension."""
    queries, keys = pair_of(segments, "scaled_dot_product_attention")
    _checks.refuse_other_kinds(
        (sinks, alibi_slopes, key_lengths, queries, keys),
        ("sinks", "alibi_slopes", "key_lengths", "segments", "segments"))
    for name, x in (("key_lengths", key_lengths), ("segments", queries), ("segments", keys)):
        if x is not None and x.dtype not in (torch.int32, torch.int64):
            raise ValueError(f"{name}: dtype is {x.dtype}; need int32 or int64")
    if alibi_slopes is not None and alibi_slopes.requires_grad:
        raise RuntimeError("alibi_slopes: requires grad, and has none here; give .detach(), or an "
                           "attn_mask with the slopes in it")
    if sinks is not None:
        sinks = sinks.to(dtype)
    if alibi_slopes is not None:
        alibi_slopes = _flattened(alibi_slopes.to(dtype), batch)
    if key_lengths is not None:
        key_lengths = key_lengths.expand(*batch).reshape(-1)
    return (sinks, alibi_slopes, key_lengths, None if queries is None else _flattened(queries, batch),
            None if keys is None else _flattened(keys, batch), None, None)


def _flattened(x: Tensor, batch: Sequence[int]) -> Tensor:
    """[n], or [..., n] as [B, n]."""
    return x if x.dim() < 2 else x.expand(*batch, x.shape[-1]).reshape(-1, x.shape[-1])


# over-budget: 16 parameters; the public names fix them.
def packed_attention(
        query: Tensor, key: Tensor, value: Tensor, cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor | None = None, *, dropout_p: float = 0.0, is_causal: bool = False,
        scale: float | None = None, causal_align: CausalAlign = "top_left",
        empty_rows: EmptyRows = "zero", window: Window | None = None,
        query_offset: int | None = None, key_lengths: Tensor | None = None, softcap: float = 0.0,
        alibi_slopes: Tensor | None = None, sinks: Tensor | None = None) -> Tensor:
    """Attention of N sequences that stand one after the other, each by itself: no padding.

    query         [tokens, H, D]
    key, value    [tokens, Hkv, D] and [tokens, Hkv, Dv]: query head h reads head h // (H / Hkv)
    cu_seqlens_q  [N + 1], int32 or int64: sequence n has the queries from cu_seqlens_q[n] to before
                  cu_seqlens_q[n + 1]; the first is 0, the last the number of tokens
    cu_seqlens_k  the same of keys and values; None: cu_seqlens_q
    key_lengths   [N]: sequence n sees its first key_lengths[n] keys
    alibi_slopes  [H] or [N, H]

    The other options are those of scaled_dot_product_attention; positions count from 0 in each
    sequence, whose result has the bits of a call of its own. Returns [tokens, H, Dv].
    """
    names = ("query", "key", "value", "cu_seqlens_q", "cu_seqlens_k")
    _checks.refuse_other_kinds((query, key, value, cu_seqlens_q, cu_seqlens_k), names)
    for name, x in zip(names, (query, key, value)):
        if x.dim() != 3:
            raise ValueError(f"packed_attention: {name}: shape is {tuple(x.shape)}; need "
                             "[tokens, heads, head_dim]")
    items = cu_seqlens_q.numel() - 1
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    options = OpOptions(scale, is_causal, causal_align, None, empty_rows, dropout_p, 1.0,
                        window, query_offset, softcap)
    structure = structure_of(dtype, [items], sinks=sinks, alibi_slopes=alibi_slopes,
                             key_lengths=key_lengths, segments=None)
    bounds = cu_seqlens_q, cu_seqlens_q if cu_seqlens_k is None else cu_seqlens_k
    q, k, v = (x.transpose(0, 1)[None] for x in (query, key, value))  # [1, H, tokens, D]
    _checks.check_operands("packed_attention", q, k, v, None)
    try:
        out, _ = attend((q.to(dtype), k.to(dtype), v.to(dtype), None, *structure[:5], *bounds),
                        options)
    except TypeError as error:
        raise explained(error, packed_attention, locals()) from None
    return out[0].transpose(0, 1).to(query.dtype)

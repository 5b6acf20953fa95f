"""The op without a module: torch's function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import torch
from torch import Tensor

from polyhead._arguments import explained
from polyhead._typing import CausalAlign, EmptyRows, Weights
from polyhead.torch import _checks
from polyhead.torch._attention_call import Operands, OpOptions, attend


@overload
def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, *, scale: float | None = None,
    enable_gqa: bool = False, causal_align: CausalAlign = "top_left", weights: None = None,
    empty_rows: EmptyRows = "zero") -> Tensor: ...
@overload
def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, *, scale: float | None = None,
    enable_gqa: bool = False, causal_align: CausalAlign = "top_left", weights: Weights,
    empty_rows: EmptyRows = "zero") -> tuple[Tensor, Tensor]: ...


def scaled_dot_product_attention(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
        dropout_p: float = 0.0, is_causal: bool = False, *, scale: float | None = None,
        enable_gqa: bool = False, causal_align: CausalAlign = "top_left",
        weights: Weights | None = None, empty_rows: EmptyRows = "zero") -> Any:
    """torch.nn.functional.scaled_dot_product_attention: its arguments, its numbers, gradients.

    query       [..., H, L, D]
    key, value  [..., H, S, D] and [..., H, S, Dv]; sizes of 1 before the last two broadcast
    attn_mask   broadcasts onto [..., H, L, S]. bool: True = attend; float: added to the scaled
                scores. Together with is_causal both hold
    dropout_p   applies whenever it is given
    enable_gqa  key and value may have fewer heads: query head h reads head h // (H / H of key)
    causal_align  "top_left": query i sees keys j <= i; "bottom_right": j <= i + S - L
    weights     "per_head" [..., H, L, S] or "average" [..., L, S]: also return them, after dropout
    empty_rows  a row whose every key is masked: "zero" or "nan"

    Returns out [..., H, L, Dv], or (out, weights). Errors are torch's, in type and text.
    """
    options = OpOptions(scale, is_causal, causal_align, weights, empty_rows, dropout_p, 1.0)
    given = (query, key, value, attn_mask)
    try:
        _checks.check_operands(*given)
        if enable_gqa is not True and enable_gqa is not False:
            raise TypeError(f"enable_gqa: got {type(enable_gqa).__name__}; need True or False")
        result_dtype = query.dtype
        if torch.is_autocast_enabled("cpu") and result_dtype != torch.float64:
            result_dtype = torch.get_autocast_dtype("cpu")
        operands, leading = four_dimensional(given, enable_gqa)
        out, all_weights = attend(operands, options)
    except (ValueError, TypeError, RuntimeError, AttributeError) as error:
        _checks.refuse_operands(*given)
        # What torch says to it, if it has something to say.
        torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
        if isinstance(error, TypeError):
            raise explained(error, scaled_dot_product_attention, locals()) from None
        raise
    out = out.reshape(*leading, *out.shape[-2:]).to(result_dtype)
    if all_weights is None:
        return out
    kept = leading[:-1] if weights == "average" else leading
    return out, all_weights.reshape(*kept, *all_weights.shape[-2:]).to(result_dtype)


def four_dimensional(given: Operands, enable_gqa: bool) -> tuple[Operands, list[int]]:
    """The operands in float32 or float64 as [B, H, len, D], and the sizes before L of the result."""
    query, key, value, mask = given
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    if query.dtype != dtype:
        query, key, value = (x.to(dtype) for x in (query, key, value))
    if mask is not None and mask.dtype not in (torch.bool, torch.float32, dtype):
        mask = mask.to(dtype)
    shapes = [x.shape[:-2] for x in (query, key, value)]
    heads_differ = enable_gqa and query.dim() > 2
    if heads_differ and key.shape[-3] != value.shape[-3]:
        key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
        heads_differ = False
    if query.dim() == 4 and shapes[1] == shapes[2] \
            and (shapes[0] == shapes[1] or heads_differ and shapes[0][0] == shapes[1][0]):
        return (query, key, value, mask), list(query.shape[:-2])
    batch = torch.broadcast_shapes(  # type: ignore[no-untyped-call]
        *(s[:-1] if heads_differ else s for s in shapes))
    full = [[*batch, x.shape[-3]] if heads_differ else list(batch) for x in (query, key, value)]
    query, key, value = (_flattened(x, sizes) for x, sizes in zip((query, key, value), full))
    if mask is not None and mask.dim() > 2 and len(full[0]) > 2:
        mask = _flattened(mask, full[0])
    return (query, key, value, mask), full[0]


def _flattened(x: Tensor, leading: Sequence[int]) -> Tensor:
    """[..., len, D] -> [B, H, len, D], where `leading` stands before the last two."""
    x = x.expand(*leading, *x.shape[-2:])
    if len(leading) > 2:
        return x.flatten(0, -4)
    return x[(None,) * (2 - len(leading))]

"""The op without a module: torch's function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import torch
from torch import Tensor

from polyhead._arguments import explained, plain_bool
from polyhead._typing import CausalAlign, EmptyRows, Weights, Window
from polyhead.torch import _checks
from polyhead.torch._attention_call import NO_STRUCTURE, Operands, OpOptions, attend
from polyhead.torch._engine import autocast_dtype
from polyhead.torch._structure import structure_of


@overload
def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, *, scale: float | None = None,
    enable_gqa: bool = False, causal_align: CausalAlign = "top_left", weights: None = None,
    empty_rows: EmptyRows = "zero", window: Window | None = None,
    query_offset: int | None = None, key_lengths: Tensor | None = None,
    segments: tuple[Tensor, Tensor] | None = None, softcap: float = 0.0,
    alibi_slopes: Tensor | None = None, sinks: Tensor | None = None) -> Tensor: ...
@overload
def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, *, scale: float | None = None,
    enable_gqa: bool = False, causal_align: CausalAlign = "top_left", weights: Weights,
    empty_rows: EmptyRows = "zero", window: Window | None = None,
    query_offset: int | None = None, key_lengths: Tensor | None = None,
    segments: tuple[Tensor, Tensor] | None = None, softcap: float = 0.0,
    alibi_slopes: Tensor | None = None, sinks: Tensor | None = None
) -> tuple[Tensor, Tensor]: ...


# over-budget: 18 parameters; the public names fix them.
def scaled_dot_product_attention(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
        dropout_p: float = 0.0, is_causal: bool = False, *, scale: float | None = None,
        enable_gqa: bool = False, causal_align: CausalAlign = "top_left",
        weights: Weights | None = None, empty_rows: EmptyRows = "zero",
        window: Window | None = None, query_offset: int | None = None,
        key_lengths: Tensor | None = None, segments: tuple[Tensor, Tensor] | None = None,
        softcap: float = 0.0, alibi_slopes: Tensor | None = None,
        sinks: Tensor | None = None) -> Any:
    """torch.nn.functional.scaled_dot_product_attention: its arguments, its numbers, gradients.

    query       [..., H, L, D]
    key, value  [..., H, S, D] and [..., H, S, Dv]; sizes of 1 before the last two broadcast
    attn_mask   broadcasts onto [..., H, L, S]; 2 dimensions at least, at most the operands'. bool:
                True = attend; float: added to the scaled scores. Together with is_causal both hold
    dropout_p   applies whenever it is given
    enable_gqa  key and value may have fewer heads: query head h reads head h // (H / H of key)
    causal_align  "top_left": query i sees keys j <= i; "bottom_right": j <= i + S - L
    weights     "per_head" [..., H, L, S] or "average" [..., L, S]: also return them, after dropout
    empty_rows  a row whose every key is masked: "zero" or "nan"

    What a row sees by its position, without a mask in memory:

    query_offset  query i stands at key i + query_offset, for is_causal, window and alibi_slopes;
                  None: as causal_align says
    window        (left, right): so many keys before and after where the query stands; None (or
                  -1) on a side: all of them. A sliding window of n keys is (n - 1, 0)
    key_lengths   [...], as before the heads, integers: each batch item sees its first keys
    segments      (of the queries [L] or [..., L], of the keys [S] or [..., S]), integers: a query
                  sees the keys of its own number

    What changes the scores:

    softcap       scaled scores become softcap * tanh(score / softcap); 0: they do not
    alibi_slopes  [H] or [..., H]: -slope * |i - j| is added; without a gradient
    sinks         [H]: a score beside those of the keys, without a value; it has a gradient

    Returns out [..., H, L, Dv], or (out, weights). What torch's function refuses raises torch's
    error, in type and text; what is no tensor, or no dense one of the CPU, TypeError or RuntimeError
    in words of our own.
    """
    is_causal = plain_bool(is_causal)
    options = OpOptions(scale, is_causal, causal_align, weights, empty_rows, dropout_p, 1.0,
                        window, query_offset, softcap)
    given = (query, key, value, attn_mask)
    try:
        return _attended(given, enable_gqa, options, dict(
            sinks=sinks, alibi_slopes=alibi_slopes, key_lengths=key_lengths, segments=segments))
    except NotImplementedError:  # of ours, not for torch to say
        raise
    except (ValueError, TypeError, RuntimeError, AttributeError) as error:
        _checks.refuse_operands(*given)
        # What torch says to it, if it has something to say.
        torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
        if isinstance(error, TypeError):
            raise explained(error, scaled_dot_product_attention, locals()) from None
        raise


def _attended(given: Operands, enable_gqa: bool, options: OpOptions,
              structure: dict[str, Any]) -> Any:
    """What the operator gives for tensors of any rank and floating dtype."""
    _checks.check_operands("scaled_dot_product_attention", *given)
    if enable_gqa is not True and enable_gqa is not False:
        raise TypeError(f"enable_gqa: got {type(enable_gqa).__name__}; need True or False")
    result_dtype = autocast_dtype(given[0].dtype) or given[0].dtype
    operands, leading = four_dimensional(given, enable_gqa)
    has_structure = any(x is not None for x in structure.values())
    others = structure_of(operands[0].dtype, leading[:-1] or [1], **structure) if has_structure \
        else NO_STRUCTURE
    out, all_weights = attend((*operands, *others), options)
    out = out.reshape(*leading, *out.shape[-2:]).to(result_dtype)
    if all_weights is None:
        return out
    kept = leading[:-1] if options.weights == "average" else leading
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

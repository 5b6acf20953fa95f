"""The op without a module: torch's function, and what it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from polyhead import _core
from polyhead._typing import CausalAlign, EmptyRows, Weights
from polyhead.torch import _checks
from polyhead.torch._engine import draw_seed, follow_threads, is_plain
from polyhead.torch._functorch import Operator, differentiable_once, once


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
    _checks.require_one_length(key, value)
    try:
        _checks.check_operands(*given)
        result_dtype = query.dtype
        if torch.is_autocast_enabled("cpu") and result_dtype != torch.float64:
            result_dtype = torch.get_autocast_dtype("cpu")
        operands, leading = four_dimensional(given, enable_gqa)
        out, all_weights = attend(operands, options)
    except (ValueError, TypeError, RuntimeError):
        # What torch says to it, if it has something to say.
        torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
        raise
    out = out.reshape(*leading, *out.shape[-2:]).to(result_dtype)
    if weights is None:
        return out
    kept = leading[:-1] if weights == "average" else leading
    return out, all_weights.reshape(*kept, *all_weights.shape[-2:]).to(result_dtype)


class OpOptions(NamedTuple):
    scale: float | None
    is_causal: bool
    causal_align: str
    weights: str | None
    empty_rows: str
    dropout_p: float
    mask_factor: float  # attn_mask is multiplied by it; unless 1, a bool mask counts as numbers


# query [B, H, L, D], key [B, Hkv, S, D], value [B, Hkv, S, Dv], attn_mask
Operands = tuple[Tensor, Tensor, Tensor, "Tensor | None"]


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
    batch = torch.broadcast_shapes(*(s[:-1] if heads_differ else s for s in shapes))
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


def attend(operands: Operands, options: OpOptions) -> tuple[Tensor, Tensor | None]:
    """(out [B, H, L, Dv], weights as asked for) of four-dimensional operands."""
    if not is_plain(operands):
        seed = draw_seed() if options.dropout_p else None
        out, _, weights = _operator(*operands, seed, *_flat(options))
        return out, weights if options.weights else None
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in operands):
        return _Attention.apply(options, *operands)
    out, _, weights = _forward_into_new(operands, _core_of(options), options.weights, False)
    return out, weights


def _core_of(options: OpOptions, seed: Tensor | None = None) -> Any:
    if seed is None and options.dropout_p:
        seed = draw_seed()
    return _core.TorchOp(*options[:6], 0 if seed is None else int(seed), options.mask_factor)


def _forward_into_new(operands: Operands, core: Any, weights_mode: str | None,
                      keeps: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(out, lse and what rounding took from it [2, B, H, L], weights)"""
    follow_threads()
    query, key, value, _ = operands
    out = query.new_empty(*query.shape[:3], value.shape[3])
    lse = query.new_empty(2, *query.shape[:3]) if keeps else None
    weights = None
    if weights_mode is not None:
        weights = query.new_empty(weights_shape(query, key, weights_mode))
    core.forward(operands, (out, lse, weights))
    return out, lse, weights


def weights_shape(query: Tensor, key: Tensor, mode: str | None) -> list[Any]:
    if mode is None:
        return [0]
    leading = query.shape[:1] if mode == "average" else query.shape[:2]
    return [*leading, query.shape[2], key.shape[2]]


def _gradients(core: Any, operands: Operands, saved: tuple[Any, ...],
               wanted: Sequence[bool]) -> list[Tensor | None]:
    """saved: out, lse, d_out, d_weights"""
    query = operands[0]
    gradients = [torch.empty_like(x, dtype=query.dtype) if wants and x is not None else None
                 for x, wants in zip(operands, wanted)]
    core.backward(operands, saved, gradients)
    return [None if d is None or x is None else d.to(x.dtype) for d, x in zip(gradients, operands)]


class _Attention(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, options: OpOptions, *operands: Any) -> tuple[Tensor, Tensor | None]:
        ctx.core = _core_of(options)
        out, lse, weights = _forward_into_new(operands, ctx.core, options.weights, True)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*operands, out, lse)
        return out, weights

    @staticmethod
    @once
    def backward(ctx: Any, d_out: Tensor | None, d_weights: Tensor | None) -> tuple[Any, ...]:
        *operands, out, lse = ctx.saved_tensors
        d_out = torch.zeros_like(out) if d_out is None else d_out
        return None, *_gradients(
            ctx.core, tuple(operands), (out, lse, d_out, d_weights), ctx.needs_input_grad[1:])


def _flat(options: OpOptions) -> tuple[Any, ...]:
    """As the operator takes them: without None for a word."""
    return *options[:3], options.weights or "", *options[4:]


def _unflat(values: Sequence[Any]) -> OpOptions:
    return OpOptions(*values[:3], values[3] or None, *values[4:])


_ARGUMENTS = (
    "Tensor query, Tensor key, Tensor value, Tensor? attn_mask, Tensor? seed, float? scale, "
    "bool is_causal, str causal_align, str weights, str empty_rows, float dropout_p, "
    "float mask_factor")


@torch.library.custom_op("polyhead::attention", mutates_args=(), device_types="cpu",
                         schema=f"({_ARGUMENTS}) -> (Tensor, Tensor, Tensor)")
def _forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    options = _unflat(arguments[5:])
    out, lse, weights = _forward_into_new(
        arguments[:4], _core_of(options, arguments[4]), options.weights, True)
    assert lse is not None
    return out, lse, out.new_empty(0) if weights is None else weights


@_forward.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = arguments[:3]
    return (query.new_empty(*query.shape[:3], value.shape[3]), query.new_empty(2, *query.shape[:3]),
            query.new_empty(weights_shape(query, key, arguments[8] or None)))


@torch.library.custom_op(
    "polyhead::attention_backward", mutates_args=(), device_types="cpu",
    schema="(Tensor out, Tensor lse, Tensor d_out, Tensor? d_weights, bool[] wanted, "
           f"{_ARGUMENTS}) -> Tensor[]")
def _backward(out: Tensor, lse: Tensor, d_out: Tensor, d_weights: Tensor | None,
              wanted: Sequence[bool], *arguments: Any) -> list[Tensor]:
    core = _core_of(_unflat(arguments[5:]), arguments[4])
    gradients = _gradients(core, arguments[:4], (out, lse, d_out, d_weights), wanted)
    return [gradient for gradient in gradients if gradient is not None]


@_backward.register_fake
def _(out: Tensor, lse: Tensor, d_out: Tensor, d_weights: Tensor | None,
      wanted: Sequence[bool], *arguments: Any) -> list[Tensor]:
    return [torch.empty_like(x) for x, wants in zip(arguments, wanted) if wants]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:5], *output[:2])
    ctx.rest = inputs[5:]


def _differentiate(ctx: Any, needs: Sequence[bool], d_out: Tensor, d_lse: Tensor,
                   d_weights: Tensor) -> Any:
    *inputs, out, lse = ctx.saved_tensors
    wanted = list(needs[:4])
    found = iter(_backward_operator(
        out, lse, d_out, d_weights if ctx.rest[3] else None, wanted, *inputs, *ctx.rest))
    return *[next(found) if wants else None for wants in wanted], *[None] * (1 + len(ctx.rest))


_operator = Operator(_forward, _keep, _differentiate)
_backward_operator = differentiable_once(_backward)

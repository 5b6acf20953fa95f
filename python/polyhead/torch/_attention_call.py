"""The op on four-dimensional operands: the direct way in eager mode, an operator of torch wherever
torch looks at the program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from polyhead import _core
from polyhead._typing import Window
from polyhead.torch import _checks, _threads
from polyhead.torch._engine import draw_seed, is_plain
from polyhead.torch._functorch import (
    Operator, call, differentiable_once, once, refuse_tangents)


class OpOptions(NamedTuple):
    scale: float | None
    is_causal: bool
    causal_align: str
    weights: str | None
    empty_rows: str
    dropout_p: float
    mask_factor: float  # attn_mask is multiplied by it; unless 1, a bool mask counts as numbers
    window: Window | None = None
    query_offset: int | None = None
    softcap: float = 0.0


# query [B, H, L, D], key [B, Hkv, S, D], value [B, Hkv, S, Dv], attn_mask
Operands = tuple[Tensor, Tensor, Tensor, "Tensor | None"]
# sinks, alibi_slopes, key_lengths, segments of the queries and of the keys, cu_seqlens of both
Structure = tuple["Tensor | None", ...]
NO_STRUCTURE: Structure = (None,) * 7
_NAMES = ("query", "key", "value", "attn_mask", "sinks", "alibi_slopes", "key_lengths", "segments",
          "segments", "cu_seqlens", "cu_seqlens")
_TENSORS, _DIFFERENTIABLE = len(_NAMES), 5  # the first of them have gradients


def attend(operands: tuple[Any, ...], options: OpOptions) -> tuple[Tensor, Tensor | None]:
    """(out [B, H, L, Dv], weights as asked for) of Operands and a Structure."""
    refuse_tangents(operands)
    if not is_plain(operands):
        _checks.refuse_other_kinds(operands, _NAMES)
        _checks.require_one_device(operands, _NAMES)
        seed = draw_seed() if options.dropout_p else None
        out, _, weights = _operator(*operands, seed, *_flat(options))
        return out, weights if options.weights else None
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in operands):
        out, weights = call(_Attention, options, *operands)
        return out, weights
    out, _, weights = _forward_into_new(operands, _core_of(options), options.weights, False)
    return out, weights


def _core_of(options: OpOptions, seed: Tensor | None = None) -> Any:
    if seed is None and options.dropout_p:
        seed = draw_seed()
    return _core.TorchOp(*options[:6], 0 if seed is None else int(seed), *options[6:])


def _forward_into_new(operands: tuple[Any, ...], core: Any, weights_mode: str | None,
                      keeps: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(out, lse and what rounding took from it [2, B, H, L], weights)"""
    _threads.follow()
    query, key, value = operands[:3]
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


def _gradients(core: Any, operands: tuple[Any, ...], saved: tuple[Any, ...],
               wanted: Sequence[bool]) -> list[Tensor | None]:
    """Of the differentiable operands. saved: out, lse, d_out, d_weights"""
    query = operands[0]
    gradients = [torch.empty_like(x, dtype=query.dtype) if wants and x is not None else None
                 for x, wants in zip(operands, wanted)]
    try:
        core.backward(operands, saved, gradients)
    except TypeError:
        _checks.refuse_gradients(saved[2:])
        raise
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
        d_out = torch.zeros_like(out) if d_out is None else d_out.resolve_neg()
        d_weights = None if d_weights is None else d_weights.resolve_neg()
        return None, *_gradients(
            ctx.core, tuple(operands), (out, lse, d_out, d_weights),
            ctx.needs_input_grad[1:1 + _DIFFERENTIABLE]), *[None] * (_TENSORS - _DIFFERENTIABLE)


def _flat(options: OpOptions) -> tuple[Any, ...]:
    """As the operator takes them: without None for a word."""
    window = [-1 if keys is None else keys for keys in options.window or ()]
    return *options[:3], options.weights or "", *options[4:7], window, *options[8:]


def _unflat(values: Sequence[Any]) -> OpOptions:
    window = tuple(None if keys == -1 else keys for keys in values[7]) or None
    fields = [*values[:3], values[3] or None, *values[4:7], window, *values[8:]]
    return OpOptions(*fields)


_ARGUMENTS = (
    "Tensor query, Tensor key, Tensor value, Tensor? attn_mask, Tensor? sinks, "
    "Tensor? alibi_slopes, Tensor? key_lengths, Tensor? query_segments, Tensor? key_segments, "
    "Tensor? cu_seqlens_q, Tensor? cu_seqlens_k, Tensor? seed, float? scale, bool is_causal, "
    "str causal_align, str weights, str empty_rows, float dropout_p, float mask_factor, "
    "int[] window, int? query_offset, float softcap")


@torch.library.custom_op("polyhead::attention", mutates_args=(), device_types="cpu",
                         schema=f"({_ARGUMENTS}) -> (Tensor, Tensor, Tensor)")
def _forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    options = _unflat(arguments[_TENSORS + 1:])
    out, lse, weights = _forward_into_new(
        arguments[:_TENSORS], _core_of(options, arguments[_TENSORS]), options.weights, True)
    assert lse is not None
    return out, lse, out.new_empty(0) if weights is None else weights


@_forward.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = arguments[:3]
    return (query.new_empty(*query.shape[:3], value.shape[3]), query.new_empty(2, *query.shape[:3]),
            query.new_empty(weights_shape(query, key, arguments[_TENSORS + 4] or None)))


@torch.library.custom_op(
    "polyhead::attention_backward", mutates_args=(), device_types="cpu",
    schema="(Tensor out, Tensor lse, Tensor d_out, Tensor? d_weights, bool[] wanted, "
           f"{_ARGUMENTS}) -> Tensor[]")
def _backward(out: Tensor, lse: Tensor, d_out: Tensor, d_weights: Tensor | None,
              wanted: Sequence[bool], *arguments: Any) -> list[Tensor]:
    core = _core_of(_unflat(arguments[_TENSORS + 1:]), arguments[_TENSORS])
    gradients = _gradients(core, arguments[:_TENSORS], (out, lse, d_out, d_weights), wanted)
    return [gradient for gradient in gradients if gradient is not None]


@_backward.register_fake
def _(out: Tensor, lse: Tensor, d_out: Tensor, d_weights: Tensor | None,
      wanted: Sequence[bool], *arguments: Any) -> list[Tensor]:
    return [torch.empty_like(x) for x, wants in zip(arguments, wanted) if wants]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:_TENSORS + 1], *output[:2])
    ctx.rest = inputs[_TENSORS + 1:]


def _differentiate(ctx: Any, needs: Sequence[bool], d_out: Tensor, d_lse: Tensor,
                   d_weights: Tensor) -> Any:
    *inputs, out, lse = ctx.saved_tensors
    wanted = list(needs[:_DIFFERENTIABLE])
    found = iter(_backward_operator(
        out, lse, d_out, d_weights if ctx.rest[3] else None, wanted, *inputs, *ctx.rest))
    without = _TENSORS - _DIFFERENTIABLE + 1 + len(ctx.rest)
    return *[next(found) if wants else None for wants in wanted], *[None] * without


_operator = Operator(_forward, _keep, _differentiate)
_backward_operator = differentiable_once(_backward)

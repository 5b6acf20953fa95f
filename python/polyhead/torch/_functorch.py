"""Operators under torch.func: grad, vmap and what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd import forward_ad


def call(function: Any, *arguments: Any) -> Any:
    """Of a torch.autograd.Function."""
    return function.apply(*arguments)


class Operator:
    """An operator with its derivative.

    keep(ctx, inputs, output) stores what differentiate(ctx, needs, *d_results) will want; that
    gives a gradient or None for each argument, where `needs` says which are wanted.
    """

    def __init__(self, op: Any, keep: Callable[..., None], differentiate: Callable[..., Any]) -> None:
        self.op, self.keep, self.differentiate = op, keep, differentiate
        op.register_autograd(lambda ctx, *d: differentiate(ctx, ctx.needs_input_grad, *d),
                             setup_context=keep)
        # vmap by one call for each index.
        op.register_vmap(lambda info, in_dims, *arguments: _loop(op, info, in_dims, arguments))

    def __call__(self, *arguments: Any) -> tuple[Any, ...]:
        # What register_autograd makes is not for torch.func.
        if not torch.compiler.is_compiling() and \
                torch._C._functorch.maybe_current_level() is not None:
            results: tuple[Any, ...] = call(_Differentiated, self, *arguments)
        else:
            results = self.op(*arguments)
        return results


def refuse_tangents(tensors: Sequence[torch.Tensor | None]) -> None:
    """Of forward-mode derivatives, which would be left out without a word."""
    if forward_ad._current_level < 0:
        return
    unpack: Callable[[torch.Tensor], Any] = forward_ad.unpack_dual
    if any(x is not None and unpack(x).tangent is not None for x in tensors):
        _refuse_forward_mode()


def _refuse_forward_mode() -> Any:
    raise NotImplementedError("polyhead.torch: forward-mode derivatives are not implemented; use "
                              "polyhead.torch.revert(model)")


def _refuse(*arguments: Any) -> Any:
    raise RuntimeError("polyhead.torch: second derivatives are not implemented; torch's own module "
                       "has them: polyhead.torch.revert(model)")


def differentiable_once(op: Any) -> Operator:
    """A backward as an operator, which refuses to be differentiated."""
    return Operator(op, lambda ctx, inputs, output: None, _refuse)


def once(backward: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
    """A Function's backward that refuses to be differentiated, where torch's once_differentiable
    would leave the second derivative out."""
    def checked(ctx: Any, *d_results: Any) -> tuple[Any, ...]:
        if not torch.is_grad_enabled():
            return backward(ctx, *d_results)
        with torch.no_grad():
            gradients = backward(ctx, *d_results)
        sources = [x for x in (*ctx.saved_tensors, *d_results) if x is not None and x.requires_grad]
        return tuple(d if d is None else call(_Refusing, d, *sources) for d in gradients)

    return checked


class _Refusing(torch.autograd.Function):
    """The first tensor, as if it were a function of all."""

    @staticmethod
    def forward(ctx: Any, first: Any, *others: Any) -> Any:
        return first.view_as(first)

    @staticmethod
    def backward(ctx: Any, *d_results: Any) -> Any:
        _refuse()


class _Differentiated(torch.autograd.Function):

    @staticmethod
    def forward(operator: Operator, *arguments: Any) -> Any:
        return tuple(operator.op(*arguments))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.operator = inputs[0]
        ctx.operator.keep(ctx, inputs[1:], output)

    @staticmethod
    def backward(ctx: Any, *d_results: Any) -> Any:
        return None, *ctx.operator.differentiate(ctx, ctx.needs_input_grad[1:], *d_results)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        _refuse_forward_mode()

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], operator: Operator, *arguments: Any) -> Any:
        return _loop(lambda *each: call(_Differentiated, operator, *each), info, in_dims[1:],
                     arguments)


def _loop(call: Callable[..., Any], info: Any, in_dims: tuple[Any, ...],
          arguments: tuple[Any, ...]) -> tuple[Any, Any]:
    # Of no items one of zeros says the shapes.
    results = [call(*(_item(x, dim, i) for x, dim in zip(arguments, in_dims)))
               for i in range(max(1, info.batch_size))]
    stacked = [torch.stack(parts)[:info.batch_size] for parts in zip(*results)]
    kind = type(results[0])
    return kind(stacked), kind([0] * len(stacked))


def _item(x: Any, dim: int | None, i: int) -> Any:
    if dim is None or not isinstance(x, torch.Tensor):
        return x
    return x.select(dim, i) if x.shape[dim] > 0 else x.new_zeros(x.shape[:dim] + x.shape[dim + 1:])

"""The module as an operator of torch, for torch.compile, torch.export, torch.func and whatever else
looks at the program. Its backward runs the forward once more: an operator cannot keep the library's
own memory between the two."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import compress
from typing import Any

import torch
from torch import Tensor

from polyhead.torch._engine import Config, Engine, Options, converted, draw_seed, gradients_of
from polyhead.torch._functorch import Operator, differentiable_once

_ARGUMENTS = (
    "Tensor query, Tensor key, Tensor value, Tensor? key_padding_mask, Tensor? attn_mask, "
    "Tensor? in_proj_weight, Tensor? q_proj_weight, Tensor? k_proj_weight, Tensor? v_proj_weight, "
    "Tensor? in_proj_bias, Tensor? bias_k, Tensor? bias_v, Tensor out_proj_weight, "
    "Tensor? out_proj_bias, Tensor? q_norm_weight, Tensor? k_norm_weight, Tensor? seed, "
    "int[] config, bool is_causal, str causal_align, str weights, str empty_rows, "
    "float dropout_p, int query_position, int key_position, str extras")
_TENSORS = 16  # the call's five and the eleven parameters


def attend(config: Config, call: Sequence[Tensor | None], parameters: list[Tensor | None], options: Options,
           dtypes: tuple[torch.dtype, torch.dtype]) -> tuple[Tensor, Tensor | None]:
    dtype, result_dtype = dtypes
    if result_dtype != dtype:
        call = converted(call, dtype)
        parameters = [None if p is None else p.to(dtype) for p in parameters]
    seed = draw_seed() if options.dropout_p else None
    out, weights = _operator(
        *call, *parameters, seed, [*config[:4], *map(bool, config[4:8])], options.is_causal,
        options.causal_align, options.weights or "", *options[3:], config.extras)
    out = out.to(result_dtype)
    return out, weights.to(result_dtype) if options.weights is not None else None


class _Arguments:
    """Of the operator, by what they are."""

    def __init__(self, arguments: Sequence[Any]) -> None:
        self.tensors = arguments[:_TENSORS]
        self.call, self.parameters = arguments[:5], arguments[5:_TENSORS]
        self.seed, numbers, is_causal, causal_align, weights, *others, extras = arguments[_TENSORS:]
        self.config = Config._make((*numbers[:4], *map(bool, numbers[4:]), extras))
        self.options = Options(is_causal, causal_align, weights or None, *others)


_engines: OrderedDict[Any, Engine] = OrderedDict()
_MOST_ENGINES = 32


def _engine_of(config: Config, parameters: tuple[Tensor, ...]) -> Engine:
    """The engine that last had these parameters, most likely."""
    dtype = parameters[0].dtype
    key = config, dtype, *[p.data_ptr() for p in parameters]
    engine = _engines.pop(key, None) or Engine(config, dtype)
    _engines[key] = engine
    if len(_engines) > _MOST_ENGINES:
        _engines.popitem(last=False)
    return engine


def _run(given: _Arguments, keeps: bool) -> tuple[Tensor, Tensor | None, Any]:
    parameters = tuple([p for p in given.parameters if p is not None])
    seed = None if given.seed is None else int(given.seed)
    return _engine_of(given.config, parameters).forward(
        parameters, given.call, given.options, seed, keeps)


@torch.library.custom_op("polyhead::multihead_attention", mutates_args=(), device_types="cpu",
                         schema=f"({_ARGUMENTS}) -> (Tensor, Tensor)")
def _forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    out, weights, _ = _run(_Arguments(arguments), keeps=False)
    return out, out.new_empty(0) if weights is None else weights


@_forward.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor]:
    given = _Arguments(arguments)
    query, key = given.call[:2]
    mode = given.options.weights
    shape = [0] if mode is None else given.config.weights_shape(query, key, mode)
    return query.new_empty(query.shape), query.new_empty(shape)


@torch.library.custom_op(
    "polyhead::multihead_attention_backward", mutates_args=(), device_types="cpu",
    schema=f"(Tensor d_out, Tensor? d_weights, bool[] wanted, {_ARGUMENTS}) -> Tensor[]")
def _backward(d_out: Tensor, d_weights: Tensor | None, wanted: Sequence[bool],
              *arguments: Any) -> list[Tensor]:
    given = _Arguments(arguments)
    _, _, trained = _run(given, keeps=True)
    is_there = [i < len(given.call) or x is not None for i, x in enumerate(given.tensors)]
    tensors, wanted = list(compress(given.tensors, is_there)), list(compress(wanted, is_there))
    gradients = gradients_of(trained, given.call, (d_out, d_weights), tensors, wanted, True)
    # One of a tensor given twice is whole in its first place.
    return [torch.zeros_like(x) if gradient is None else gradient
            for x, gradient, wants in zip(tensors, gradients, wanted) if wants and x is not None]


@_backward.register_fake
def _(d_out: Tensor, d_weights: Tensor | None, wanted: Sequence[bool],
      *arguments: Any) -> list[Tensor]:
    return [torch.empty_like(x) for x, wants in zip(arguments, wanted) if wants]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:_TENSORS + 1])
    ctx.rest = inputs[_TENSORS + 1:]


def _differentiate(ctx: Any, needs: Sequence[bool], d_out: Tensor, d_weights: Tensor) -> Any:
    wanted = list(needs[:_TENSORS])
    has_weights = ctx.rest[3] != ""
    found = iter(_backward_operator(
        d_out, d_weights if has_weights else None, wanted, *ctx.saved_tensors, *ctx.rest))
    return *[next(found) if wants else None for wants in wanted], *[None] * (1 + len(ctx.rest))


_operator = Operator(_forward, _keep, _differentiate)
_backward_operator = differentiable_once(_backward)

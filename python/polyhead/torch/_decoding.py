"""The module over a KvCache: the next tokens of a decoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from polyhead._arguments import index_of, type_name
from polyhead._kv_cache import core_of
from polyhead.torch import _checks, _engine
from polyhead.torch._kv_cache import plain

if TYPE_CHECKING:
    from polyhead.torch._multihead_attention import MultiheadAttention


def forward_cached(module: MultiheadAttention, query: Tensor, cache: Any, lengths: Tensor | None,
                   sequence: int) -> Tensor:
    """As the module's method of this name says."""
    core = core_of(cache, "forward_cached")
    sequence = index_of(sequence, "forward_cached: sequence")
    if module._forward_pre_hooks or module._forward_hooks:
        _refuse_hooks(module)
    parameters, calls_out_proj = module._parameters_in_order()
    present = tuple([p for p in parameters if p is not None])
    if torch.is_grad_enabled() and any(p.requires_grad for p in present):
        raise RuntimeError("forward_cached: parameters require grad, and a cache has no gradients; call "
                           "it under torch.no_grad()")
    tokens, counts = plain("float32", ("query", query), ("lengths", lengths))
    own_dtype = present[0].dtype
    dtype = torch.float64 if own_dtype == torch.float64 else torch.float32
    result_dtype = _engine.autocast_dtype(own_dtype)
    if result_dtype is not None:
        tokens = tokens.to(dtype)
    elif query.dtype != own_dtype:
        raise ValueError(f"forward_cached: query: dtype is {query.dtype}; need the module's {own_dtype}")
    engine = _engine.engine_of(module, _engine.config_of(module, parameters), dtype)
    before = core.lengths if calls_out_proj else None
    try:
        out = engine.forward_cached(present, tokens, core, counts, sequence)
    except TypeError:
        _checks.require_device_of(module, query)
        raise
    out = out.to(result_dtype or own_dtype)
    if before is None:
        return out
    try:
        return _with_zeros(module.out_proj(out), counts, module.batch_first)
    except BaseException:  # KeyboardInterrupt, too
        for b, length in enumerate(before):
            core.truncate(b, length)
        raise


def behind_a_graph_break() -> Callable[..., Tensor]:
    """forward_cached, for torch.compile to call and not to look into: a cache is no tensor."""
    global _unseen  # pylint: disable=global-statement
    if _unseen is None:
        _unseen = torch.compiler.disable(  # type: ignore[no-untyped-call]
            forward_cached, reason="it changes a KvCache")
    return _unseen


_unseen: Callable[..., Tensor] | None = None  # made late: it loads dynamo, which takes seconds


def _with_zeros(out: Tensor, lengths: Tensor | None, batch_first: bool) -> Tensor:
    """out [B, n, E] or [n, B, E], where sequence b has lengths[b] tokens: others are 0."""
    if lengths is None:
        return out
    left_out = torch.arange(out.shape[1 if batch_first else 0]) >= lengths[:, None]  # [B, n]
    return out.masked_fill((left_out if batch_first else left_out.T)[..., None], 0)


def _refuse_hooks(module: nn.Module) -> None:
    """Those of the module itself: they are made for a call's arguments and results."""
    from polyhead.torch._convert import _do_nothing  # pylint: disable=import-outside-toplevel
    for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
        if hook is not _do_nothing:
            name = getattr(hook, "__qualname__", type_name(hook))
            raise RuntimeError(
                f"forward_cached: module: has the forward hook {name}, which only a call of the module "
                "runs; need none: what prune, weight_norm and spectral_norm make is kept by "
                "torch.nn.utils.prune.remove, remove_weight_norm and remove_spectral_norm")

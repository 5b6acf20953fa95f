"""torch's own errors, in type and text."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from polyhead.torch._multihead_attention import MultiheadAttention


def check_call(module: MultiheadAttention, query: Tensor, key: Tensor, value: Tensor,
               key_padding_mask: Tensor | None, attn_mask: Tensor | None) -> None:
    """What torch says about masks before anything else."""
    if key_padding_mask is None or attn_mask is None or key_padding_mask.dtype == attn_mask.dtype:
        return
    if torch.compiler.is_compiling():  # a graph cannot warn
        return
    warnings.warn("Support for mismatched key_padding_mask and attn_mask is deprecated. "
                  "Use same type for both instead.", stacklevel=5)


def probability(p: float, weights: str | None) -> float:
    """The dropout of a training forward; torch accepts any until then."""
    if 0 <= p <= 1:
        return p
    if weights is None:
        raise RuntimeError(f"dropout probability has to be between 0 and 1, but got {p:g}")
    raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


_CALL = ("query", "key", "value", "key_padding_mask", "attn_mask")


def refuse_nested(call: Sequence[Tensor | None]) -> None:
    if any(isinstance(x, Tensor) and x.is_nested for x in call):
        raise AssertionError(
            "MultiheadAttention does not support NestedTensor outside of its fast path. "
            "The fast path was not hit because polyhead has none: pad the batch and give a "
            "key_padding_mask")


def refuse_call(call: Sequence[Tensor | None]) -> None:
    """Of a module."""
    refuse_nested(call)
    refuse_other_kinds(call, _CALL)


def raise_torchs_error(module: MultiheadAttention, call: Sequence[Tensor | None]) -> None:
    """For a call that does not fit: what torch's Python path raises for it. Returns if torch would
    take the call."""
    refuse_call(call)
    query, key, value, key_padding_mask, attn_mask = call
    assert query is not None and key is not None and value is not None
    if attn_mask is not None and attn_mask.dim() == 4:
        attn_mask = None  # ours alone
    if module.batch_first and query.dim() == 3:
        query, key, value = (x.transpose(0, 1) if x.dim() > 1 else x for x in (query, key, value))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        functional.multi_head_attention_forward(
            query, key, value, module.embed_dim, module.num_heads, module.in_proj_weight,
            module.in_proj_bias, module.bias_k, module.bias_v, module.add_zero_attn, 0.0,
            module.out_proj.weight, module.out_proj.bias, training=False,
            key_padding_mask=_float_mask(key_padding_mask, "key_padding_mask", query),
            need_weights=False, attn_mask=_float_mask(attn_mask, "attn_mask", query),
            use_separate_proj_weight=not module._qkv_same_embed_dim,
            q_proj_weight=module.q_proj_weight, k_proj_weight=module.k_proj_weight,
            v_proj_weight=module.v_proj_weight)


def _float_mask(mask: Tensor | None, name: str, query: Tensor) -> Tensor | None:
    """As torch's module hands it on."""
    if mask is None or mask.is_floating_point():
        return mask
    if mask.dtype != torch.bool:
        raise AssertionError(f"only bool and floating types of {name} are supported")
    return torch.zeros_like(mask, dtype=query.dtype).masked_fill_(mask, -math.inf)


def refuse_other_kinds(tensors: Sequence[Tensor | None], names: Sequence[str]) -> None:
    """What torch may compute on and the library does not; and what to do about it."""
    for name, x in zip(names, tensors):
        if x is None:
            continue
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be Tensor, not {type(x).__name__}")
        if x.is_nested:
            raise RuntimeError(f"{name}: is a nested tensor; pad it (torch.nested."
                               "to_padded_tensor) and hide the padding by a mask")
        if x.layout != torch.strided:
            raise RuntimeError(f"{name}: layout is {x.layout}; need a dense one: {name}.to_dense()")
        if x.device.type not in ("cpu", "meta"):
            raise RuntimeError(
                f"{name}: is on {x.device}; polyhead computes on the CPU: give {name}.cpu(), or "
                "keep torch's own here: polyhead.torch.revert(model)")


def refuse_operands(*operands: Tensor | None) -> None:
    """What torch's function would take, or not refuse: it reads past the end of a key that is
    shorter than the value."""
    refuse_other_kinds(operands, ("query", "key", "value", "attn_mask"))
    _, key, value, _ = operands
    assert key is not None and value is not None
    if min(key.dim(), value.dim()) >= 2 and key.shape[-2] != value.shape[-2]:
        raise RuntimeError(f"scaled_dot_product_attention: value: length is {value.shape[-2]}; "
                           f"need the key's {key.shape[-2]}")


def check_operands(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None) -> None:
    """What torch would not notice, or not in time."""
    if min(query.dim(), key.dim(), value.dim()) < 2 or not query.dtype == key.dtype == value.dtype:
        raise ValueError("scaled_dot_product_attention: query, key, value: need one dtype and at "
                         "least 2 dimensions")
    if key.shape[-2] != value.shape[-2]:
        raise ValueError("scaled_dot_product_attention: key, value: need one length")
    if any(x is not None and x.device != query.device for x in (key, value, attn_mask)):
        raise ValueError("scaled_dot_product_attention: query, key, value, attn_mask: need one device")
    if not query.is_floating_point():
        raise TypeError(f"scaled_dot_product_attention: query, key, value: dtype is {query.dtype}; "
                        "need a floating type")
    if attn_mask is None:
        return
    if attn_mask.dtype != torch.bool and attn_mask.dtype not in (torch.float32, query.dtype):
        raise ValueError(f"scaled_dot_product_attention: attn_mask: dtype is {attn_mask.dtype}; "
                         "need bool, float32 or the query's")

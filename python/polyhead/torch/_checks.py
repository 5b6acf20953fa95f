"""torch's own errors, in type and text."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from polyhead.torch._from_scratch import FromScratchMultiHeadAttention
    from polyhead.torch._multihead_attention import MultiheadAttention


def check_masks(key_padding_mask: Tensor, attn_mask: Tensor) -> None:
    """What torch says about them before anything else."""
    if key_padding_mask.dtype == attn_mask.dtype:
        return
    if torch.compiler.is_compiling():  # a graph cannot warn
        return
    warnings.warn("Support for mismatched key_padding_mask and attn_mask is deprecated. "
                  "Use same type for both instead.", stacklevel=5)


def probability(p: float, weights: str | None) -> float:
    """The dropout of a training forward; torch accepts any until then."""
    if not isinstance(p, Real):
        raise TypeError(f"dropout: got {type(p).__name__}; need a number from 0 to 1")
    if 0 <= p <= 1:
        return p
    if weights is None:
        raise RuntimeError(f"dropout probability has to be between 0 and 1, but got {p:g}")
    raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


_CALL = ("query", "key", "value", "key_padding_mask", "attn_mask")
_MAY_BE_NONE = ("key_padding_mask", "attn_mask", "mask", "sinks", "alibi_slopes", "key_lengths",
                "segments", "cu_seqlens_k", "cu_seqlens", "lengths")


def refuse_nested(call: Sequence[Tensor | None]) -> None:
    if any(isinstance(x, Tensor) and x.is_nested for x in call):
        raise AssertionError(
            "MultiheadAttention does not support NestedTensor outside of its fast path. "
            "The fast path was not hit because polyhead has none: pad the batch and give a "
            "key_padding_mask")


def refuse_call(call: Sequence[Tensor | None]) -> None:
    """Of a module."""
    refuse_nested(call)
    for name, mask in zip(_CALL[3:], call[3:]):
        if isinstance(mask, Tensor) and not (mask.is_floating_point() or mask.dtype == torch.bool):
            raise AssertionError(f"only bool and floating types of {name} are supported")
    refuse_other_kinds(call, _CALL)


def require_one_device(tensors: Sequence[Tensor | None], names: Sequence[str] = _CALL) -> None:
    """torch notices this of the operands it multiplies, not of masks."""
    first = tensors[0]
    assert first is not None
    for name, x in zip(names, tensors):
        if x is not None and x.device != first.device:
            raise RuntimeError(f"{name}: is on {x.device}; need {names[0]}'s device, {first.device}")


def require_device_of(module: torch.nn.Module, query: Tensor) -> None:
    for name, parameter in module.named_parameters():
        if parameter.device != query.device:
            raise RuntimeError(f"{name}: is on {parameter.device}; need query's device, {query.device}")


def raise_torchs_error(module: MultiheadAttention, call: Sequence[Tensor | None]) -> None:
    """For a call that does not fit: what torch's Python path raises for it. Returns if torch would
    take the call, or has no such module."""
    refuse_call(call)
    if module._extras:
        return
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
            key_padding_mask=_float_mask(key_padding_mask, query),
            need_weights=False, attn_mask=_float_mask(attn_mask, query),
            use_separate_proj_weight=not module._qkv_same_embed_dim,
            q_proj_weight=module.q_proj_weight, k_proj_weight=module.k_proj_weight,
            v_proj_weight=module.v_proj_weight)


def _float_mask(mask: Tensor | None, query: Tensor) -> Tensor | None:
    """As torch's module hands it on."""
    if mask is None or mask.is_floating_point():
        return mask
    return torch.zeros_like(mask, dtype=query.dtype).masked_fill_(mask, -math.inf)


def refuse_other_kinds(tensors: Sequence[Tensor | None], names: Sequence[str]) -> None:
    """What torch may compute on and the library does not; and what to do about it."""
    for name, x in zip(names, tensors):
        if x is None and name in _MAY_BE_NONE:
            continue
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be Tensor, not {type(x).__name__}")
        if x.is_nested:
            raise RuntimeError(f"{name}: is a nested tensor; pad it (torch.nested."
                               "to_padded_tensor) and hide the padding by a mask")
        if x.layout != torch.strided:
            raise RuntimeError(f"{name}: layout is {x.layout}; need a dense one: {name}.to_dense()")
        if x.is_quantized:
            raise NotImplementedError(f"{name}: is quantized; give {name}.dequantize()")
        if x.device.type not in ("cpu", "meta"):
            raise RuntimeError(
                f"{name}: is on {x.device}; polyhead computes on the CPU: give {name}.cpu(), or "
                "keep torch's own here: polyhead.torch.revert(model)")


_functorch: Any = torch._C._functorch


def refuse_gradients(d_outputs: Sequence[Tensor | None]) -> None:
    """What torch may hand to a backward, and the library cannot read."""
    for d in d_outputs:
        if d is not None and (_functorch.is_batchedtensor(d) or _functorch.is_legacy_batchedtensor(d)):
            raise RuntimeError(
                "polyhead.torch: backward: got many gradients of a result at once (is_grads_batched, "
                "vectorize or vmap around autograd); need one at a time, or torch.func.jacrev, vjp")
        if d is not None and d.layout != torch.strided:
            raise RuntimeError(f"polyhead.torch: backward: the gradient of a result has layout {d.layout}; "
                               "need a dense one: .to_dense()")


def refuse_operands(*operands: Tensor | None) -> None:
    """What torch's function would take, or not refuse: it reads past the end of a key that is
    shorter than the value."""
    refuse_other_kinds(operands, ("query", "key", "value", "attn_mask"))
    _, key, value, _ = operands
    if key is None or value is None:  # refused above
        return
    if min(key.dim(), value.dim()) >= 2 and key.shape[-2] != value.shape[-2]:
        raise RuntimeError(f"scaled_dot_product_attention: value: length is {value.shape[-2]}; "
                           f"need the key's {key.shape[-2]}")


_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def check_operands(function: str, query: Tensor, key: Tensor, value: Tensor,
                   attn_mask: Tensor | None) -> None:
    """What torch would not notice, or not in time."""
    if min(query.dim(), key.dim(), value.dim()) < 2:
        raise ValueError(f"{function}: query, key, value: need at least 2 dimensions")
    if not query.dtype == key.dtype == value.dtype:
        raise ValueError(f"{function}: query, key, value: dtypes are {query.dtype}, {key.dtype}, "
                         f"{value.dtype}; need one dtype")
    if key.shape[-2] != value.shape[-2]:
        raise ValueError(f"{function}: value: length is {value.shape[-2]}; need the key's {key.shape[-2]}")
    if query.dtype not in _DTYPES:
        raise TypeError(f"{function}: query, key, value: dtype is {query.dtype}; "
                        "need float32, float64, float16 or bfloat16")
    if attn_mask is None:
        return
    if attn_mask.dtype != torch.bool and attn_mask.dtype not in (torch.float32, query.dtype):
        raise ValueError(f"{function}: attn_mask: dtype is {attn_mask.dtype}; "
                         "need bool, float32 or the query's")


_SCRATCH = ("q", "k", "v", "mask")


def check_scratch_call(module: FromScratchMultiHeadAttention, q: Tensor, k: Tensor, v: Tensor,
                       mask: Tensor | None) -> None:
    """The class's own lines raise RuntimeError for shapes."""
    refuse_other_kinds((q, k, v, mask), _SCRATCH)
    title = "FromScratchMultiHeadAttention"
    for name, x in zip(_SCRATCH, (q, k, v)):
        if x.dim() != 3 or x.shape[2] != module.embed_size:
            raise RuntimeError(f"{title}: {name}: shape is {list(x.shape)}; need [batch, length, "
                               f"{module.embed_size}]")
    for name, x in (("k", k), ("v", v)):
        if x.shape[0] != q.shape[0]:
            raise RuntimeError(f"{title}: {name}: batch is {x.shape[0]}; need q's {q.shape[0]}")
    if v.shape[1] != k.shape[1]:
        raise RuntimeError(f"{title}: v: length is {v.shape[1]}; need k's {k.shape[1]}")
    if mask is None:
        return
    if mask.is_complex():
        raise RuntimeError(f"{title}: mask: dtype is {mask.dtype}; need real numbers or bool")
    scores = [q.shape[0], module.num_heads, q.shape[1], k.shape[1]]
    sizes = [1] * (4 - mask.dim()) + list(mask.shape)
    if mask.dim() > 4 or any(n not in (1, whole) for n, whole in zip(sizes, scores)):
        raise RuntimeError(f"{title}: mask: shape is {list(mask.shape)}; need one that broadcasts onto "
                           f"{scores}, [batch, heads, q_len, k_len]")

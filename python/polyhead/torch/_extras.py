"""What torch's module has not: grouped heads, heads of any width, rotary positions, norms of heads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from polyhead import _core
from polyhead._typing import Rope

if TYPE_CHECKING:
    from polyhead.torch._multihead_attention import MultiheadAttention

PlainLinear = nn.modules.linear.NonDynamicallyQuantizableLinear
NORMS = ("q_norm", "k_norm")
# embed_dim, num_heads, kdim, vdim
Sizes = tuple[int, int, "int | None", "int | None"]
# num_kv_heads, head_dim, qk_norm, qk_norm_eps, rope; None: not given
Given = tuple["int | None", "int | None", bool, float, "Rope | None"]


def checked(sizes: Sizes, dropout: float, given: Given) -> str:
    """The options with all that is left out, as text: what operators and comparisons take. Raises
    ValueError and TypeError as the library does."""
    embed_dim, num_heads, kdim, vdim = sizes
    num_kv_heads, head_dim, qk_norm, qk_norm_eps, rope = given
    if head_dim is None:
        if embed_dim % num_heads:
            raise AssertionError("embed_dim must be divisible by num_heads")  # as torch says it
        head_dim = embed_dim // num_heads
    # One that is as small as may be knows what is allowed.
    config = _core.MultiheadAttention(
        1, num_heads, dropout, False, False, False, _small(kdim), _small(vdim), True, "float32", 0,
        num_kv_heads, head_dim, qk_norm, qk_norm_eps, rope).config
    names = ("num_kv_heads", "head_dim", "qk_norm", "qk_norm_eps", "rope")
    return json.dumps({name: config[name] for name in names})


def _small(width: int | None) -> int | None:
    """One that is refused as `width` is."""
    return 1 if isinstance(width, int) and width > 0 else width


def read(extras: str) -> dict[str, Any]:
    """The options by the names of _core.TorchModule; none for torch's own module."""
    options: dict[str, Any] = json.loads(extras or "{}")
    return options


def resize(module: MultiheadAttention, widths: tuple[int, int, int], extras: str,
           factory: dict[str, Any]) -> None:
    """Gives a module that torch has made the parameters of these options. widths: embed_dim, kdim,
    vdim."""
    options = read(extras)
    embed_dim, kdim, vdim = widths
    head_dim, kv_heads = options["head_dim"], options["num_kv_heads"]
    width, kv_width = module.num_heads * head_dim, kv_heads * head_dim

    def new(*shape: int) -> nn.Parameter:
        return nn.Parameter(torch.empty(shape, **factory))

    has_bias = module.in_proj_bias is not None
    names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    if kdim == vdim == embed_dim and kv_width == width:
        module.in_proj_weight = new(3 * width, embed_dim)
        for name in names:
            setattr(module, name, None)
    else:
        module.in_proj_weight = None  # type: ignore[assignment]
        for name, rows, columns in zip(names, (width, kv_width, kv_width), widths):
            setattr(module, name, new(rows, columns))
    if has_bias:
        module.in_proj_bias = new(width + 2 * kv_width)
    module.out_proj = PlainLinear(width, embed_dim, bias=has_bias, **factory)
    if module.bias_k is not None:
        module.bias_k, module.bias_v = new(1, 1, kv_width), new(1, 1, kv_width)
    if options["qk_norm"]:
        for name in NORMS:
            setattr(module, name, nn.RMSNorm(head_dim, options["qk_norm_eps"], **factory))
    module.embed_dim, module.kdim, module.vdim, module.head_dim = embed_dim, kdim, vdim, head_dim
    module._qkv_same_embed_dim = False  # nn.TransformerEncoderLayer calls no module that says so
    module._extras, module._options = extras, options


def norm_weights(module: MultiheadAttention) -> list[Tensor | None]:
    """Of query and key, where the module has such."""
    if not module._extras or "q_norm" not in module._modules:
        return [None, None]
    weights: list[Tensor | None] = []
    for name in NORMS:
        norm = module._modules[name]
        if norm is None or not is_plain(norm, nn.RMSNorm, _OF_NORM):
            raise RuntimeError(f"MultiheadAttention: {name}: is hooked, parametrised or replaced; "
                               "need the nn.RMSNorm that the constructor made: the kernel computes it")
        weights.append(norm._parameters["weight"])
    return weights


_OF_NORM = {"weight"}


def is_plain(module: nn.Module, kind: type[nn.Module], names: set[str]) -> bool:
    """Whether calling it would do no more than its parameters, which have these names, say."""
    state = module.__dict__
    return (type(module) is kind and "forward" not in state
            and not state["_forward_hooks"] and not state["_forward_pre_hooks"]
            and not state["_backward_hooks"] and not state["_backward_pre_hooks"]
            and state["_parameters"].keys() == names)


def described(options: Mapping[str, Any]) -> str:
    """For repr: what was asked for."""
    shown = {name: options[name] for name in ("num_kv_heads", "head_dim") if options}
    if options.get("qk_norm"):
        shown |= {name: options[name] for name in ("qk_norm", "qk_norm_eps")}
    if options.get("rope"):
        shown["rope"] = options["rope"]
    return ", ".join(f"{name}={value!r}" for name, value in shown.items())

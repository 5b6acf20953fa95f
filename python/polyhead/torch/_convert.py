"""Every nn.MultiheadAttention of a model becomes ours, in place, and back."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import nn

from polyhead.torch._multihead_attention import MultiheadAttention

Model = TypeVar("Model", bound=nn.Module)


def convert(model: Model) -> Model:
    """Makes every torch.nn.MultiheadAttention inside `model` (or itself) a MultiheadAttention of
    this package, in place: the same object with the same parameters and hooks. Returns the model.

    nn.TransformerEncoderLayer goes around its attention in eval under no_grad; a hook that does
    nothing makes it call the module there, too. nn.TransformerEncoder would hand on nested tensors
    when given a padding mask in eval: its `use_nested_tensor` becomes False, so that padded
    positions then hold ordinary values, as in train. Convert the whole model, last.

    Subclasses of other people stay as they are: their forward is their own. So does a module that
    torch.nn.utils.parametrize has made a subclass of torch's: convert first, parametrise then.
    """
    _require_model(model, "convert")
    for module in model.modules():
        if type(module) is nn.MultiheadAttention:
            module.__class__ = MultiheadAttention
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            _be_called(getattr(module, "self_attn", None))
        if isinstance(module, nn.TransformerEncoder) and _has_ours(module):
            module.__dict__.setdefault(_KEPT, module.use_nested_tensor)
            module.use_nested_tensor = False
    return model


def revert(model: Model) -> Model:
    """Undoes convert: every module of this package's MultiheadAttention becomes torch's. Returns the
    model. One that torch's class cannot be stays ours: with num_kv_heads, head_dim, qk_norm or rope.
    Subclasses stay as they are, and what torch.nn.utils.parametrize has made one: remove the
    parametrisations first."""
    _require_model(model, "revert")
    for module in model.modules():
        if type(module) is MultiheadAttention and not module._extras:
            module.__dict__.pop("_engine", None)
            module.__class__ = nn.MultiheadAttention  # type: ignore[assignment]
            _take_back(module)
        if _KEPT in module.__dict__:
            module.use_nested_tensor = module.__dict__.pop(_KEPT)
    return model


_KEPT = "_polyhead_use_nested_tensor"


def _require_model(model: object, function: str) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"{function}: model: is a {type(model).__name__}; need a torch.nn.Module")


def _do_nothing(module: nn.Module, args: Any) -> None:
    """A hook; the layer that sees one calls the module."""


def _has_ours(model: nn.Module) -> bool:
    return any(isinstance(module, MultiheadAttention) for module in model.modules())


def _be_called(module: nn.Module | None) -> None:
    if isinstance(module, MultiheadAttention) and not _hooks(module):
        module.register_forward_pre_hook(_do_nothing)


def _take_back(module: nn.Module) -> None:
    for key in _hooks(module):
        del module._forward_pre_hooks[key]


def _hooks(module: nn.Module) -> list[int]:
    return [key for key, hook in module._forward_pre_hooks.items() if hook is _do_nothing]

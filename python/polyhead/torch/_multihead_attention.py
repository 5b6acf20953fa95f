"""The module: torch's own class, whose forward is the library's."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from polyhead._arguments import explained, plain_bool, type_name
from polyhead._typing import CausalAlign, EmptyRows, Weights
from polyhead.torch import _checks, _engine
from polyhead.torch._engine import Options

_PlainLinear = nn.modules.linear.NonDynamicallyQuantizableLinear


class MultiheadAttention(nn.MultiheadAttention):
    """torch.nn.MultiheadAttention: its constructor, attributes, parameters, state dict and numbers.

    forward takes three more by keyword. What differs from torch is in docs/torch.md: rows without a
    visible key are 0, `is_causal` needs no mask and always holds, a 4-D attn_mask broadcasts.
    """

    def forward(
            self, query: Tensor, key: Tensor, value: Tensor,
            key_padding_mask: Tensor | None = None, need_weights: bool = True,
            attn_mask: Tensor | None = None, average_attn_weights: bool = True,
            is_causal: bool = False, *, weights: Weights | None = None,
            causal_align: CausalAlign = "top_left", empty_rows: EmptyRows = "zero"
    ) -> tuple[Tensor, Tensor | None]:
        """(out, weights): weights None unless need_weights.

        query             [L, B, E], with batch_first [B, L, E], unbatched [L, E]
        key, value        [S, B, kdim] and [S, B, vdim], or as query
        key_padding_mask  [B, S], unbatched [S]. bool: True = hidden; float: added to the scores
        attn_mask         [L, S], [B * H, L, S] (unbatched [H, L, S]), or 4-D, which broadcasts:
                          [1|B, 1|H, 1|L, 1|S]. bool: True = hidden; float: added to the scores
        average_attn_weights  weights [B, L, S'] averaged over the heads; if False [B, H, L, S'].
                          S' = S + add_bias_kv + add_zero_attn
        is_causal         in addition to the masks, with or without them; True or False
        weights           "average" or "per_head", in place of need_weights and average_attn_weights
        causal_align      "top_left": query i sees keys j <= i; "bottom_right": j <= i + S - L
        empty_rows        a row whose every key is masked: weights 0 and out the bias ("zero"), "nan"

        Errors of shapes and dtypes are torch's, in type and text. What is no tensor, or no dense
        one of the CPU, is refused in words of our own: TypeError for None and numpy's arrays,
        RuntimeError for a sparse one.
        """
        if weights is None and need_weights:
            weights = "average" if average_attn_weights else "per_head"
        call = (query, key, value, key_padding_mask, attn_mask)
        dropout_p = _checks.probability(self.dropout, weights) if self.training else 0.0
        if is_causal is not True and is_causal is not False:
            is_causal = _flag(is_causal)
        options = Options(is_causal, causal_align, weights, empty_rows, dropout_p)
        parameters, calls_out_proj = self._parameters_in_order()
        try:
            if key_padding_mask is not None and attn_mask is not None:
                _checks.check_masks(key_padding_mask, attn_mask)
            out, given_weights = _engine.attend(self, call, parameters, options)
        except AttributeError:
            _checks.refuse_call(call)
            raise
        except TypeError as error:
            raise explained(error, MultiheadAttention.forward, locals()) from None
        if calls_out_proj:
            out = self.out_proj(out)
        return out, given_weights

    def _parameters_in_order(self) -> tuple[list[Tensor | None], bool]:
        """As the state dict has them, and whether out_proj must be called by itself: then its part
        of the kernel is the identity."""
        own = self._parameters
        try:
            parameters = [own["in_proj_weight"], own["q_proj_weight"], own["k_proj_weight"],
                          own["v_proj_weight"], own["in_proj_bias"],
                          own["bias_k"] if "bias_k" in own else self.bias_k,
                          own["bias_v"] if "bias_v" in own else self.bias_v]
        except KeyError:  # one is parametrised
            parameters = [getattr(self, name) for name in _NAMES]
        out_proj = self._modules["out_proj"]
        if out_proj is not None and _is_plain(out_proj):
            last = out_proj._parameters
            weight = last["weight"]
            if (last["bias"] is None) == (parameters[4] is None) and weight is not None \
                    and weight.shape == (self.embed_dim, self.embed_dim):
                return [*parameters, weight, last["bias"]], False
        like = parameters[0] if parameters[0] is not None else parameters[1]
        assert like is not None
        make = _kept_identity if _engine.is_plain((like,)) else _identity
        identity, zeros = make(self.embed_dim, like.dtype, like.device)
        return [*parameters, identity, None if parameters[4] is None else zeros], True

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.pop("_engine", None)
        return state


def _identity(width: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The weight and bias of a projection that changes nothing."""
    return torch.eye(width, dtype=dtype, device=device), torch.zeros(width, dtype=dtype, device=device)


@functools.lru_cache(maxsize=4)
def _kept_identity(width: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The same, as Parameters: of these the engine knows that its packed copy is still right."""
    with torch.inference_mode(False):
        weight, bias = _identity(width, dtype, device)
        return nn.Parameter(weight, requires_grad=False), nn.Parameter(bias, requires_grad=False)


_OF_LINEAR = {"weight", "bias"}
_NAMES = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias",
          "bias_k", "bias_v")


def _flag(is_causal: Any) -> bool:
    found = plain_bool(is_causal)
    if not isinstance(found, bool):
        raise TypeError(f"MultiheadAttention: is_causal: got {type_name(is_causal)}; need True or False")
    return found


def _is_plain(out_proj: nn.Module) -> bool:
    """Whether calling it would do no more than its weights say."""
    state = out_proj.__dict__
    return (type(out_proj) is _PlainLinear and "forward" not in state
            and not state["_forward_hooks"] and not state["_forward_pre_hooks"]
            and not state["_backward_hooks"] and not state["_backward_pre_hooks"]
            and state["_parameters"].keys() == _OF_LINEAR)

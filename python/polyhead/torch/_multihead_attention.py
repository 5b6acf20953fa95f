"""The module: torch's own class, whose forward is the library's."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor, nn

import polyhead
from polyhead._arguments import explained, plain_bool, type_name
from polyhead._typing import CausalAlign, EmptyRows, Rope, Weights
from polyhead.torch import _checks, _decoding, _engine, _extras
from polyhead.torch._engine import Options


class MultiheadAttention(nn.MultiheadAttention):
    """torch.nn.MultiheadAttention: its constructor, attributes, parameters, state dict and numbers.

    The constructor and forward take more by keyword. What differs from torch is in docs/torch.md: rows
    without a visible key are 0, `is_causal` needs no mask and always holds, a 4-D attn_mask
    broadcasts. What torch's class has not:

    num_kv_heads          heads of key and value, each for num_heads / num_kv_heads of the query's;
                          then q_proj_weight, k_proj_weight and v_proj_weight in place of
                          in_proj_weight
    head_dim              width of a head; default embed_dim / num_heads
    qk_norm, qk_norm_eps  an RMS norm of each head of query and key: q_norm.weight, k_norm.weight
    rope                  rotary positions: {"pairs": "halves", "base": 10000.0, ...}, as in
                          polyhead.MultiheadAttention

    Names and shapes in the state dict are those of polyhead.MultiheadAttention.
    """

    # What torch's class has not, as text for operators, and read; what converted modules have.
    _extras = ""
    _options: Mapping[str, Any] = MappingProxyType({})

    # over-budget: 16 parameters; torch's names and the library's fix them.
    def __init__(
            self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
            add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None,
            vdim: int | None = None, batch_first: bool = False, device: Any = None,
            dtype: torch.dtype | None = None, *, num_kv_heads: int | None = None,
            head_dim: int | None = None, qk_norm: bool = False, qk_norm_eps: float = 1e-6,
            rope: Rope | None = None) -> None:
        options = (dropout, bias, add_bias_kv, add_zero_attn)
        if num_kv_heads is None and head_dim is None and qk_norm is False and rope is None \
                and qk_norm_eps == 1e-6:
            super().__init__(embed_dim, num_heads, *options, kdim, vdim, batch_first, device, dtype)
            return
        # torch checks the rest, and draws nothing on this device.
        super().__init__(num_heads if embed_dim > 0 and num_heads > 0 else embed_dim, num_heads, *options,
                         batch_first=batch_first, device="meta", dtype=dtype)
        try:
            extras = _extras.checked((embed_dim, num_heads, kdim, vdim), dropout, (
                num_kv_heads, head_dim, qk_norm, qk_norm_eps, rope))
        except TypeError as error:
            raise explained(error, MultiheadAttention.__init__, locals()) from None
        widths = (embed_dim, embed_dim if kdim is None else kdim, embed_dim if vdim is None else vdim)
        _extras.resize(self, widths, extras, {"device": device, "dtype": dtype})
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        if not self._extras:
            super()._reset_parameters()
            return
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if (weight := getattr(self, name)) is not None:
                nn.init.xavier_uniform_(weight)
        if self.in_proj_bias is not None:
            nn.init.zeros_(self.in_proj_bias)
            nn.init.zeros_(self.out_proj.bias)
        if self.bias_k is not None and self.bias_v is not None:
            nn.init.xavier_normal_(self.bias_k)
            nn.init.xavier_normal_(self.bias_v)

    @property
    def num_kv_heads(self) -> int:
        """Heads of key and value."""
        return int(self._options.get("num_kv_heads", self.num_heads))

    @property
    def qk_norm(self) -> bool:
        """Whether heads of query and key are normed."""
        return bool(self._options.get("qk_norm", False))

    @property
    def qk_norm_eps(self) -> float:
        """What is added to the mean of squares."""
        return float(self._options.get("qk_norm_eps", 1e-6))

    @property
    def rope(self) -> Rope | None:
        """Rotary positions, with what was not given: a copy."""
        rope = self._options.get("rope")
        return None if rope is None else cast(Rope, dict(rope))

    def extra_repr(self) -> str:
        return _extras.described(self._options)

    # over-budget: 13 parameters; the public names fix them.
    def forward(
            self, query: Tensor, key: Tensor, value: Tensor,
            key_padding_mask: Tensor | None = None, need_weights: bool = True,
            attn_mask: Tensor | None = None, average_attn_weights: bool = True,
            is_causal: bool = False, *, weights: Weights | None = None,
            causal_align: CausalAlign = "top_left", empty_rows: EmptyRows = "zero",
            query_position: int = 0, key_position: int = 0) -> tuple[Tensor, Tensor | None]:
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
        query_position, key_position  of the first query and key, with rope

        Errors of shapes and dtypes are torch's, in type and text; of what torch's class has not, the
        library's. What is no tensor, or no dense
        one of the CPU, is refused in words of our own: TypeError for None and numpy's arrays,
        RuntimeError for a sparse one.
        """
        if weights is None and need_weights:
            weights = "average" if average_attn_weights else "per_head"
        call = (query, key, value, key_padding_mask, attn_mask)
        dropout_p = _checks.probability(self.dropout, weights) if self.training else 0.0
        if is_causal is not True and is_causal is not False:
            is_causal = _flag(is_causal)
        options = Options(is_causal, causal_align, weights, empty_rows, dropout_p, query_position,
                          key_position)
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

    def cache_config(self, batch: int, num_pages: int) -> dict[str, Any]:
        """What a KvCache for this module is made of: KvCache(**module.cache_config(2, 64)); page_len
        and window may be given beside it."""
        weight = self.q_proj_weight if self.in_proj_weight is None else self.in_proj_weight
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        return {"batch": batch, "num_kv_heads": self.num_kv_heads, "head_dim": self.head_dim,
                "dtype": dtype, "num_pages": num_pages}

    def forward_cached(self, query: Tensor, cache: polyhead.KvCache, lengths: Tensor | None = None, *,
                       sequence: int = 0) -> Tensor:
        """The next tokens of a decoder, its prompt or one token after the other: out, as query.

        query     [n, B, E], with batch_first [B, n, E], B the cache's: behind the positions that each
                  sequence has, where rope turns them; unbatched [n, E]
        cache     their keys and values are appended to it. KvCache(**module.cache_config(B, pages))
        lengths   [B], int32 or int64: sequence b gets the first lengths[b] of the n tokens; the rest is
                  not looked at, and 0 in out. None: all
        sequence  the one whose tokens an unbatched query is

        Each token sees those up to its own that the cache's window leaves: the bits of a forward in
        eval over the whole sequences with is_causal, in whatever pieces they come. Raises
        RuntimeError where gradients are on and something requires one, and for a module with forward
        hooks of its own, which only a call runs; ValueError for what does not fit or has no pages left,
        and for a module with add_bias_kv, add_zero_attn, kdim or vdim; the cache then is as it was. So
        it is if an out_proj that is called by itself raises, but for what its window has forgotten.
        """
        step = _decoding.forward_cached
        if torch.compiler.is_compiling():
            step = _decoding.behind_a_graph_break()
        return step(self, query, cache, lengths, sequence)

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
        norms = _extras.norm_weights(self)
        width = self.num_heads * self.head_dim
        out_proj = self._modules["out_proj"]
        if out_proj is not None and _extras.is_plain(out_proj, _extras.PlainLinear, _OF_LINEAR):
            last = out_proj._parameters
            weight = last["weight"]
            if (last["bias"] is None) == (parameters[4] is None) and weight is not None \
                    and weight.shape == (self.embed_dim, width):
                return [*parameters, weight, last["bias"], *norms], False
        if width != self.embed_dim:
            raise NotImplementedError(
                f"MultiheadAttention: out_proj: is hooked, parametrised or replaced; where heads are "
                f"{width} wide together and embed_dim is {self.embed_dim}, need the constructor's")
        like = parameters[0] if parameters[0] is not None else parameters[1]
        assert like is not None
        make = _kept_identity if _engine.is_plain((like,)) else _identity
        identity, zeros = make(self.embed_dim, like.dtype, like.device)
        return [*parameters, identity, None if parameters[4] is None else zeros, *norms], True

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

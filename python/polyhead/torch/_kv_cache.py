"""KvCache on torch's tensors."""

from __future__ import annotations

from typing import Any, overload

import numpy.typing as npt
import torch
from torch import Tensor

import polyhead
from polyhead._arguments import pair_of
from polyhead._configured import dtype_name
from polyhead._typing import EmptyRows, Weights, Window
from polyhead.torch import _checks, _threads


class KvCache(polyhead.KvCache):
    """polyhead.KvCache on torch's tensors, for inference: nothing of it has gradients.

        cache = polyhead.torch.KvCache(batch=2, num_kv_heads=8, head_dim=128, num_pages=64)
        cache.append(key, value)                    # [B, Hkv, n, D] and Dv: n new positions each
        out = cache.attend(query, is_causal=True)   # [B, H, L, D] -> [B, H, L, Dv]

    dtype       torch.float32 (default) or torch.float64, or numpy's objects or the names of these;
                tensors of bfloat16 and float16 are converted to it

    The rest as polyhead.KvCache has it.
    """

    # over-budget: 8 parameters; the library's own names fix them.
    def __init__(
            self, *, batch: int = 1, num_kv_heads: int, head_dim: int, v_head_dim: int | None = None,
            dtype: torch.dtype | npt.DTypeLike | None = None, page_len: int = 256, num_pages: int,
            window: int | None = None) -> None:
        super().__init__(
            batch=batch, num_kv_heads=num_kv_heads, head_dim=head_dim, v_head_dim=v_head_dim,
            dtype=dtype_name(dtype), page_len=page_len, num_pages=num_pages, window=window)

    def append(self, key: Tensor, value: Tensor, lengths: Tensor | None = None,  # type: ignore[override]
               *, sequence: int | None = None) -> None:
        """As polyhead.KvCache.append. Raises RuntimeError for a tensor that requires grad where
        gradients are on."""
        _threads.follow()
        super().append(*plain(self.dtype, ("key", key), ("value", value), ("lengths", lengths)),
                       sequence=sequence)

    @overload  # type: ignore[override]
    def attend(
        self, query: Tensor, attn_mask: Tensor | None = None, *, is_causal: bool = False,
        scale: float | None = None, cu_seqlens_q: Tensor | None = None,
        window: Window | None = None, query_offset: int | None = None,
        segments: tuple[Tensor, Tensor] | None = None, softcap: float = 0.0,
        alibi_slopes: Tensor | None = None, sinks: Tensor | None = None,
        weights: None = None, empty_rows: EmptyRows = "zero") -> Tensor: ...
    @overload
    def attend(
        self, query: Tensor, attn_mask: Tensor | None = None, *, is_causal: bool = False,
        scale: float | None = None, cu_seqlens_q: Tensor | None = None,
        window: Window | None = None, query_offset: int | None = None,
        segments: tuple[Tensor, Tensor] | None = None, softcap: float = 0.0,
        alibi_slopes: Tensor | None = None, sinks: Tensor | None = None,
        weights: Weights, empty_rows: EmptyRows = "zero") -> tuple[Tensor, Tensor]: ...

    # over-budget: 13 parameters; the names are those of scaled_dot_product_attention.
    def attend(
            self, query: Tensor, attn_mask: Tensor | None = None, *, is_causal: bool = False,
            scale: float | None = None, cu_seqlens_q: Tensor | None = None,
            window: Window | None = None, query_offset: int | None = None,
            segments: tuple[Tensor, Tensor] | None = None, softcap: float = 0.0,
            alibi_slopes: Tensor | None = None, sinks: Tensor | None = None,
            weights: Weights | None = None, empty_rows: EmptyRows = "zero") -> Any:
        """As polyhead.KvCache.attend: new tensors of query's dtype. Raises RuntimeError for a tensor
        that requires grad where gradients are on."""
        queries, keys = pair_of(segments, "KvCache.attend")
        plain_query, mask, bounds, slopes, plain_sinks, queries, keys = plain(
            self.dtype, ("query", query), ("attn_mask", attn_mask), ("cu_seqlens_q", cu_seqlens_q),
            ("alibi_slopes", alibi_slopes), ("sinks", sinks), ("segments", queries),
            ("segments", keys))
        _threads.follow()
        attend: Any = super().attend
        results = attend(
            plain_query, mask, is_causal=is_causal, scale=scale, cu_seqlens_q=bounds, window=window,
            query_offset=query_offset, segments=None if segments is None else (queries, keys),
            softcap=softcap, alibi_slopes=slopes, sinks=plain_sinks, weights=weights,
            empty_rows=empty_rows)
        if weights is None:
            return torch.from_numpy(results).to(query.dtype)
        return tuple(torch.from_numpy(array).to(query.dtype) for array in results)


_HALF = (torch.bfloat16, torch.float16)
_NEEDED = ("query", "key", "value")


def plain(dtype: str, *named: tuple[str, Tensor | None]) -> list[Any]:
    """As the library reads them, what has 16 bits in `dtype`; None stays, where it may be."""
    for name, x in named:
        if x is None and name not in _NEEDED:
            continue
        _checks.refuse_other_kinds([x], [name])
        assert x is not None
        if x.device.type != "cpu":
            raise RuntimeError(f"KvCache: {name}: is on {x.device}; need a tensor in the CPU's memory")
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(f"KvCache: {name}: requires grad, and a cache has no gradients; give "
                               f"{name}.detach(), or call it under torch.no_grad()")
    wide = torch.float64 if dtype == "float64" else torch.float32
    return [x if x is None else x.detach().resolve_neg().to(wide if x.dtype in _HALF else x.dtype)
            for _, x in named]

"""The class written from scratch, with its soft mask."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from polyhead.torch import _checks
from polyhead.torch._attention_call import NO_STRUCTURE, OpOptions, attend


class FromScratchMultiHeadAttention(nn.Module):
    """The PyTorch class written from scratch that the README shows: q_linear, k_linear, v_linear and
    fc_out, which are called as modules; batch first; a soft mask.

    head_width  "split": each head is embed_size / num_heads wide; "full": embed_size
    """

    def __init__(self, embed_size: int, num_heads: int,
                 head_width: Literal["split", "full"] = "split") -> None:
        super().__init__()
        if head_width not in ("split", "full"):
            raise ValueError(f"head_width: got {head_width!r}; need 'split' or 'full'")
        if min(embed_size, num_heads) < 1:
            raise ValueError(f"FromScratchMultiHeadAttention: got embed_size {embed_size} and "
                             f"num_heads {num_heads}; need at least 1 of each")
        self.embed_size = embed_size
        self.num_heads = num_heads
        self.head_dim = embed_size if head_width == "full" else embed_size // num_heads
        width = self.head_dim * num_heads
        if head_width == "split" and width != embed_size:
            raise AssertionError("Embedding size needs to be divisible by num_heads")
        self.q_linear = nn.Linear(embed_size, width)
        self.k_linear = nn.Linear(embed_size, width)
        self.v_linear = nn.Linear(embed_size, width)
        self.fc_out = nn.Linear(width, embed_size)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """out [B, L, E]

        q     [B, L, E]
        k, v  [B, S, E]
        mask  broadcasts onto [B, H, L, S]; any numbers or bool, times -1e5 added to the scores:
              1 hides, softly
        """
        _checks.check_scratch_call(self, q, k, v, mask)
        query, key, value = (self._heads(linear(x)) for linear, x in (
            (self.q_linear, q), (self.k_linear, k), (self.v_linear, v)))
        dtype = query.dtype
        computes = torch.float64 if dtype == torch.float64 else torch.float32
        if mask is not None and mask.dtype not in _MASK_DTYPES:
            mask = mask.to(torch.float32 if mask.is_floating_point() else torch.int64)
        if mask is not None:
            mask = mask[(None,) * (4 - mask.dim())]
        operands = (query.to(computes), key.to(computes), value.to(computes), mask, *NO_STRUCTURE)
        out, _ = attend(operands, OpOptions(None, False, "top_left", None, "zero", 0.0, -1e5))
        result: Tensor = self.fc_out(out.transpose(1, 2).flatten(2).to(dtype))
        return result

    def _heads(self, x: Tensor) -> Tensor:
        """[B, len, H * D] -> [B, H, len, D]"""
        return x.reshape(*x.shape[:-1], self.num_heads, self.head_dim).transpose(1, 2)


_MASK_DTYPES = (torch.float32, torch.float64, torch.bool, torch.int32, torch.int64)

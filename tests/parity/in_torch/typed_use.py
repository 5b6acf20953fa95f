"""What a user writes, for the type checker (test_torch_types.py); it is not run."""

import polyhead.torch
import torch
from torch import nn

x = torch.zeros(2, 5, 64)
attention = polyhead.torch.MultiheadAttention(64, 8, batch_first=True, dtype=torch.float64)
stock: nn.MultiheadAttention = attention
out, weights = attention.forward(x, x, x, is_causal=True, causal_align="bottom_right")
rows: int = out.shape[0]
if weights is not None:
    total: float = float(weights.sum())
grouped = polyhead.torch.MultiheadAttention(
    64, 8, num_kv_heads=2, head_dim=16, qk_norm=True, rope={"pairs": "halves", "base": 500.0})
heads: int = grouped.num_kv_heads
grouped.forward(x, x, x, query_position=3)
polyhead.torch.MultiheadAttention(64, 8, num_kv_heads="2")  # type: ignore[arg-type]
cache = polyhead.torch.KvCache(num_kv_heads=2, head_dim=8, num_pages=1, dtype=torch.float32)
cache.append(x, x, lengths=torch.tensor([1]))
decoded: torch.Tensor = cache.attend(x, is_causal=True)
pair: tuple[torch.Tensor, torch.Tensor] = cache.attend(x, weights="average")
model: nn.TransformerEncoder = polyhead.torch.convert(
    nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 8), 2))
polyhead.torch.revert(model)
alone: torch.Tensor = polyhead.torch.scaled_dot_product_attention(x, x, x, is_causal=True)
both: tuple[torch.Tensor, torch.Tensor] = polyhead.torch.scaled_dot_product_attention(
    x, x, x, weights="average")
scratch: nn.Module = polyhead.torch.FromScratchMultiHeadAttention(64, 8, "full")
polyhead.torch.scaled_dot_product_attention(x, x, x, weights="all")  # type: ignore[call-overload]
attention.forward(x, x, x, causal_align="left")  # type: ignore[arg-type]
polyhead.torch.FromScratchMultiHeadAttention(64, 8, "wide")  # type: ignore[arg-type]

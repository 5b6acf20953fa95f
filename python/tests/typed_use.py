"""What a user writes, for the type checker (test_package.py); it is not run."""

import numpy as np
import polyhead

x = np.zeros((2, 5, 64), np.float32)
attention = polyhead.MultiheadAttention(64, 8, batch_first=True, dtype=np.float64)
out, weights = attention(x, x, x, attn_mask=np.zeros((5, 5), bool), causal_align="bottom_right")
rows: int = out.shape[0]
if weights is not None:
    total: float = float(weights.sum())
heads: int = attention.num_heads
attention.load_state_dict(attention.state_dict())
alone: np.ndarray = polyhead.scaled_dot_product_attention(x, x, x, is_causal=True)
both = polyhead.scaled_dot_product_attention(x, x, x, weights="average")
pair: tuple[np.ndarray, np.ndarray] = both
local: np.ndarray = polyhead.scaled_dot_product_attention(
    x, x, x, window=(3, None), key_lengths=np.array([5, 3]), softcap=30.0)
shifted: np.ndarray = polyhead.scaled_dot_product_attention(
    x, x, x, score_mod=lambda scores, batch, head, queries, keys: scores - (queries - keys))
packed: np.ndarray = polyhead.packed_attention(x, x, x, np.array([0, 2]), is_causal=True)
cache = polyhead.KvCache(num_kv_heads=2, head_dim=8, num_pages=1, dtype=np.float32)
cache.append(x, x, lengths=np.array([1]))
lengths: list[int] = cache.lengths.tolist()
attended: np.ndarray = cache.attend(x, is_causal=True)
seen: tuple[np.ndarray, np.ndarray] = cache.attend(x, weights="average")
scratch: np.ndarray = polyhead.FromScratchMultiHeadAttention(64, 8, "full")(x, x, x)
threads: int = polyhead.get_num_threads()
instructions: str = polyhead.isa()
polyhead.scaled_dot_product_attention(x, x, x, weights="all")  # type: ignore[call-overload]
polyhead.packed_attention(x, x, x, np.array([0, 2]), window=3)  # type: ignore[arg-type]
polyhead.KvCache(num_kv_heads=2, head_dim=8, num_pages="1")  # type: ignore[arg-type]
polyhead.MultiheadAttention("64", 8)  # type: ignore[arg-type]


class Sub(polyhead.MultiheadAttention):
    """A user's own."""


class SubScratch(polyhead.FromScratchMultiHeadAttention):
    """A user's own."""


derived: Sub = Sub.from_safetensors("file")
other: SubScratch = SubScratch.from_safetensors("file")
pages: int = cache.page_len
turns: object = attention.rope
cache.page_len = 3  # type: ignore[assignment]
attention.rope = None  # type: ignore[assignment]

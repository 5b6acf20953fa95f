"""torch.nn.MultiheadAttention, faster: the same constructor, forward, parameters and state dict.

    import polyhead.torch
    attention = polyhead.torch.MultiheadAttention(64, 8, batch_first=True)   # an nn.Module
    polyhead.torch.convert(model)       # or: every nn.MultiheadAttention inside a model, in place

Results have the same bits with and without gradients, weights and other items in the batch, in train
and in eval. A row whose every key is masked is 0, never NaN. CPU only; needs torch 2.10 or newer.
"""

from polyhead.torch import _op, _threads  # _op: torch.export.load asks for operators by their names
from polyhead.torch._attention import scaled_dot_product_attention
from polyhead.torch._convert import convert, revert
from polyhead.torch._from_scratch import FromScratchMultiHeadAttention
from polyhead.torch._kv_cache import KvCache
from polyhead.torch._multihead_attention import MultiheadAttention
from polyhead.torch._structure import packed_attention

_threads.lend()

__all__ = [
    "FromScratchMultiHeadAttention",
    "KvCache",
    "MultiheadAttention",
    "convert",
    "packed_attention",
    "revert",
    "scaled_dot_product_attention",
]

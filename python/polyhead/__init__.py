"""Multi-head attention on the CPU: the numbers of torch.nn.MultiheadAttention, without torch.

    import numpy, polyhead
    x = numpy.random.randn(2, 5, 64).astype("float32")     # [batch, len, embed_dim]
    attention = polyhead.MultiheadAttention(64, 8, batch_first=True)
    out, weights = attention(x, x, x, is_causal=True)      # [2, 5, 64], [2, 5, 5]

Arrays are numpy's, or any object with `__dlpack__` in the CPU's memory (a torch tensor, say). They
are read where they are, whatever their strides; results are new numpy arrays. Other Python threads
run while the library computes; a KeyboardInterrupt waits for the end of the call. Results have the
same bits for any number of threads, batch size and padding.

Errors: ValueError for a wrong shape, dtype or option; TypeError for what is no such array; OSError
for a file that cannot be read or written; MemoryError. A message names the argument, what it was
and what is needed.
"""

from polyhead._attention import packed_attention, scaled_dot_product_attention
from polyhead._core import version as _version
from polyhead._kv_cache import KvCache
from polyhead._modules import FromScratchMultiHeadAttention, MultiheadAttention
from polyhead._report import Report
from polyhead._runtime import get_num_threads, isa, set_num_threads

__version__ = _version()

__all__ = [
    "FromScratchMultiHeadAttention",
    "KvCache",
    "MultiheadAttention",
    "Report",
    "get_num_threads",
    "isa",
    "packed_attention",
    "scaled_dot_product_attention",
    "set_num_threads",
]

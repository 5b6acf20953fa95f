"""KvCache: the keys and values of a decoder's past, and attention over them."""

from __future__ import annotations

from typing import Any, NoReturn, overload

import numpy as np
import numpy.typing as npt

from polyhead import _core
from polyhead._arguments import explained, index_of, pair_of, plain_bool, refuse_masked, type_name
from polyhead._configured import Configured, Fixed, dtype_name
from polyhead._score_mod import block_function
from polyhead._typing import Array, EmptyRows, FloatArray, ScoreFunction, Weights, Window


class KvCache(Configured):
    """The keys and values of a batch of sequences of unequal lengths, and attention over them.

        cache = polyhead.KvCache(batch=2, num_kv_heads=8, head_dim=128, num_pages=64)
        cache.append(key, value)                    # [B, Hkv, n, D] and Dv: n new positions each
        out = cache.attend(query, is_causal=True)   # [B, H, L, D] -> [B, H, L, Dv]

    batch         sequences
    num_kv_heads  heads of key and value; those of a query are a multiple
    head_dim      width of a key
    v_head_dim    width of a value; default head_dim
    dtype         "float32" (default) or "float64", or numpy's or torch's objects for them
    page_len      positions in a page, a multiple of 32
    num_pages     of all sequences together; their memory is taken at once
    window        a position sees so many, itself included; older ones are forgotten, by whole pages,
                  as others are appended. None: all

    A row of the result has the same bits however its keys came here: in one append or many, in pages
    of any size, one query at a time or all at once. They are those of scaled_dot_product_attention
    over the whole sequences.

    The configuration can be read under the names of these arguments. Threads may share a cache: calls
    of attend run side by side, and what changes the cache waits for them, and they for it. Raises
    ValueError for numbers that do not fit, MemoryError. It cannot be copied or pickled.
    """

    batch = Fixed[int]()
    num_kv_heads = Fixed[int]()
    head_dim = Fixed[int]()
    v_head_dim = Fixed[int]()
    dtype = Fixed[str]()
    page_len = Fixed[int]()
    num_pages = Fixed[int]()
    window = Fixed["int | None"]()

    # over-budget: 8 parameters; the library's own names fix them.
    def __init__(
            self, *, batch: int = 1, num_kv_heads: int, head_dim: int, v_head_dim: int | None = None,
            dtype: npt.DTypeLike | None = None, page_len: int = 256, num_pages: int,
            window: int | None = None) -> None:
        try:
            self._cache = _core.KvCache(
                batch, num_kv_heads, head_dim, v_head_dim, dtype_name(dtype), page_len, num_pages,
                window)
        except TypeError as error:
            raise explained(error, KvCache.__init__, locals()) from None
        except MemoryError:
            width = head_dim + (head_dim if v_head_dim is None else v_head_dim)
            size = num_pages * num_kv_heads * page_len * width * (
                8 if dtype_name(dtype) == "float64" else 4)
            raise MemoryError(
                f"KvCache: num_pages, page_len: got {num_pages} of {page_len}, which take {size} "
                "bytes; need as many as there is memory for") from None
        self._config = self._cache.config

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """[B], positions appended to each sequence, forgotten ones included: a new array."""
        return np.array(self._cache.lengths, np.int64)

    @property
    def first_kept(self) -> npt.NDArray[np.int64]:
        """[B], the position of each sequence before which all is forgotten: a new array."""
        return np.array(self._cache.first_kept, np.int64)

    @property
    def free_pages(self) -> int:
        """Pages that no sequence has taken."""
        return self._cache.free_pages

    def append(self, key: Array, value: Array, lengths: Array | None = None, *,
               sequence: int | None = None) -> None:
        """The next positions of each sequence, or of one.

        key       [B, Hkv, n, D], of the cache's dtype; with sequence=b [Hkv, n, D], of that alone
        value     [B, Hkv, n, Dv], likewise
        lengths   [B], int32 or int64: sequence b takes the first lengths[b] of the n; None: all

        Raises ValueError for what does not fit or has no pages left, TypeError for what is no array;
        the cache then is as it was.
        """
        refuse_masked("KvCache.append", ("key", "value", "lengths"), (key, value, lengths))
        if sequence is not None:
            sequence = index_of(sequence, "KvCache.append: sequence")
            if lengths is not None:
                raise ValueError("KvCache.append: lengths: got an array, with a sequence; need one of them")
        self._cache.append(key, value, lengths, sequence)

    def truncate(self, sequence: int, length: int) -> None:
        """Takes the positions of a sequence from `length` on back, as a decoder does with guesses.
        Raises ValueError for a length beyond its own, and if position `length` would see what is
        forgotten."""
        self._cache.truncate(index_of(sequence, "KvCache.truncate: sequence"),
                             index_of(length, "KvCache.truncate: length"))

    def reset(self, sequence: int | None = None) -> None:
        """Takes all positions of a sequence back; None: of all sequences. Their pages are free for
        others."""
        if sequence is not None:
            sequence = index_of(sequence, "KvCache.reset: sequence")
        self._cache.reset(sequence)

    @overload
    def attend(
        self, query: Array, attn_mask: Array | None = None, *, is_causal: bool = False,
        scale: float | None = None, cu_seqlens_q: Array | None = None, window: Window | None = None,
        query_offset: int | None = None, segments: tuple[Array, Array] | None = None,
        softcap: float = 0.0, alibi_slopes: Array | None = None, sinks: Array | None = None,
        weights: None = None,
        empty_rows: EmptyRows = "zero", score_mod: ScoreFunction | None = None) -> FloatArray: ...
    @overload
    def attend(
        self, query: Array, attn_mask: Array | None = None, *, is_causal: bool = False,
        scale: float | None = None, cu_seqlens_q: Array | None = None, window: Window | None = None,
        query_offset: int | None = None, segments: tuple[Array, Array] | None = None,
        softcap: float = 0.0, alibi_slopes: Array | None = None, sinks: Array | None = None,
        weights: Weights,
        empty_rows: EmptyRows = "zero",
        score_mod: ScoreFunction | None = None) -> tuple[FloatArray, FloatArray]: ...

    # over-budget: 14 parameters; the names are those of scaled_dot_product_attention.
    def attend(
            self, query: Array, attn_mask: Array | None = None, *, is_causal: bool = False,
            scale: float | None = None, cu_seqlens_q: Array | None = None,
            window: Window | None = None, query_offset: int | None = None,
            segments: tuple[Array, Array] | None = None, softcap: float = 0.0,
            alibi_slopes: Array | None = None, sinks: Array | None = None,
            weights: Weights | None = None, empty_rows: EmptyRows = "zero",
            score_mod: ScoreFunction | None = None) -> Any:
        """Attention of the last L positions of each sequence over all that it has: append first.

        query         [B, H, L, D], of the cache's dtype; with cu_seqlens_q [tokens, H, D]
        cu_seqlens_q  [B + 1], int32 or int64: sequence b has the queries from cu_seqlens_q[b] to
                      before cu_seqlens_q[b + 1], none included
        attn_mask     broadcasts onto [B, H, L, S], S being the length of the longest sequence
        is_causal     a query sees the positions up to its own
        window        (left, right): so many positions before and after its own
        query_offset  query 0 stands at this position, of every sequence, for is_causal, window,
                      alibi_slopes and the cache's window; None: the queries are the last
        score_mod     its queries and keys are positions; it must not change a cache

        The other options are those of scaled_dot_product_attention. Returns out [B, H, L, Dv] or
        [tokens, H, Dv], or (out, weights): new numpy arrays of the cache's dtype. Raises ValueError
        for what does not fit: a sequence that is empty, shorter than its queries where positions
        are compared, or has forgotten what they see, too; TypeError for what is no array.
        """
        is_causal = plain_bool(is_causal)
        try:
            arrays = (sinks, alibi_slopes, None, *pair_of(segments, "KvCache.attend"), cu_seqlens_q)
            refuse_masked("KvCache.attend", _ARRAYS, (*arrays, query, attn_mask))
            options = _core.AttentionOptions(
                "KvCache.attend", attn_mask, 0.0, 0, is_causal, scale, "top_left", weights,
                empty_rows, window, query_offset, softcap, (*arrays, None),
                block_function(score_mod, "KvCache.attend"))
            return self._cache.attend(query, options)
        except TypeError as error:
            raise explained(error, KvCache.attend, locals()) from None

    def __reduce__(self) -> NoReturn:
        raise TypeError("KvCache: cannot be copied or pickled; need another cache, and to append to it")


def core_of(cache: object, function: str) -> Any:
    """The library's own; refuses what is no KvCache."""
    if not isinstance(cache, KvCache):
        raise TypeError(f"{function}: cache: got {type_name(cache)}; need a KvCache")
    return cache._cache


_ARRAYS = ("sinks", "alibi_slopes", "key_lengths", "segments", "segments", "cu_seqlens_q", "query",
           "attn_mask")

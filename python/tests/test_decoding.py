"""MultiheadAttention over a KvCache: the bits of a forward over the whole sequences."""

import numpy as np
import polyhead
import pytest
from formula import expect_same_bits

OPTIONS = [{}, {"num_kv_heads": 2, "bias": False}, {
    "num_kv_heads": 1, "head_dim": 8, "qk_norm": True, "rope": {"pairs": "halves"}}]
LENGTH = 50


def module_of(dtype="float32", **options):
    return polyhead.MultiheadAttention(16, 4, dtype=dtype, seed=3, **{"batch_first": True} | options)


def tokens_of(dtype="float32", batch=2):
    return np.random.default_rng(1).standard_normal((batch, LENGTH, 16)).astype(dtype)


def cache_of(module, batch=2, pages=4, **options):
    return polyhead.KvCache(**module.cache_config(batch, pages), **{"page_len": 32} | options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("chunks", [[50], [1] * 50, [40, 1, 2, 7]], ids=["all", "one by one", "mixed"])
def test_pieces_are_one_pass(dtype, options, chunks):
    module, x = module_of(dtype, **options), tokens_of(dtype)
    whole, _ = module(x, x, x, is_causal=True, need_weights=False)
    cache = cache_of(module)
    ends = np.cumsum(chunks)
    for end, count in zip(ends, chunks):
        part = slice(end - count, end)
        expect_same_bits(module.forward_cached(x[:, part], cache), whole[:, part])
    assert cache.lengths.tolist() == [LENGTH, LENGTH]


def test_sequence_first_and_strided():
    module, other = module_of(batch_first=False), module_of()
    x = tokens_of()
    out = module.forward_cached(x.swapaxes(0, 1), cache_of(module))
    expect_same_bits(out.swapaxes(0, 1), other.forward_cached(x, cache_of(other)))


def test_unequal_lengths_and_one_sequence():
    module, x = module_of(**OPTIONS[2]), tokens_of()
    whole, _ = module(x, x, x, is_causal=True)
    cache = cache_of(module)
    dirty = x.copy()
    dirty[1, 9:] = np.nan  # not looked at
    out = module.forward_cached(dirty, cache, np.array([LENGTH, 9]))
    expect_same_bits(out[0], whole[0])
    expect_same_bits(out[1, :9], whole[1, :9])
    assert not out[1, 9:].any() and cache.lengths.tolist() == [LENGTH, 9]
    expect_same_bits(module.forward_cached(x[1, 9:20], cache, sequence=1), whole[1, 9:20])


def test_a_window():
    module, x = module_of(rope={"pairs": "halves"}), tokens_of()
    seen = np.tri(LENGTH, dtype=bool) & ~np.tri(LENGTH, k=-8, dtype=bool)
    whole, _ = module(x, x, x, attn_mask=~seen)
    cache = cache_of(module, window=8)
    out = [module.forward_cached(x[:, n:n + 1], cache) for n in range(LENGTH)]
    np.testing.assert_allclose(np.concatenate(out, 1), whole, rtol=0, atol=1e-6)
    assert cache.first_kept.tolist() == [32, 32]


def test_refusals_leave_the_cache():
    module, x = module_of(), tokens_of()
    cache = cache_of(module, pages=2)
    module.forward_cached(x[:, :20], cache)
    for error, words, call in (
            (ValueError, "more pages", lambda: module.forward_cached(x, cache)),
            (ValueError, "batch is 1", lambda: module.forward_cached(x[:1], cache)),
            (ValueError, r"lengths\[0\]: got 51",
             lambda: module.forward_cached(x, cache, np.array([51, 0]))),
            (ValueError, "sequence: got 2", lambda: module.forward_cached(x[0], cache, sequence=2)),
            (ValueError, "dtype is float64", lambda: module.forward_cached(x.astype(float), cache)),
            (TypeError, "cache: got dict; need a KvCache", lambda: module.forward_cached(x, {})),
            (TypeError, "query: got list", lambda: module.forward_cached([x], cache)),
            (TypeError, "sequence: got str; need an int",
             lambda: module.forward_cached(x[0], cache, sequence="0")),
            (TypeError, "batch: got str", lambda: module.cache_config("2", 1)),
            (ValueError, "batch: got -1", lambda: module.cache_config(-1, 2)),
            (ValueError, "num_pages: got 0", lambda: module.cache_config(2, 0)),
            (ValueError, "batch: got 4611686018427387904", lambda: module.cache_config(2**62, 2**62)),
            (ValueError, "cache_config: asked of a module of kdim 5 and vdim 16",
             lambda: module_of(kdim=5).cache_config(2, 2)),
            (ValueError, "cache_config: asked of .*add_zero_attn",
             lambda: module_of(add_zero_attn=True).cache_config(2, 2)),
            (ValueError, "num_kv_heads is 4; must be 2",
             lambda: module_of(num_kv_heads=2).forward_cached(x, cache)),
            (ValueError, "add_bias_kv", lambda: module_of(add_bias_kv=True).forward_cached(x, cache))):
        with pytest.raises(error, match=words):
            call()
        assert cache.lengths.tolist() == [20, 20]

"""A cache gives the bits of attention over the whole sequences, however they came into it."""

import copy
import pickle
import threading
import time

import numpy as np
import polyhead
import pytest
from formula import expect_same_bits

sdpa = polyhead.scaled_dot_product_attention
B, H, HKV, D, DV = 2, 4, 2, 8, 10


def normal(seed, *shape, dtype="float32"):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def sequences(length, dtype="float32"):
    """query, key, value of so many positions."""
    return (normal(1, B, H, length, D, dtype=dtype), normal(2, B, HKV, length, D, dtype=dtype),
            normal(3, B, HKV, length, DV, dtype=dtype))


def new_cache(positions=200, **changed):
    page_len = changed.get("page_len", 32)
    pages = B * -(-positions // page_len)
    return polyhead.KvCache(**{"batch": B, "num_kv_heads": HKV, "head_dim": D, "v_head_dim": DV,
                               "page_len": page_len, "num_pages": pages} | changed)


def filled(length, **changed):
    cache = new_cache(length, **changed)
    query, key, value = sequences(length, changed.get("dtype", "float32"))
    cache.append(key, value)
    return cache, query, key, value


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("page_len", [32, 96, 256])
@pytest.mark.parametrize("chunks", [[150], [1], [70, 1, 1, 3, 17, 2]], ids=str)
def test_prefill_and_decode_are_one_pass(dtype, page_len, chunks):
    query, key, value = sequences(150, dtype)
    whole = sdpa(query, key, value, is_causal=True, enable_gqa=True)
    cache = new_cache(150, dtype=dtype, page_len=page_len)
    at, step = 0, 0
    while at < 150:
        part = (slice(None), slice(None), slice(at, at + chunks[step % len(chunks)]))
        cache.append(key[part], value[part])
        expect_same_bits(cache.attend(query[part], is_causal=True), whole[part])
        at, step = at + chunks[step % len(chunks)], step + 1
    assert cache.lengths.tolist() == [150, 150] and cache.lengths.dtype == np.int64


@pytest.mark.parametrize("first", [0, 7])
def test_queries_that_are_not_the_last(first):
    cache, query, key, value = filled(40)
    whole = sdpa(query, key, value, is_causal=True, enable_gqa=True)
    part = slice(first, first + 9)
    got = cache.attend(query[:, :, part], is_causal=True, query_offset=first)
    expect_same_bits(got, whole[:, :, part])


SLOPES = np.array([0.5, 0.25, 0.125, 0.0625])
OPTIONS = {
    "scale": {"scale": 0.3}, "window": {"window": (11, 0)}, "both sides": {"window": (None, 3)},
    "softcap": {"softcap": 0.7}, "alibi": {"alibi_slopes": SLOPES},
    "sinks": {"sinks": normal(4, H)}, "boolean": {"attn_mask": normal(5, 6, 40) > 0},
    "additive": {"attn_mask": normal(6, B, 1, 6, 40)},
    "segments": {"segments": (np.arange(6) // 3, np.arange(40) // 37)},
    "empty rows": {"attn_mask": np.zeros((6, 1), bool), "empty_rows": "nan"},
    "causal": {"is_causal": True}, "all": {
        "is_causal": True, "window": (20, 0), "softcap": 0.9, "sinks": normal(7, H),
        "alibi_slopes": SLOPES, "scale": 0.4}}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("weights", [None, "average", "per_head"])
def test_each_option(name, weights):
    cache, query, key, value = filled(40)
    options = OPTIONS[name] | {"weights": weights}
    got = cache.attend(query[:, :, 34:], **options)
    if options.keys() & {"is_causal", "window", "alibi_slopes"}:
        options["causal_align"] = "bottom_right"
    want = sdpa(query[:, :, 34:], key, value, enable_gqa=True, **options)
    for ours, theirs in zip(got, want) if weights else [(got, want)]:
        expect_same_bits(ours, theirs)


def test_sequences_of_unequal_lengths():
    query, key, value = sequences(50)
    cache = new_cache(50)
    cache.append(key, value, np.array([50, 20], "int32"))
    assert cache.lengths.tolist() == [50, 20]
    cache.append(key[1, :, 20:27], value[1, :, 20:27], sequence=1)
    lengths = [50, 27]
    assert cache.lengths.tolist() == lengths

    counts = [2, 5]  # queries of each, packed
    tokens = np.concatenate([query[n, :, lengths[n] - counts[n]:lengths[n]].swapaxes(0, 1)
                             for n in range(B)])
    starts = np.array([0, 2, 7])
    out = cache.attend(tokens, is_causal=True, cu_seqlens_q=starts)
    assert out.shape == (7, H, DV)
    for n in range(B):
        alone = sdpa(query[n, :, :lengths[n]], key[n, :, :lengths[n]], value[n, :, :lengths[n]],
                     is_causal=True, enable_gqa=True)
        expect_same_bits(out[starts[n]:starts[n + 1]].swapaxes(0, 1), alone[:, -counts[n]:])


def test_truncate_and_reset():
    cache, query, key, value = filled(64)
    assert cache.free_pages == 0
    cache.truncate(0, 31)
    assert cache.lengths.tolist() == [31, 64] and cache.free_pages == 1
    cache.append(key[0, :, 31:33], value[0, :, 31:33], sequence=0)
    cache.truncate(1, 33)
    whole = sdpa(query[:, :, :33], key[:, :, :33], value[:, :, :33], is_causal=True, enable_gqa=True)
    expect_same_bits(cache.attend(query[:, :, 32:33], is_causal=True), whole[:, :, 32:])
    cache.reset(1)
    assert cache.lengths.tolist() == [33, 0] and cache.free_pages == 2
    cache.reset()
    assert not cache.lengths.any() and cache.free_pages == cache.num_pages


def test_a_window_forgets():
    query, key, value = sequences(150)
    window = sdpa(query, key, value, is_causal=True, window=(39, 0), enable_gqa=True)
    cache = new_cache(num_pages=B * 3, window=40)
    for n in range(150):
        one = (slice(None), slice(None), slice(n, n + 1))
        cache.append(key[one], value[one])
        expect_same_bits(cache.attend(query[one], is_causal=True), window[one])
    assert cache.first_kept.tolist() == [96, 96] and cache.lengths.tolist() == [150, 150]
    with pytest.raises(ValueError, match="is forgotten"):
        cache.truncate(0, 100)
    with pytest.raises(ValueError, match="is forgotten"):
        cache.attend(query[:, :, 50:])


def test_out_of_pages_changes_nothing():
    cache, query, key, value = filled(60)
    before = cache.attend(query[:, :, 59:], is_causal=True)
    for call in (lambda: cache.append(key, value),
                 lambda: cache.append(key[0], value[0], sequence=0)):
        with pytest.raises(ValueError, match=r"needs \d+ more pages.*free"):
            call()
        assert cache.lengths.tolist() == [60, 60] and cache.free_pages == 0
        expect_same_bits(cache.attend(query[:, :, 59:], is_causal=True), before)
    cache.append(key[:, :, :4], value[:, :, :4])  # what is left of the last pages


def test_operands_are_read_where_they_are():
    query, key, value = sequences(40)
    cache = new_cache(40)
    strided = [np.asfortranarray(x)[:, :, ::-1] for x in (key, value)]
    cache.append(*(x[:, :, ::-1] for x in strided))
    want = sdpa(query[:, :, 39:], key, value, enable_gqa=True)
    expect_same_bits(cache.attend(np.asfortranarray(query)[:, :, 39:]), want)


def test_what_it_is():
    cache = polyhead.KvCache(num_kv_heads=2, head_dim=4, num_pages=3, dtype=np.float64)
    assert repr(cache) == ("KvCache(batch=1, num_kv_heads=2, head_dim=4, v_head_dim=4, "
                           "dtype='float64', page_len=256, num_pages=3, window=None)")
    assert cache.v_head_dim == 4 and cache.window is None
    with pytest.raises(AttributeError, match="fixed by the constructor"):
        cache.num_pages = 4
    for spread in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            spread(cache)


@pytest.mark.parametrize("changed, words", [
    ({"page_len": 33}, "page_len: got 33; must be a multiple of 32"),
    ({"num_pages": 0}, "num_pages: got 0"), ({"batch": 0}, "batch: got 0"),
    ({"v_head_dim": 0}, "v_head_dim: got 0"), ({"window": 0}, "window: got 0"),
    ({"window": -1}, "window: got -1"), ({"dtype": "float16"}, "dtype: got 'float16'"),
    ({"dtype": "x"}, "dtype: got 'x'")], ids=str)
def test_refused_configurations(changed, words):
    with pytest.raises(ValueError) as error:
        new_cache(**changed)
    assert words in str(error.value)


def test_more_memory_than_there_is():
    with pytest.raises(MemoryError):
        polyhead.KvCache(num_kv_heads=2**20, head_dim=2**20, num_pages=2**10)


@pytest.mark.parametrize("call, words", [
    (lambda c, q, k, v: c.append(k[:, :1], v), "key: shape is [2, 1, 40, 8]"),
    (lambda c, q, k, v: c.append(k, v[:, :, :3]), "value: shape is [2, 2, 3, 10]"),
    (lambda c, q, k, v: c.append(k.astype("float64"), v), "key: dtype is float64"),
    (lambda c, q, k, v: c.append(k, v, np.array([41, 0])), "lengths[0]: got 41"),
    (lambda c, q, k, v: c.append(k, v, np.array([1])), "lengths: shape is [1]"),
    (lambda c, q, k, v: c.append(k, v, np.array([1.0, 1.0])), "lengths: dtype is float64"),
    (lambda c, q, k, v: c.append(k[0], v[0], sequence=2), "sequence: got 2"),
    (lambda c, q, k, v: c.append(k, v, sequence=0), "key: shape is [2, 2, 40, 8]"),
    (lambda c, q, k, v: c.append(k, v, np.array([1, 1]), sequence=0), "need one of them"),
    (lambda c, q, k, v: c.truncate(0, 41), "length: got 41"),
    (lambda c, q, k, v: c.truncate(-1, 0), "sequence: got -1"),
    (lambda c, q, k, v: c.reset(2), "sequence: got 2"),
    (lambda c, q, k, v: c.attend(q[0]), "query: shape is [4, 40, 8]; need [batch, heads"),
    (lambda c, q, k, v: c.attend(q, cu_seqlens_q=np.array([0, 1, 2])), "need [tokens, heads, 8]"),
    (lambda c, q, k, v: c.attend(q[0, :, :, :4], cu_seqlens_q=np.array([0, 1, 2])),
     "query: shape is [4, 40, 4]; need [tokens, heads, 8], with"),
    (lambda c, q, k, v: c.append(k[0, :1], v[0], sequence=0),
     "key: shape is [1, 40, 8]; must be [2, n, 8]"),
    (lambda c, q, k, v: c.attend(q[..., :4]), "query: shape is [2, 4, 40, 4]"),
    (lambda c, q, k, v: c.attend(q[:, :3]), "num_heads is 3"),
    (lambda c, q, k, v: c.attend(q.astype("float64")), "query: dtype is float64"),
    (lambda c, q, k, v: c.attend(q.astype("float16")), "query: dtype is float16"),
    (lambda c, q, k, v: c.attend(np.tile(q, (1, 1, 2, 1)), is_causal=True), "append first"),
    (lambda c, q, k, v: c.attend(q, np.ones((40, 41), bool)), "[40, 41]"),
    (lambda c, q, k, v: c.attend(q, window=(-2, 0)), "window: got -2"),
    (lambda c, q, k, v: c.attend(q, sinks=np.zeros(3, "float32")), "sinks"),
    (lambda c, q, k, v: c.attend(q, weights="all"), "weights: got 'all'"),
    (lambda c, q, k, v: c.attend(q[:, :, 0], cu_seqlens_q=np.array([0, 1, 2]), weights="average"),
     "weights")], ids=range(26))
def test_refusals(call, words):
    cache, *operands = filled(40)
    with pytest.raises(ValueError) as error:
        call(cache, *operands)
    assert words in str(error.value)
    assert cache.lengths.tolist() == [40, 40]


def test_no_positions_at_all():
    query, key, value = sequences(1)
    with pytest.raises(ValueError, match="append first"):
        new_cache().attend(query)
    cache = new_cache()
    cache.append(key[:, :, :0], value[:, :, :0])
    assert not cache.lengths.any()
    assert cache.attend(query[:, :, :0]).shape == (B, H, 0, DV)


def test_a_window_of_the_cache_goes_by_the_offset():
    cache, query, key, value = filled(40, window=7)
    earlier = cache.attend(query[:, :, :3], is_causal=True, query_offset=20)
    expect_same_bits(earlier, sdpa(query[:, :, :3], key, value, enable_gqa=True, is_causal=True,
                                   window=(6, 0), query_offset=20))


def test_threads_that_attend_and_change():
    """Every answer is that of one of the states that the cache was in."""
    query, key, value = sequences(70)
    last = query[:, :, :1]
    cache = new_cache(70)
    cache.append(key[:, :, :1], value[:, :, :1])
    states = [{sdpa(last[b], key[b, :, :n], value[b, :, :n], enable_gqa=True).tobytes()
               for n in range(1, 71)} for b in range(B)]
    done, wrong = threading.Event(), []

    def is_right(out):
        return all(out[b].tobytes() in states[b] for b in range(B))

    def attend():
        while not done.is_set():
            if not is_right(cache.attend(last)):
                wrong.append("out")
            try:
                out, weights = cache.attend(last, weights="per_head")
            except ValueError as error:
                wrong.append(error)
            else:
                if not is_right(out) or not np.allclose(weights.sum(-1), 1):
                    wrong.append("weights")

    readers = [threading.Thread(target=attend) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(15):
        for n in range(1, 70):
            cache.append(key[:, :, n:n + 1], value[:, :, n:n + 1])
        for n in range(B):
            cache.truncate(n, 1)
            cache.append(key[n, :, 1:70], value[n, :, 1:70], sequence=n)
            cache.truncate(n, 1)
    done.set()
    for reader in readers:
        reader.join()
    assert not wrong


def test_an_append_goes_before_later_readers():
    cache, query, key, value = filled(40, num_pages=8)
    attends, may_finish, reads = threading.Event(), threading.Event(), []

    def keep_attending(scores, batch, head, queries, keys):
        attends.set()
        may_finish.wait()
        return scores

    def read():
        while not may_finish.is_set():
            reads.append(cache.attend(query[:, :, -1:]))

    def started(target, *args, **options):
        thread = threading.Thread(target=target, args=args, kwargs=options, daemon=True)
        thread.start()
        return thread

    def reader_stands_still():
        seen = -1
        for _ in range(30):
            if len(reads) == seen:
                return True
            seen = len(reads)
            time.sleep(0.3)
        return False

    threads = [started(cache.attend, query, score_mod=keep_attending), started(read)]
    assert attends.wait(30)
    deadline = time.monotonic() + 30
    while not reads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert reads
    threads.append(started(cache.append, key, value))
    stands_still = reader_stands_still()
    may_finish.set()
    for thread in threads:
        thread.join()
    assert stands_still and cache.lengths.tolist() == [80, 80]


def test_a_score_mod_reads_the_cache_beside_an_append():
    cache, query, key, value = filled(40, num_pages=8)
    seen = []

    def look(scores, batch, head, queries, keys):
        if not seen:
            writer.start()
            while writer.is_alive() and len(seen) < 50:
                seen.append(cache.lengths.tolist())
                time.sleep(0.001)
            assert writer.is_alive()  # it waits for this attend
        return scores

    writer = threading.Thread(target=cache.append, args=(key, value))
    cache.attend(query[:, :, -1:], score_mod=look)
    writer.join()
    assert seen == [[40, 40]] * 50 and cache.lengths.tolist() == [80, 80]

"""score_mod: a function of Python's between the scores and the softmax."""

import threading

import numpy as np
import polyhead
import pytest
from contract import attention
from error_rule import Together
from formula import expect_same_bits, random_inputs

sdpa = polyhead.scaled_dot_product_attention
SLOPES = np.array([0.5, 0.25, 0.125], "float32")


def alibi(scores, batch, head, queries, keys):
    return scores - SLOPES[head] * np.abs(queries - keys).astype("float32")


def causal(scores, batch, head, queries, keys):
    return np.where(keys <= queries, scores, -np.inf)


def by_batch(scores, batch, head, queries, keys):
    scores += (batch + 1) * np.cos(queries + 3 * keys)  # the copy is the function's
    return scores


def positions(q_len, kv_len):
    return np.arange(q_len)[:, None], np.arange(kv_len)


@pytest.mark.parametrize("dtype, precise", [("float32", np.float64), ("float64", np.longdouble)])
@pytest.mark.parametrize("function", [alibi, causal, by_batch])
def test_against_the_formula(function, dtype, precise):
    """The errors of all calls as one: in a small one the naive formula is exact by luck."""
    errors = Together()
    for seed, (q_len, kv_len) in enumerate([(7, 9), (1, 300), (20, 300), (130, 70)] * 4):
        inputs = random_inputs(seed, q_len=q_len, kv_len=kv_len, dtype=dtype)
        i, j = positions(q_len, kv_len)
        truth = {
            alibi: {"bias": -SLOPES[:, None, None].astype("float64") * np.abs(i - j)},
            causal: {"visible": j <= i},
            by_batch: {"bias": np.array([1, 2])[:, None, None, None] * np.cos(i + 3 * j)}}[function]
        ours = sdpa(*inputs, weights="per_head", score_mod=function)
        exact = attention(*inputs, dtype=precise, **truth)
        naive = attention(*inputs, dtype=inputs[0].dtype.type, step=1, **truth)
        for name, got, want, other in zip(("out", "weights"), ours, exact, naive):
            errors.note(name, (got - want).astype("float64"), (other - want).astype("float64"))
    errors.expect_as_exact_as_torch()


def test_between_softcap_and_masks():
    inputs, seen = random_inputs(2), []

    def look(scores, *where):
        seen.append(np.abs(scores).max())
        return scores + 100

    out = sdpa(*inputs, softcap=0.5, is_causal=True, score_mod=look)
    assert max(seen) <= 0.5
    want = sdpa(*inputs, softcap=0.5, is_causal=True)  # a shift of all that is seen
    np.testing.assert_allclose(out, want, rtol=0, atol=1e-5)


def test_blocks_cover_each_pair_of_each_head_once():
    query, key, value = random_inputs(3, q_len=50, kv_len=90)
    counts = np.zeros((2, 3, 50, 90), int)

    def count(scores, batch, head, queries, keys):
        assert scores.shape == (len(queries), keys.shape[1]) and scores.dtype == query.dtype
        counts[batch, head, queries, keys] += 1
        return scores

    expect_same_bits(sdpa(query, key, value, score_mod=count), sdpa(query, key, value))
    assert (counts == 1).all()


def test_packed_sequences_count_from_0():
    rng = np.random.default_rng(4)
    x, bounds = rng.standard_normal((12, 3, 8)).astype("float32"), np.array([0, 7, 12])
    out = polyhead.packed_attention(x, x, x, bounds, score_mod=by_batch)
    for n, (first, last) in enumerate(zip(bounds, bounds[1:])):
        one = x[first:last].swapaxes(0, 1)
        alone = sdpa(one, one, one, score_mod=lambda scores, _, *where: by_batch(scores, n, *where))
        expect_same_bits(out[first:last].swapaxes(0, 1), alone)


def test_over_a_cache_by_position():
    query, key, value = random_inputs(5, batch=1, q_len=40, kv_len=40)
    whole = sdpa(query, key, value, is_causal=True, score_mod=alibi)
    cache = polyhead.KvCache(num_kv_heads=3, head_dim=8, v_head_dim=10, page_len=32, num_pages=2)
    for part in (slice(0, 37), slice(37, 38), slice(38, 40)):
        cache.append(key[:, :, part], value[:, :, part])
        expect_same_bits(cache.attend(query[:, :, part], is_causal=True, score_mod=alibi),
                         whole[:, :, part])

    def change(scores, *where):
        cache.reset()

    with pytest.raises(ValueError, match="KvCache: changed by a score_mod"):
        cache.attend(query[:, :, 39:], score_mod=change)
    assert cache.lengths.tolist() == [40]


@pytest.mark.parametrize("threads", [1, 4])
def test_what_it_raises_is_raised_once(threads):
    inputs, calls = random_inputs(6, batch=4, q_len=200, kv_len=200), []

    def fail(scores, *where):
        calls.append(where)
        raise ZeroDivisionError("of mine")

    polyhead.set_num_threads(threads)
    with pytest.raises(ZeroDivisionError, match="^of mine$"):
        sdpa(*inputs, score_mod=fail)
    polyhead.set_num_threads(2)
    assert 1 <= len(calls) <= threads  # those that had begun
    sdpa(*inputs)


@pytest.mark.parametrize("result_of, error, words", [
    (lambda scores: None, TypeError, "score_mod: returned None; need the new scores"),
    (lambda scores: "x", ValueError,
     r"score_mod: returned shape \[\]; need that of its scores, \[\d"),
    (lambda scores: scores[:1, :1], ValueError, r"score_mod: returned shape \[1, 1\]; need"),
    (lambda scores: np.zeros((3, 1000)), ValueError,
     r"score_mod: returned shape \[3, 1000\]; need"),
    (lambda scores: [[1.0], [1.0, 2.0]], ValueError, "score_mod: returned no array; need"),
    (lambda scores: scores * 1j, TypeError, "Cannot cast")], ids=range(6))
def test_wrong_results(result_of, error, words):
    with pytest.raises(error, match=words):
        sdpa(*random_inputs(7), score_mod=lambda scores, *where: result_of(scores))


def test_wrong_functions():
    inputs = random_inputs(8)
    for wrong in (3, "alibi", np.zeros(3)):
        with pytest.raises(TypeError, match="score_mod: got .*; need a function"):
            sdpa(*inputs, score_mod=wrong)
    with pytest.raises(TypeError, match="positional argument"):
        sdpa(*inputs, score_mod=lambda scores: scores)
    with pytest.raises(ValueError, match="score_mod: given for each batch item, with 5 dimensions"):
        sdpa(*[x[None] for x in inputs], score_mod=alibi)


def test_a_block_may_be_kept():
    inputs, kept = random_inputs(9, q_len=70, kv_len=70), []

    def keep(scores, *where):
        kept.append((scores, scores.copy()))
        return scores + 1

    sdpa(*inputs, score_mod=keep)
    assert all((scores == copy + 1).all() for scores, copy in kept)


def test_the_library_may_be_called_inside():
    inputs = random_inputs(10, q_len=40, kv_len=40)

    def nested(scores, batch, head, queries, keys):
        zeros = np.zeros((1, 4), "float32")
        return scores + sdpa(zeros, zeros, zeros, score_mod=lambda block, *where: block).sum()

    expect_same_bits(sdpa(*inputs, score_mod=nested), sdpa(*inputs))


def test_threads_beside_each_other():
    inputs, wrong = random_inputs(11, q_len=60, kv_len=60), []
    want = sdpa(*inputs, score_mod=alibi)

    def attend():
        for _ in range(5):
            if not np.array_equal(sdpa(*inputs, score_mod=alibi), want):
                wrong.append(1)

    threads = [threading.Thread(target=attend) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong

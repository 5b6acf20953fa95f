"""scaled_dot_product_attention: its numbers against the formula, its options, its shapes."""

import numpy as np
import polyhead
import pytest
from contract import attention
from formula import expect_attention, expect_same_bits, random_inputs
from hypothesis import given, settings, strategies as st

sdpa = polyhead.scaled_dot_product_attention


def causal(q_len, kv_len, offset=0):
    return np.tri(q_len, kv_len, offset, dtype=bool)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", [
    {}, {"is_causal": True}, {"is_causal": True, "causal_align": "bottom_right"}, {"scale": 0.3},
    {"scale": 0.0}, {"scale": -1}], ids=str)
def test_numbers(dtype, options):
    inputs = random_inputs(1, dtype=dtype)
    ours = sdpa(*inputs, weights="per_head", **options)
    expected = {"scale": options.get("scale")}
    if options.get("is_causal"):
        expected["visible"] = causal(7, 9, 2 if "causal_align" in options else 0)
    assert ours[0].dtype == dtype
    expect_attention(ours, inputs, **expected)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_masks_of_every_shape(data):
    sizes = [data.draw(st.integers(1, 6)) for _ in range(3)]
    kv_len = data.draw(st.integers(1, 20))
    inputs = random_inputs(data.draw(st.integers(0, 99)), *sizes, kv_len, data.draw(
        st.sampled_from([1, 3, 8, 16])))
    full = (*sizes, kv_len)
    rank = data.draw(st.integers(2, 4))
    shape = tuple(size if data.draw(st.booleans()) else 1 for size in full[-rank:])
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    visible = rng.random(shape) < 0.7
    is_causal = data.draw(st.booleans())
    seen = visible & causal(*full[-2:]) if is_causal else visible
    if data.draw(st.booleans()):
        ours = sdpa(*inputs, visible, is_causal=is_causal, weights="average")
        expect_attention(ours, inputs, mean_over_heads=True, visible=seen)
    else:
        bias = rng.standard_normal(shape).astype("float32")
        ours = sdpa(*inputs, np.where(visible, bias, -np.inf), is_causal=is_causal,
                    weights="average")
        expect_attention(ours, inputs, mean_over_heads=True, visible=seen, bias=bias)


@pytest.mark.parametrize("seen_from", [
    lambda x: x[:, :, ::-1], lambda x: x[:, ::-1, :, ::-1], lambda x: x[..., ::2],
    lambda x: np.swapaxes(x.swapaxes(1, 2).copy(), 1, 2), lambda x: np.asfortranarray(x),
    lambda x: np.broadcast_to(x[:1], x.shape), lambda x: x[:, :, :3]], ids=range(7))
def test_views_are_read_in_place(seen_from):
    query, key, value = (seen_from(x) for x in random_inputs(2, q_len=9))
    mask = (np.arange(query.shape[2])[:, None] >= np.arange(key.shape[2]))[::-1, ::-1]
    expected = sdpa(query.copy(), key.copy(), value.copy(), mask.copy(), weights="per_head")
    for got, want in zip(sdpa(query, key, value, mask, weights="per_head"), expected):
        expect_same_bits(got, want)


def test_read_only_inputs():
    inputs = random_inputs(3)
    expected = sdpa(*inputs)
    for x in inputs:
        x.flags.writeable = False
    expect_same_bits(sdpa(*inputs), expected)


@pytest.mark.parametrize("shapes", [
    ((7, 8), (9, 8), (9, 4)), ((3, 7, 8), (3, 9, 8), (3, 9, 4)),
    ((1, 3, 7, 8), (2, 3, 9, 8), (2, 1, 9, 4)), ((3, 7, 8), (2, 3, 9, 8), (2, 3, 9, 4)),
    ((2, 4, 3, 7, 8), (2, 1, 3, 9, 8), (4, 3, 9, 4)),
    ((2, 1, 2, 3, 7, 8), (2, 3, 2, 3, 9, 8), (2, 3, 2, 3, 9, 4))], ids=str)
def test_leading_dimensions_broadcast(shapes):
    rng = np.random.default_rng(4)
    inputs = [rng.standard_normal(shape).astype("float32") for shape in shapes]
    leading = np.broadcast_shapes(*(shape[:-2] for shape in shapes))
    whole = [np.broadcast_to(x, (*leading, *x.shape[-2:])) for x in inputs]
    heads = leading[-1] if leading else 1
    visible = rng.random((*leading[:-1], 1, 7, 9) if leading else (7, 9)) < 0.8
    out, weights = sdpa(*inputs, visible, weights="per_head")
    flat = [x.reshape(-1, heads, *x.shape[-2:]) for x in whole]
    mask = np.broadcast_to(visible, (*leading[:-1], 1, 7, 9) if leading else (7, 9))
    flat_out, flat_weights = sdpa(*flat, mask.reshape(-1, 1, 7, 9), weights="per_head")
    expect_same_bits(out, flat_out.reshape(*leading, 7, 4))
    expect_same_bits(weights, flat_weights.reshape(*leading, 7, 9))
    average = sdpa(*inputs, visible, weights="average")[1]
    assert average.shape == (*leading[:-1], 7, 9)


def test_a_mask_of_five_dimensions():
    rng = np.random.default_rng(5)
    query = rng.standard_normal((2, 3, 4, 5, 8)).astype("float32")
    for shape in ((1, 3, 1, 5, 5), (2, 1, 4, 1, 5), (2, 3, 4, 5, 5)):
        visible = rng.random(shape) < 0.8
        whole = np.broadcast_to(visible, (2, 3, 4, 5, 5))
        for i in range(2):
            expect_same_bits(sdpa(query, query, query, visible)[i],
                             sdpa(query[i], query[i], query[i], whole[i]))


@pytest.mark.parametrize("kv_heads", [1, 2, 3, 6])
def test_grouped_heads(kv_heads):
    query, _, _ = random_inputs(6, heads=6)
    _, key, value = random_inputs(7, heads=kv_heads)
    repeated = [np.repeat(x, 6 // kv_heads, axis=1) for x in (key, value)]
    expect_same_bits(sdpa(query, key, value, enable_gqa=True), sdpa(query, *repeated))


@pytest.mark.parametrize("sizes", [(0, 3, 7, 9), (2, 0, 7, 9), (2, 3, 0, 9), (2, 3, 7, 0)], ids=str)
def test_sizes_of_zero(sizes):
    out, weights = sdpa(*random_inputs(8, *sizes), weights="per_head")
    batch, heads, q_len, kv_len = sizes
    assert out.shape == (batch, heads, q_len, 10) and weights.shape == sizes
    assert not out.any()


def test_rows_without_keys():
    query, key, value = random_inputs(9)
    value[:, :, 4:] = np.nan  # never seen
    visible = np.zeros((7, 9), bool)
    visible[1:, :4] = True
    out, weights = sdpa(query, key, value, visible, weights="per_head")
    assert not out[:, :, 0].any() and not weights[:, :, 0].any() and np.isfinite(out).all()
    out = sdpa(query, key, value, visible, empty_rows="nan")
    assert np.isnan(out[:, :, 0]).all() and np.isfinite(out[:, :, 1:]).all()


def test_dropout():
    query, key, value = random_inputs(10, q_len=64, kv_len=64)
    drop = lambda **options: sdpa(query, key, value, dropout_p=0.25, weights="per_head", **options)
    out, weights = drop(seed=1)
    kept = weights != 0
    assert 0.2 < 1 - kept.mean() < 0.3
    _, whole = attention(query, key, value)
    full, full_weights = sdpa(query, key, value, weights="per_head")
    largest = np.abs(weights / np.float32(1 / 0.75) - full_weights)[kept].max()
    assert largest <= 2 * np.finfo("float32").eps
    assert np.abs(out - weights @ value).max() < np.abs(out - full).max() / 1000
    expect_same_bits(drop(seed=1)[0], out)
    assert (drop(seed=2)[0] != out).any()
    assert (drop()[0] != drop()[0]).any()
    everything = sdpa(query, key, value, dropout_p=1.0)
    assert not everything.any()
    assert whole.shape == weights.shape
    five = sdpa(query[None].repeat(2, 0), key, value, dropout_p=0.25, seed=1)
    assert (five[0] != five[1]).any()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_leave_the_bits_alone(threads):
    inputs = random_inputs(11, q_len=130, kv_len=210)
    before = polyhead.get_num_threads()
    expected = sdpa(*inputs)
    try:
        polyhead.set_num_threads(threads)
        assert polyhead.get_num_threads() == threads
        expect_same_bits(sdpa(*inputs), expected)
    finally:
        polyhead.set_num_threads(before)

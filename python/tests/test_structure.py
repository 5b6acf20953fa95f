"""What a row sees by its position, what changes its scores, and packed batches: against the formula,
with the masks written out."""

import numpy as np
import polyhead
import pytest
from contract import attention
from error_rule import Together
from formula import expect_attention, expect_same_bits, random_inputs

sdpa, packed = polyhead.scaled_dot_product_attention, polyhead.packed_attention
RNG = np.random.default_rng
SHAPE = (2, 3, 7, 9)  # [B, H, L, S] of random_inputs


def positions(offset=0, shape=SHAPE):
    """Where the queries stand, and the keys: [L, 1], [S]."""
    return np.arange(shape[2])[:, None] + offset, np.arange(shape[3])


def seen_in(window, offset=0, shape=SHAPE):
    i, j = positions(offset, shape)
    left, right = (np.inf if keys is None else keys for keys in window)
    return (i - left <= j) & (j <= i + right)


def alibi(slopes, offset=0, shape=SHAPE):
    i, j = positions(offset, shape)
    return -slopes[..., None, None].astype("float64") * np.abs(i - j)


def eighths(rng, shape):
    """Numbers whose sums are not rounded."""
    return (rng.integers(-8, 24, shape) / 8).astype("float32")


def expect(inputs, options, **truth):
    """`truth`: what the formula is given for these options."""
    expect_attention(sdpa(*inputs, weights="per_head", **options), inputs, **truth)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("window, offset", [
    ((2, 1), 0), ((0, 0), 0), ((None, 1), 0), ((3, None), 2), ((1, 0), -3), ((-1, 2), 0),
    ((None, None), 0)], ids=str)
def test_windows(dtype, window, offset):
    inputs = random_inputs(1, dtype=dtype)
    sides = tuple(None if keys == -1 else keys for keys in window)
    expect(inputs, {"window": window, "query_offset": offset}, visible=seen_in(sides, offset))


def test_windows_end_where_the_keys_do():
    inputs = random_inputs(2)
    expect(inputs, {"window": (1, None), "is_causal": True, "causal_align": "bottom_right"},
           visible=seen_in((1, 0), 2))


@pytest.mark.parametrize("offset", [0, 2, -4, 100])
def test_causal_with_an_offset(offset):
    inputs = random_inputs(3)
    expect(inputs, {"is_causal": True, "query_offset": offset}, visible=seen_in((None, 0), offset))


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_key_lengths(dtype):
    query, key, value = random_inputs(4)
    lengths = np.array([9, 4], dtype)
    visible = (np.arange(9) < lengths[:, None])[:, None, None, :]
    value[1, :, 4:] = np.nan  # never seen
    clean = np.where(np.isnan(value), 0, value)
    ours = sdpa(query, key, value, weights="per_head", key_lengths=lengths)
    expect_attention(ours, (query, key, clean), visible=visible)
    alone = sdpa(query[1], key[1], value[1], key_lengths=np.array(4, dtype))  # without a batch
    expect_same_bits(alone, ours[0][1])
    bottom = sdpa(query, key, value, key_lengths=lengths, is_causal=True, causal_align="bottom_right")
    for n, length in enumerate(lengths):
        expect_same_bits(bottom[n], sdpa(query[n], key[n, :, :length], value[n, :, :length],
                                         is_causal=True, causal_align="bottom_right"))


@pytest.mark.parametrize("of_each", [False, True])
def test_segments(of_each):
    inputs = random_inputs(5)
    queries, keys = (RNG(6).integers(0, 3, (2, n) if of_each else n) for n in (7, 9))
    visible = queries[..., :, None] == keys[..., None, :]
    expect(inputs, {"segments": (queries, keys)}, visible=visible[:, None] if of_each else visible)


@pytest.mark.parametrize("of_each", [False, True])
def test_alibi(of_each):
    inputs = random_inputs(7, dtype="float64")
    slopes = RNG(8).random((2, 3) if of_each else 3)
    expect(inputs, {"alibi_slopes": slopes}, bias=alibi(slopes))
    expect(inputs, {"alibi_slopes": slopes, "causal_align": "bottom_right"}, bias=alibi(slopes, 2))
    expect(inputs, {"alibi_slopes": slopes, "query_offset": -1}, bias=alibi(slopes, -1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softcap_and_sinks(dtype):
    inputs = random_inputs(9, dtype=dtype)
    sinks = RNG(10).standard_normal(3).astype(dtype)
    expect(inputs, {"softcap": 0.7}, softcap=0.7)
    expect(inputs, {"sinks": sinks}, sinks=sinks)
    expect(inputs, {"softcap": 0.7, "sinks": sinks, "is_causal": True}, softcap=0.7, sinks=sinks,
           visible=seen_in((None, 0)))


def draw(rng):
    """A call with some of the options, and what the formula is given for them."""
    shape = (*rng.integers(1, 4, 2), *rng.integers(1, 21, 2))
    chosen = lambda: rng.random() < 0.5
    offset = int(rng.integers(-20, 21))
    options, truth = {}, {"visible": np.ones(shape, bool), "bias": 0.0}
    if chosen():
        options["window"] = tuple(int(rng.integers(10)) if chosen() else None for _ in range(2))
        truth["visible"] &= seen_in(options["window"], offset, shape)
    if chosen():
        options["key_lengths"] = rng.integers(0, shape[3] + 1, shape[0])
        truth["visible"] &= (np.arange(shape[3]) < options["key_lengths"][:, None])[:, None, None, :]
    if chosen():
        options["segments"] = tuple(rng.integers(0, 2, n).astype("int32") for n in shape[2:])
        truth["visible"] &= np.equal.outer(*options["segments"])
    if chosen():
        options["alibi_slopes"] = eighths(rng, shape[1])
        truth["bias"] = truth["bias"] + alibi(options["alibi_slopes"], offset, shape)
    if options.keys() & {"window", "alibi_slopes"}:
        options["query_offset"] = offset
    if chosen():
        options["softcap"] = truth["softcap"] = 1.5
    if chosen():
        options["sinks"] = truth["sinks"] = rng.standard_normal(shape[1]).astype("float32")
    if chosen():
        options["attn_mask"] = eighths(rng, shape[2:])
        truth["bias"] = truth["bias"] + options["attn_mask"]
    return random_inputs(int(rng.integers(99)), *shape), options, truth


def test_all_together():
    """The errors of all calls as one: in a small one the naive formula is exact by luck."""
    errors = Together()
    for seed in range(300):
        inputs, options, truth = draw(RNG(seed))
        ours = sdpa(*inputs, weights="per_head", **options)
        exact = attention(*inputs, dtype=np.float64, **truth)
        naive = attention(*inputs, dtype=np.float32, step=1, **truth)
        for name, got, want, other in zip(("out", "weights"), ours, exact, naive):
            errors.note(name, got - want, other - want)
    errors.expect_as_exact_as_torch()


OPTIONS = [{}, {"is_causal": True}, {"window": (2, 1)},
           {"is_causal": True, "causal_align": "bottom_right"}, {"softcap": 0.9},
           {"query_offset": 2, "alibi_slopes": RNG(0).random(4)},
           {"sinks": RNG(1).standard_normal(4), "scale": 0.3}]


@pytest.mark.parametrize("options", OPTIONS, ids=range(len(OPTIONS)))
def test_a_packed_batch_is_its_sequences(options):
    """[tokens, heads, head_dim], with fewer heads of keys."""
    starts_q, starts_k = np.array([0, 5, 5, 17, 18]), np.array([0, 9, 12, 12, 20], "int64")
    rng = RNG(11)
    query, key, value = (rng.standard_normal(shape) for shape in ((18, 4, 8), (20, 2, 8), (20, 2, 6)))
    out = packed(query, key, value, starts_q, starts_k, **options)
    assert out.shape == (18, 4, 6)
    for n in range(4):
        of_query, of_key = (slice(s[n], s[n + 1]) for s in (starts_q, starts_k))
        alone = sdpa(*(x.swapaxes(0, 1) for x in (query[of_query], key[of_key], value[of_key])),
                     enable_gqa=True, **options)
        expect_same_bits(out[of_query], alone.swapaxes(0, 1))
    same = packed(query, query, query, starts_q, **options)
    expect_same_bits(same, packed(query, query, query, starts_q, starts_q, **options))


def test_what_each_sequence_has_for_itself():
    rng = RNG(12)
    x, bounds = rng.standard_normal((12, 4, 8)), np.array([0, 7, 12], "int32")
    lengths, slopes = np.array([3, 5]), rng.random((2, 4))
    out = packed(x, x, x, bounds, key_lengths=lengths, alibi_slopes=slopes)
    for n, length in enumerate(lengths):
        one = x[bounds[n]:bounds[n + 1]].swapaxes(0, 1)
        alone = sdpa(one, one[:, :length], one[:, :length], alibi_slopes=slopes[n])
        expect_same_bits(out[bounds[n]:bounds[n + 1]], alone.swapaxes(0, 1))


def test_dropout_of_a_packed_batch():
    x, bounds = RNG(13).standard_normal((12, 4, 8)), np.array([0, 7, 12], "int32")
    drop = lambda **options: packed(x, x, x, bounds, dropout_p=0.5, **options)
    expect_same_bits(drop(seed=1), drop(seed=1))
    assert (drop(seed=1) != drop(seed=2)).any() and (drop() != drop()).any()


@pytest.mark.parametrize("options, words", [
    ({"window": (-2, 0)}, "window: got -2; must be between -1 and"),
    ({"query_offset": 0}, "query_offset: nothing compares positions; need is_causal, window or"),
    ({"causal_align": "bottom_right", "softcap": 2.0}, "causal_align='bottom_right': nothing compares"),
    ({"query_offset": 1, "causal_align": "bottom_right"}, "query_offset: got 1, with causal_align"),
    ({"query_offset": 2**62, "is_causal": True}, "offset: got 4611686018427387904"),
    ({"key_lengths": np.array([1, 10])}, "got 10; must be between 0 and kv_len = 9"),
    ({"key_lengths": np.array([1, 2, 3])}, "must be [2]"),
    ({"key_lengths": np.array([1.0, 2.0])}, "int32 or int64"),
    ({"segments": (np.zeros(7, int), np.zeros(8, int))}, "[9] or [2, 9]"),
    ({"alibi_slopes": np.zeros(2)}, "[3] or [2, 3]"),
    ({"softcap": -1.0}, "softcap: got -1; must be 0 or more"),
    ({"sinks": np.zeros(3)}, "sinks: dtype is float64"),
    ({"sinks": np.zeros(4, "float32")}, "sinks"),
], ids=str)
def test_refusals(options, words):
    with pytest.raises(ValueError) as error:
        sdpa(*random_inputs(14), **options)
    assert words in str(error.value)


def test_refusals_of_types():
    inputs = random_inputs(15)
    for options in ({"key_lengths": [1, 2]}, {"sinks": "none"}, {"window": 3}, {"window": (True, 0)},
                    {"softcap": None}):
        with pytest.raises(TypeError):
            sdpa(*inputs, **options)
    five = [x[None] for x in inputs]
    with pytest.raises(ValueError, match="at most 4 with them"):
        sdpa(*five, key_lengths=np.array([1, 2]))
    expect_same_bits(sdpa(*five, window=(2, 0))[0], sdpa(*inputs, window=(2, 0)))


@pytest.mark.parametrize("bounds, words", [
    ([0, 5], "the last is 5; must be q_len = 12"), ([1, 12], "[0] is 1; must be 0"),
    ([0, 9, 5, 12], "[2] is 5; must be at least 9"), ([], "[N + 1]")], ids=str)
def test_refusals_of_bounds(bounds, words):
    x = np.zeros((12, 2, 8), "float32")
    with pytest.raises(ValueError) as error:
        packed(x, x, x, np.array(bounds, "int64"))
    assert words in str(error.value)
    with pytest.raises(ValueError, match="packed_attention: query: shape is"):
        packed(x[0], x, x, np.array([0, 12]))
    with pytest.raises(ValueError, match="float32 or float64"):
        packed(x.astype("float16"), x, x, np.array([0, 12]))

"""Rotary positions, norms and grouped heads of MultiheadAttention, against the formula in numpy."""

import copy
import pickle

import numpy as np
import polyhead
import pytest
from error_rule import expect_as_good
from formula import expect_same_bits

Mha = polyhead.MultiheadAttention
OPTIONS = [
    {"num_kv_heads": 2}, {"head_dim": 6, "num_kv_heads": 1, "bias": False}, {"qk_norm": True},
    {"rope": {"pairs": "halves"}}, {"rope": {"pairs": "interleaved", "base": 100, "rotary_dim": 2}},
    {"qk_norm": True, "qk_norm_eps": 1e-3, "num_kv_heads": 2, "head_dim": 8,
     "rope": {"pairs": "halves", "base": 500.0, "scaling": "linear", "factor": 2.0}}]


def module_of(options):
    module = Mha(16, 4, seed=3, batch_first=True, **options)
    rng = np.random.default_rng(5)
    state = {name: value + rng.standard_normal(value.shape) / 4
             for name, value in module.state_dict().items()}
    module.load_state_dict(state)
    return module


def turned(x, rope, first, dtype):
    if rope is None:
        return x
    dim = rope["rotary_dim"]
    frequencies = rope["base"]**(-np.arange(0, dim, 2, dtype=np.longdouble) / dim) / rope["factor"]
    angles = (first + np.arange(x.shape[-2]))[:, None] * frequencies
    cos, sin = np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)
    head = x[..., :dim]
    halves = rope["pairs"] == "halves"
    a, b = (head[..., :dim // 2], head[..., dim // 2:]) if halves else (head[..., ::2], head[..., 1::2])
    pair = a * cos - b * sin, b * cos + a * sin
    head = np.concatenate(pair, -1) if halves else np.stack(pair, -1).reshape(head.shape)
    return np.concatenate((head, x[..., dim:]), -1)


def formula(module, x, first, dtype):
    state = {name: value.astype(dtype) for name, value in module.state_dict().items()}
    heads, kv_heads, dim = module.num_heads, module.num_kv_heads, module.head_dim
    sizes = np.cumsum([heads * dim, kv_heads * dim])
    if "in_proj_weight" in state:
        weights = np.split(state["in_proj_weight"], sizes)
    else:
        weights = [state[f"{part}_proj_weight"] for part in "qkv"]
    biases = np.split(state["in_proj_bias"], sizes) if module.bias else [dtype(0)] * 3
    q, k, v = ((x.astype(dtype) @ w.T + b).reshape(*x.shape[:2], -1, dim).swapaxes(1, 2)
               for w, b in zip(weights, biases))
    if module.qk_norm:
        q, k = (y / np.sqrt((y * y).mean(-1, keepdims=True) + dtype(module.qk_norm_eps)) * state[f"{part}_norm.weight"]
                for y, part in ((q, "q"), (k, "k")))
    q, k = (turned(y, module.rope, first, dtype) for y in (q, k))
    k, v = (y.repeat(heads // kv_heads, axis=1) for y in (k, v))
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(dtype(dim))
    probs = np.exp(scores - scores.max(-1, keepdims=True))
    probs /= probs.sum(-1, keepdims=True)
    joined = (probs @ v).swapaxes(1, 2).reshape(*x.shape[:2], -1)
    return joined @ state["out_proj.weight"].T + (state["out_proj.bias"] if module.bias else 0)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_numbers(options):
    module = module_of(options)
    x = np.random.default_rng(1).standard_normal((2, 7, 16)).astype("float32")
    first = 0 if module.rope is None else 11
    out, weights = module(x, x, x, query_position=first, key_position=first)
    assert weights.shape == (2, 7, 7)
    truth = formula(module, x, first, np.float64)
    expect_as_good("rope", out, truth, [formula(module, x, first, np.float32)])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_copies_pickles_and_files(options, tmp_path):
    module = module_of(options)
    x = np.random.default_rng(1).standard_normal((2, 7, 16)).astype("float32")
    module.save_safetensors(tmp_path / "mha.safetensors")
    twins = (copy.deepcopy(module), pickle.loads(pickle.dumps(module)),
             Mha.from_safetensors(tmp_path / "mha.safetensors", batch_first=True))
    for twin in twins:
        assert repr(twin) == repr(module)
        expect_same_bits(twin(x, x, x)[0], module(x, x, x)[0])


def test_what_is_not_given_is_the_default():
    module = Mha(16, 4, rope={"pairs": "halves"})
    assert module.rope == {
        "pairs": "halves", "base": 10000.0, "rotary_dim": 4, "scaling": "none", "factor": 1.0,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_length": 8192}
    assert Mha(16, 4).rope is None
    assert (Mha(16, 4).num_kv_heads, Mha(16, 4).head_dim) == (4, 4)


@pytest.mark.parametrize("make, error, words", [
    (lambda: Mha(8, 4, num_kv_heads=3), ValueError, "num_kv_heads: got 3; must be a divisor"),
    (lambda: Mha(8, 4, num_kv_heads=0), ValueError, "num_kv_heads: got 0; need at least 1"),
    (lambda: Mha(8, 4, head_dim=-1), ValueError, "head_dim: got -1"),
    (lambda: Mha(8, 4, qk_norm=True, qk_norm_eps=-1.0), ValueError, "qk_norm_eps: got -1"),
    (lambda: Mha(8, 4, rope={}), ValueError, "MultiheadAttention: rope: pairs: not said"),
    (lambda: Mha(8, 4, rope={"base": 100.0}), ValueError, "MultiheadAttention: rope: pairs: not said"),
    (lambda: Mha(8, 4, rope={"pairs": "thirds"}), ValueError,
     "rope: pairs: got 'thirds'; need 'halves' or 'interleaved'"),
    (lambda: Mha(8, 4, rope={"pairs": "halves", "theta": 1}), ValueError, "rope: got 'theta'; need"),
    (lambda: Mha(8, 4, rope={"pairs": "halves", "base": "x"}), TypeError, "rope: base: got 'x'; need a number"),
    (lambda: Mha(8, 4, rope={"pairs": "halves", "rotary_dim": 4.0}), TypeError,
     "rope: rotary_dim: got 4.0; need an int"),
    (lambda: Mha(8, 4, rope={"pairs": "halves", "scaling": "yarn"}), ValueError,
     "rope: scaling: got 'yarn'"),
    (lambda: Mha(8, 4, rope="halves"), TypeError, "rope: got str; need a dict"),
    (lambda: Mha(8, 4, rope={"pairs": "halves", 3: "x"}), TypeError,
     "^MultiheadAttention: rope: names must be strings$"),
    (lambda: Mha(8, 4, rope={"pairs": "halves", "\ud800": 1}), TypeError,
     "^MultiheadAttention: rope: names must be strings$"),
], ids=range(14))
def test_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_positions_need_rope():
    x = np.zeros((3, 8), "float32")
    with pytest.raises(ValueError, match="query_position: got 1, but the module has no rotary"):
        Mha(8, 2)(x, x, x, query_position=1)

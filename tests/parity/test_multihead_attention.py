"""`polyhead run` and the Python module against torch.nn.MultiheadAttention: random configurations of
every option."""

import numpy as np
import pytest

import contract
from case import NUM_CASES, command_answer, draw, python_answer, torch_answer
from error_rule import expect_as_good

# How far torch's own float64 answer may lie from the formula's, in roundings of float64 of the
# largest value: both sum some hundreds of terms.
ROUNDINGS = 4096


def truth_of(case):
    """(out, weights per head) of the formula in the higher precision; checked against torch's
    float64 answer wherever torch has one."""
    precise = np.float64 if case.dtype == "float32" else np.longdouble
    truth_out, truth_heads = contract.forward(case, precise)
    torch_out, torch_weights = torch_answer(case, "float64")
    expect_same_as_torch(truth_out, torch_out)
    if torch_weights is not None:
        expect_same_as_torch(case.per_head_as_asked(truth_heads), torch_weights)
    return truth_out, truth_heads


def expect_same_as_torch(formula, torchs):
    known = ~np.isnan(torchs)
    if known.any():
        difference = np.abs(formula[known] - torchs[known]).max()
        allowed = ROUNDINGS * np.finfo(np.float64).eps * max(1.0, np.abs(torchs[known]).max())
        assert difference <= allowed, f"the formula is {difference} off torch's float64 answer"


@pytest.mark.parametrize("seed", range(NUM_CASES))
def test_random_configuration(polyhead, tmp_path, seed):
    case = draw(seed)
    print(case.describe())
    truth_out, truth_heads = truth_of(case)
    out, weights = command_answer(polyhead, case, tmp_path)
    torch_out, torch_weights = torch_answer(case, case.dtype)
    naive = [contract.forward(case, np.dtype(case.dtype), step) for step in (1, -1, 0)]
    assert out.dtype == case.dtype
    expect_as_good("out", out, truth_out, [torch_out, *(naive_out for naive_out, _ in naive)])
    assert (weights is None) == (case.need_weights == "none")
    if weights is not None:
        others = [torch_weights, *(case.per_head_as_asked(heads) for _, heads in naive)]
        expect_as_good("weights", weights, case.per_head_as_asked(truth_heads), others)
    for got, want in zip(python_answer(case, tmp_path), (out, weights)):
        np.testing.assert_array_equal(got, want)


def test_every_option_is_drawn():
    """Each value of each option, and the pairs that have bitten people, at least five times."""
    cases = [draw(seed) for seed in range(NUM_CASES)]
    options = {
        "dtype": ("float32", "float64"), "bias": (True, False), "add_bias_kv": (True, False),
        "add_zero_attn": (True, False), "batch_first": (True, False), "unbatched": (True, False),
        "self_attention": (True, False), "attn_mask_kind": ("none", "2d", "3d", "4d"),
        "attn_mask_is_bool": (True, False), "padding": ("none", "bool", "float"),
        "fully_masked": (True, False), "is_causal": (True, False),
        "causal_align": ("top-left", "bottom-right"),
        "need_weights": ("none", "average", "per-head"),
        "storage": ("float32", "float64", "bfloat16", "float16"), "num_heads": (1, 3, 5, 7, 8)}
    for name, values in options.items():
        for value in values:
            assert sum(getattr(case, name) == value for case in cases) >= 5, (name, value)
    pairs = {
        "bool mask with bool padding": lambda c: c.attn_mask_kind != "none" and c.attn_mask_is_bool
        and c.padding == "bool",
        "bool mask with float padding": lambda c: c.attn_mask_kind != "none" and c.attn_mask_is_bool
        and c.padding == "float",
        "float mask with bool padding": lambda c: c.attn_mask_kind != "none"
        and not c.attn_mask_is_bool and c.padding == "bool",
        "causal with padding": lambda c: c.is_causal and c.padding != "none",
        "causal with appended columns": lambda c: c.is_causal and c.add_bias_kv,
        "separate projections": lambda c: c.kdim != c.embed_dim or c.vdim != c.embed_dim,
        "only kdim differs": lambda c: c.kdim != c.embed_dim and c.vdim == c.embed_dim,
        "L != S": lambda c: c.q_len != c.kv_len}
    for name, holds in pairs.items():
        assert sum(map(holds, cases)) >= 5, name


def test_a_row_without_keys_is_the_bias(polyhead, tmp_path):
    """The contract's answer where torch has NaN: weights 0, output out_proj.bias."""
    case = next(c for c in map(draw, range(NUM_CASES)) if c.attn_mask_kind == "2d" and c.fully_masked
                and c.bias and c.need_weights == "per-head" and not c.add_zero_attn
                and not c.add_bias_kv)
    out, weights = command_answer(polyhead, case, tmp_path)
    assert np.isnan(torch_answer(case, case.dtype)[0][:, 0]).all()
    bias = np.broadcast_to(case.state["out_proj.bias"], out[:, 0].shape)
    np.testing.assert_array_equal(out[:, 0], bias)
    assert not weights[:, :, 0].any()

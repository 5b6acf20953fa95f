"""polyhead.torch.MultiheadAttention against torch's module: random configurations of every option,
results and every gradient."""

import os

import numpy as np
import pytest

from budget import Errors
from case import draw
from module_budget import ModuleBudget
from torch_case import (OURS, TORCHS, Leaves, answers, cotangents, formula, module_of, names_of, ours,
                        rounded, torchs)

NUM_CASES = int(os.environ.get("POLYHEAD_PARITY_CASES", "1000"))
FLOAT64_LIMIT = 1e-10  # of the largest value
# Of the budget: about twice the largest use in 3000 configurations. torch's own use is as large.
ERRORS = Errors({
    "out": 0.4, "weights": 1, "d_query": 0.3, "d_key": 0.3, "d_value": 0.5, "d_padding": 0.3,
    "d_attn_mask": 0.6, "d_in_proj_weight": 0.5, "d_in_proj_bias": 1, "d_q_proj_weight": 0.3,
    "d_k_proj_weight": 0.3, "d_v_proj_weight": 0.5, "d_bias_k": 0.3, "d_bias_v": 0.4,
    "d_out_proj.weight": 0.5, "d_out_proj.bias": 1})


def expect_float64(name, got, want):
    assert got.shape == want.shape, name
    if got.size:
        assert np.abs(got - want).max() <= FLOAT64_LIMIT * max(1.0, np.abs(want).max()), name


def budget_of(case, results):
    d_out, *d_weights = (x.numpy() for x in cotangents(case, results))
    return ModuleBudget(case, d_out, d_weights[0] if d_weights else None).run()


@pytest.mark.parametrize("seed", range(NUM_CASES))
def test_random_configuration(seed):
    case = rounded(draw(seed))
    print(case.describe())
    run = lambda kind, dtype, how: answers(
        case, module_of(kind, case, dtype), Leaves(case, dtype), how)
    truth = run(TORCHS, "float64", formula)
    stock = run(TORCHS, "float64", torchs)
    names = names_of(case, module_of(TORCHS, case, "float64"), Leaves(case, "float64"))
    budget = budget_of(case, truth[:1 if case.need_weights == "none" else 2])
    has_empty_rows = not all(np.isfinite(x).all() for x in stock)
    for name, one, other in zip(names, truth, stock):  # the formula is torch's where torch has one
        expect_float64(f"budget, {name}", budget[name].value, one)
        if not has_empty_rows:
            expect_float64(f"formula, {name}", one, other)
    for name, got, want in zip(names, run(OURS, "float64", ours), truth):
        expect_float64(name, got, want)
    single = run(OURS, "float32", ours), run(TORCHS, "float32", torchs)
    for name, got, theirs in zip(names, *single):
        ERRORS.expect_within(name, got, theirs, budget[name])


def test_errors_are_torchs_on_the_whole():
    ERRORS.expect_as_exact_as_torch()


def test_views_are_drawn():
    """Tensors whose numbers are not in a row, of inputs, masks and parameters."""
    counts = {"inputs": 0, "masks": 0, "parameters": 0}
    for case in map(draw, range(min(NUM_CASES, 100))):
        leaves = Leaves(case, "float32")
        for what, tensors in (("inputs", leaves.inputs), ("masks", [leaves.attn_mask, leaves.padding]),
                              ("parameters", module_of(OURS, case, "float32").parameters())):
            counts[what] += any(x is not None and not x.is_contiguous() for x in tensors)
    assert min(counts.values()) > 20, counts


def test_fully_masked_rows_are_drawn():
    assert sum(case.fully_masked and case.attn_mask_kind != "none"
               for case in map(draw, range(NUM_CASES))) > NUM_CASES / 20

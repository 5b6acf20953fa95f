"""polyhead.torch.MultiheadAttention against torch's module: random configurations of every option,
results and every gradient."""

import functools
import os

import numpy as np
import pytest

from case import draw
from error_rule import errors, expect_as_good, finite_errors, unit_roundoff
from torch_case import OURS, TORCHS, Leaves, answers, formula, module_of, names_of, ours, torchs

NUM_CASES = int(os.environ.get("POLYHEAD_PARITY_CASES", "1000"))
FLOAT64_LIMIT = 1e-10  # of the largest value
FLOAT32_EVERY = 5  # of the configurations: the naive sums take their time


def expect_float64(name, got, want):
    assert got.shape == want.shape, name
    if got.size:
        assert np.abs(got - want).max() <= FLOAT64_LIMIT * max(1.0, np.abs(want).max()), name


@pytest.mark.parametrize("seed", range(NUM_CASES))
def test_random_configuration(seed):
    case = draw(seed)
    print(case.describe())
    run = lambda kind, dtype, how: answers(
        case, module_of(kind, case, dtype), Leaves(case, dtype), how)
    truth = run(TORCHS, "float64", formula)
    stock = run(TORCHS, "float64", torchs)
    names = names_of(case, module_of(TORCHS, case, "float64"), Leaves(case, "float64"))
    has_empty_rows = not all(np.isfinite(x).all() for x in stock)
    for name, one, other in zip(names, truth, stock):  # the formula is torch's where torch has one
        if not has_empty_rows:
            expect_float64(f"formula, {name}", one, other)
    for name, got, want in zip(names, run(OURS, "float64", ours), truth):
        expect_float64(name, got, want)
    if seed % FLOAT32_EVERY:
        return
    naive = [functools.partial(formula, step=step) for step in (1, -1, 0)]
    others = [run(TORCHS, "float32", how) for how in (torchs, *naive)]
    expect_float32(names, run(OURS, "float32", ours), truth, others)


def expect_float32(names, got, truth, others):
    """Results as everywhere. Of a gradient, often a small sum or one that cancels, the luckiest of
    four others is no measure: in a single case the limit is wide, on the average over all narrow."""
    for i, name in enumerate(names):
        theirs = [other[i] for other in others]
        if not name.startswith("d_"):
            expect_as_good(f"torch module, {name}", got[i], truth[i], theirs)
        elif got[i].size:
            expect_as_good("torch module, one gradient", got[i], truth[i], theirs, WIDE)
            worst = [finite_errors(x, truth[i]).max(initial=0) for x in theirs]
            floor = unit_roundoff(got[i].dtype) * np.abs(truth[i]).max()
            SHARES.append(errors(got[i], truth[i]).max() / (max(worst) + floor or 1))


SHARES = []  # our worst error of each gradient, over the worst of the others
WIDE = 16


def test_gradients_are_as_exact_as_torchs_on_the_average():
    assert not SHARES or np.mean(SHARES) <= 1


def test_fully_masked_rows_are_drawn():
    assert sum(case.fully_masked and case.attn_mask_kind != "none"
               for case in map(draw, range(NUM_CASES))) > NUM_CASES / 20

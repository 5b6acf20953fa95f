"""The rule itself must be able to say no."""

import numpy as np
import pytest

import error_rule
from error_rule import expect_as_good

@pytest.fixture(autouse=True)
def apart_from_the_statistics(monkeypatch):
    monkeypatch.setattr(error_rule, "RATIOS", error_rule.Ratios())


TRUTH = np.linspace(-2, 2, 24, dtype=np.float64).reshape(2, 3, 4)
ROUNDED = TRUTH.astype(np.float32)


def one_ulp_more(x, ulps=1):
    y = x.copy()
    y.flat[5] += ulps * np.spacing(np.abs(x).max())
    return y


def test_rounded_truth_passes():
    expect_as_good("rounded", ROUNDED, TRUTH, [ROUNDED])


@pytest.mark.parametrize("spoil", [
    lambda x: np.where(x > 1.9, np.nan, x), lambda x: np.where(x > 1.9, np.inf, x), lambda x: -x,
    np.zeros_like, lambda x: x[:, ::-1], lambda x: x * np.float32(1.001), lambda x: np.roll(x, 1),
    lambda x: one_ulp_more(x, 4), lambda x: np.full_like(x, np.nan), lambda x: x[:, :2]])
def test_spoilt_answer_fails(spoil):
    with pytest.raises(AssertionError):
        expect_as_good("spoilt", spoil(ROUNDED), TRUTH, [ROUNDED])


def test_a_nan_of_torch_is_no_excuse():
    torchs = ROUNDED.copy()
    torchs[0] = np.nan
    with pytest.raises(AssertionError):
        expect_as_good("nan", np.where(np.isnan(torchs), torchs, ROUNDED), TRUTH, [torchs])
    with pytest.raises(AssertionError):
        expect_as_good("off", one_ulp_more(ROUNDED, 4), TRUTH, [torchs])


def test_torchs_own_error_is_allowed_twice():
    expect_as_good("as torch", one_ulp_more(ROUNDED, 4), TRUTH, [one_ulp_more(ROUNDED, 4)])

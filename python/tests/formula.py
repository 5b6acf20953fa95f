"""How the module's answers are compared with the formula's, and inputs for both."""

import numpy as np
from contract import attention
from error_rule import expect_as_good


def expect_attention(ours, arguments, mean_over_heads=False, **options):
    """`ours`: (out, weights) of the module, float32 or float64, against the formula's."""
    precise = np.float64 if ours[0].dtype == np.float32 else np.longdouble
    truth = attention(*arguments, dtype=precise, **options)
    naive = [attention(*arguments, dtype=ours[0].dtype.type, step=step, **options)
             for step in (1, -1, 0)]
    for index, what in enumerate(("out", "weights")):
        reduce = (lambda x: x.mean(axis=-3)) if mean_over_heads and index == 1 else (lambda x: x)
        expect_as_good(what, ours[index], reduce(truth[index]), [reduce(n[index]) for n in naive])


def random_inputs(seed, batch=2, heads=3, q_len=7, kv_len=9, head_dim=8, dtype="float32"):
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.standard_normal(shape).astype(dtype)
    return (normal(batch, heads, q_len, head_dim), normal(batch, heads, kv_len, head_dim),
            normal(batch, heads, kv_len, head_dim + 2))


def expect_same_bits(got, want):
    np.testing.assert_array_equal(got, want)
    assert got.dtype == want.dtype and got.shape == want.shape

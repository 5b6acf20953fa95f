"""How far a correct computation may be from the truth, element for element: the same steps on
numbers that know their error, each adding what it carries on and what it rounds. It is the error
budget of docs/accuracy.md, in the form that src/module/training/module_backward_reference.cc has;
torch's errors are measured in it, too.

Where terms cancel (a gradient that is 0 but for rounding) the budget is that of the terms.
"""

from dataclasses import dataclass

import numpy as np

from error_rule import RATIOS, LessExact, Together

SMALLEST = 2.0**-120  # below it float32 kernels flush to 0, or round by more than their share


@dataclass
class Rounded:
    """Numbers, and how far from them a correct result may be."""
    value: np.ndarray
    error: np.ndarray

    def map(self, change):
        return Rounded(change(self.value), change(self.error))

    def size(self):
        return np.abs(self.value)


def exact(values):
    values = np.asarray(values, np.float64)
    return Rounded(values, np.zeros_like(values))


def join(parts, axis):
    return Rounded(*(np.concatenate([getattr(p, part) for p in parts], axis)
                     for part in ("value", "error")))


def split(x, sizes, axis):
    places = np.cumsum(sizes)[:-1]
    return [Rounded(*both) for both in zip(*(np.split(y, places, axis) for y in (x.value, x.error)))]


def dot(a, b, u, independent=False):
    """a [..., m, k] . b [..., k, n]. Along a row of features or scores the errors of terms have
    causes in common; from query to query and token to token they are independent."""
    sizes = a.size() @ b.size()
    if independent:
        carried = np.sqrt(a.error**2 @ b.value**2 + a.value**2 @ b.error**2 +
                          2 * (a.error * a.size()) @ (b.error * b.size()))
    else:
        carried = a.error @ b.size() + a.size() @ b.error
    return Rounded(a.value @ b.value, carried + u * (a.value.shape[-1]**0.5 + 2) * sizes)


def summed(x, axes, u):
    """Over axes that stay, with size 1; independent errors."""
    count = np.prod([x.value.shape[axis] for axis in axes], dtype=float)
    if count == 1:
        return x
    over = {"axis": tuple(axes), "keepdims": True}
    return Rounded(x.value.sum(**over), np.sqrt((x.error**2).sum(**over)) +
                   u * (count**0.5 + 2) * x.size().sum(**over))


def summed_onto(x, shape, u):
    """x summed over what `shape` broadcasts over."""
    full = (1,) * (x.value.ndim - len(shape)) + tuple(shape)
    return summed(x, [axis for axis, size in enumerate(full) if size == 1], u).map(
        lambda y: y.reshape(shape))


def probabilities(q, k, bias, scale, u):
    """softmax(scale * q . k^T + bias); -inf hides, a row that sees nothing is 0."""
    transposed = k.map(lambda y: y.swapaxes(-1, -2))
    scores = scale * (q.value @ transposed.value) + bias
    hidden = np.isneginf(scores)
    top = scores.max(-1, keepdims=True, initial=-np.inf)
    below = np.where(hidden, 0, np.where(np.isneginf(top), 0, top) - np.where(hidden, 0, scores))
    p = np.where(hidden, 0, np.exp(-below))
    p = p / np.maximum(p.sum(-1, keepdims=True), SMALLEST)
    sizes = abs(scale) * (q.size() @ transposed.size())
    own = (1 + q.value.shape[-1]**0.5) * sizes + np.where(hidden, 0, np.abs(bias)) + below + 2
    worst = np.where(p > 0, own, 0).max(-1, keepdims=True, initial=0)
    carried = abs(scale) * np.sqrt(
        q.error**2 @ transposed.value**2 + q.value**2 @ transposed.error**2)
    carried = np.expm1(carried + (p * carried).sum(-1, keepdims=True))
    error = p * (carried + u * (2 * worst + p.shape[-1]**0.5 + 4)) + SMALLEST
    return Rounded(p, np.where(hidden, 0, error))


def attention(heads, bias, scale, u):
    """(out, weights) of heads = (q, k, v), [B, H, len, D]; bias broadcasts onto [B, H, L, S]."""
    q, k, v = heads
    weights = probabilities(q, k, bias, scale, u)
    return dot(weights, v, u), weights


def attention_gradients(heads, weights, d_out, d_weights, scale, u):
    """(d_q, d_k, d_v, d_scores); d_weights exact, or 0."""
    q, k, v = heads
    p, width = weights.value, v.value.shape[-1]
    d_p = dot(d_out, v.map(lambda y: y.swapaxes(-1, -2)), u)
    sizes = d_out.size() @ v.size().swapaxes(-1, -2) + np.abs(d_weights)
    d_p = Rounded(d_p.value + d_weights, d_p.error + u * (width**0.5 + 3) * np.abs(d_weights) +
                  u * sizes)
    delta = (p * d_p.value).sum(-1, keepdims=True)  # also the product of d_out and the saved out
    delta_error = (weights.error * sizes + p * d_p.error +
                   u * (width**0.5 + 2) * p * sizes).sum(-1, keepdims=True)
    difference = d_p.value - delta
    rounding = 2 * u * (d_p.size() + np.abs(delta))
    d_scores = Rounded(p * difference, weights.error * np.abs(difference) +
                       p * (d_p.error + delta_error + rounding))
    transposed = lambda x: x.map(lambda y: y.swapaxes(-1, -2))
    d_q, d_k = dot(d_scores, k, u), dot(transposed(d_scores), q, u, independent=True)
    scaled = lambda x: Rounded(scale * x.value, abs(scale) * x.error)
    d_v = dot(transposed(weights), d_out, u, independent=True)
    return scaled(d_q), scaled(d_k), d_v, d_scores


def shares(values, budget):
    """Errors as shares of their budget, element for element."""
    assert values.shape == budget.value.shape, f"{values.shape}, truth {budget.value.shape}"
    error = np.abs(values.astype(np.float64) - budget.value)
    return np.where(np.isfinite(error), error, np.inf) / (budget.error + SMALLEST)


class Errors(Together):
    """In units of the budget; and each element within its own."""

    def __init__(self, limits):
        super().__init__()
        self.limits = limits  # name: the share of the budget that may be used

    def expect_within(self, name, ours, torchs, budget):
        if budget.value.size == 0:
            return
        used = shares(ours, budget)
        at = np.unravel_index(int(used.argmax()), used.shape)
        RATIOS.note(f"error budget of {name}", used[at] / self.limits[name])
        if not used[at] <= self.limits[name]:
            raise LessExact(
                f"{name}: {used[at]:.3g} of the budget {budget.error[at]:.3g} at "
                f"{tuple(map(int, at))}: got {ours[at]!r}, want {budget.value[at]!r}")
        self.note(name, used, shares(torchs, budget))

"""How close is close enough: no numbers, only comparisons.

Against the truth, our worst and our mean error may be at most twice the larger of torch's and a
naive implementation's in the same precision, plus a floor from rounding the answer: its largest
value, or its mean one, can be stored no more exactly. The naive one is run in three orders of
summation: in a small case a single one can be exact by luck.
"""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Ratios:
    """Our largest share of what was allowed, kept to be printed."""
    worst: dict = field(default_factory=dict)

    def note(self, what, share):
        self.worst[what] = max(self.worst.get(what, 0.0), share)


RATIOS = Ratios()


class LessExact(AssertionError):
    """An error larger than the rule allows."""


def unit_roundoff(dtype):
    return np.finfo(dtype).eps / 2


def errors(values, truth):
    """Absolute errors; a NaN or infinity that the truth does not have counts as infinite."""
    difference = np.abs(values.astype(np.longdouble) - truth.astype(np.longdouble))
    return np.where(np.isfinite(difference), difference, np.inf)


def finite_errors(values, truth):
    """Of the elements where these values are finite: torch has NaN on fully masked rows."""
    found = errors(values, truth)
    return found[np.isfinite(found)]


def expect_as_good(what, ours, truth, others, factor=2):
    """`others`: the answers of torch and of the naive formula."""
    assert ours.shape == truth.shape, f"{what}: shape {ours.shape}, truth {truth.shape}"
    if truth.size == 0:
        return
    mine = errors(ours, truth)
    for name, measure in (("worst", np.max), ("mean", np.mean)):
        found = [finite_errors(other, truth) for other in others]
        theirs = [float(measure(e)) for e in found if e.size > 0]
        floor = 2 * unit_roundoff(ours.dtype) * float(measure(np.abs(truth)))
        allowed = factor * max(theirs, default=0.0) + floor
        got = float(measure(mine))
        where = np.unravel_index(int(mine.argmax()), mine.shape)
        if not got <= allowed:
            raise LessExact(
                f"{what}: {name} error {got:.3g} where others have {theirs}, allowed {allowed:.3g}; "
                f"worst at {tuple(map(int, where))}: got {ours[where]!r}, want {truth[where]!r}")
        RATIOS.note(f"{what}, {name} error", got / allowed if allowed else got)


class Together:
    """The errors of many cases, by the tensor's name, in the unit of each: the root of the mean of
    their squares, where luck averages out, is at most twice torch's."""

    def __init__(self):
        self.squares = {}  # name: each case's mean, of ours and of torch's

    def note(self, name, ours, torchs):
        """Errors; torch's are left out where it has a NaN, on fully masked rows."""
        both = self.squares.setdefault(name, ([], []))
        both[0].append(np.mean(np.square(ours)))
        theirs = np.mean(np.square(torchs))
        if np.isfinite(theirs):
            both[1].append(theirs)

    def expect_as_exact_as_torch(self):
        for name, squares in self.squares.items():
            if min(map(len, squares)) > 0:
                ours, theirs = (np.mean(each)**0.5 for each in squares)
                RATIOS.note(f"{name}, errors of all cases", ours / (2 * theirs or 1))
                assert ours <= 2 * theirs, f"{name}: {ours:.3g}, torch {theirs:.3g}"

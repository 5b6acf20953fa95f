"""What a number of rounds proves. Standard library only; rules_test.py tests it."""

import random
import statistics
from dataclasses import dataclass

WORTH_SAYING = 1.02  # a difference below is neither win nor loss
PARITY = (0.95, 1.05)
ENOUGH_ROUNDS = 15
PROBE_DRIFT = 0.10  # the two probes of a round may differ by this share
PROBE_FLOOR = 0.60  # of the best probe: below, somebody else had the processor
RESAMPLES = 4000


@dataclass
class Round:
    """Seconds per call of both engines, and the FMA rate before and after them, GFLOP/s."""
    ours: float
    torch: float
    probe_before: float
    probe_after: float
    # Processor time, torch's / ours: does not count while a neighbour runs, but counts spinning.
    cpu_ratio: float

    @property
    def ratio(self):
        return self.torch / self.ours

    @property
    def peak(self):
        return (self.probe_before + self.probe_after) / 2


def is_quiet(one, best_probe):
    """Whether both engines of the round met the same, undisturbed processor."""
    low, high = sorted((one.probe_before, one.probe_after))
    return high - low <= PROBE_DRIFT * high and low >= PROBE_FLOOR * best_probe


def bootstrap_interval(values, share=0.95):
    """Percentile interval of the median. Seeded: the same rounds give the same interval."""
    rng = random.Random(1)
    medians = sorted(statistics.median(rng.choices(values, k=len(values)))
                     for _ in range(RESAMPLES))
    tail = (1 - share) / 2
    return medians[int(tail * RESAMPLES)], medians[int((1 - tail) * RESAMPLES) - 1]


def summarise(rounds, best_probe, flops):
    """A dictionary for the JSON file; `verdict` is that of this run alone."""
    kept = [one for one in rounds if is_quiet(one, best_probe)]
    summary = {"rounds": len(rounds), "kept": len(kept)}
    basis = kept or rounds
    ratios = [one.ratio for one in basis]
    low, high = bootstrap_interval(ratios)
    summary |= {
        "ratio": statistics.median(ratios), "interval": [low, high],
        "ours_ms": statistics.median(one.ours for one in basis) * 1e3,
        "torch_ms": statistics.median(one.torch for one in basis) * 1e3,
        "min_time_ratio": min(one.torch for one in basis) / min(one.ours for one in basis),
        "cpu_ratio": statistics.median(one.cpu_ratio for one in basis),
        "peak_gflops": statistics.median(one.peak for one in basis),
        "ours_gflops": flops / statistics.median(one.ours for one in basis) * 1e-9,
        "ours_of_peak": statistics.median(flops * 1e-9 / one.ours / one.peak for one in basis),
        "torch_of_peak": statistics.median(flops * 1e-9 / one.torch / one.peak for one in basis),
    }
    summary["verdict"] = verdict(len(kept), low, high)
    return summary


def verdict(kept, low, high):
    if kept < ENOUGH_ROUNDS:
        return "inconclusive"
    if low > WORTH_SAYING:
        return "faster"
    if high < 1 / WORTH_SAYING:
        return "slower"
    if PARITY[0] <= low and high <= PARITY[1]:
        return "parity"
    return "undecided"


def final_verdict(verdicts):
    """Of the independent runs of one cell: a loss is one that two of them show."""
    if verdicts.count("slower") >= 2:
        return "loss"
    others = [v for v in verdicts if v != "slower"]
    return others[-1] if others else "slower, once"

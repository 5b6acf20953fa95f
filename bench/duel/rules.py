"""What a number of rounds proves. Standard library only; rules_test.py tests it."""

import math
import random
import statistics
from dataclasses import dataclass, field

WORTH_SAYING = 1.02  # a difference below is neither win nor loss
PARITY = (0.95, 1.05)
ENOUGH_ROUNDS = 15
PROBE_DRIFT = 0.10  # the two probes of a round may differ by this share
PROBE_FLOOR = 0.60  # of the best probe: below, somebody else had the processor
MOST_QUEUED = 0.10  # of its slice, an engine's threads may wait for a processor
RESAMPLES = 4000


@dataclass
class Round:
    """Seconds per call of each engine, and the FMA rate before and after them, GFLOP/s. Processor
    time does not count while a neighbour runs, but counts spinning."""
    seconds: dict
    cpu_seconds: dict
    probe_before: float
    probe_after: float
    queued: dict = field(default_factory=dict)  # share of each engine's slice

    @property
    def peak(self):
        return (self.probe_before + self.probe_after) / 2


def is_quiet(one, best_probe):
    """Whether all engines of the round met the same, undisturbed processors."""
    low, high = sorted((one.probe_before, one.probe_after))
    alike = high - low <= PROBE_DRIFT * high and low >= PROBE_FLOOR * best_probe
    return alike and not crowded(one)


def crowded(one):
    """Engines whose threads queued: behind a neighbour, or behind each other on one processor
    while another was idle, which a kernel that packs threads does for tens of milliseconds."""
    return [name for name, share in one.queued.items() if share > MOST_QUEUED]


def bootstrap_interval(values, share=0.95):
    """Percentile interval of the median. Seeded: the same rounds give the same interval."""
    rng = random.Random(1)
    medians = sorted(statistics.median(rng.choices(values, k=len(values)))
                     for _ in range(RESAMPLES))
    tail = (1 - share) / 2
    return medians[int(tail * RESAMPLES)], medians[int((1 - tail) * RESAMPLES) - 1]


def summarise(rounds, best_probe, flops):
    """A dictionary for the JSON file, of the engines and of ours beside each peer. `flops`: by
    engine, in the order ours, peers; the verdicts are those of this run alone."""
    kept = [one for one in rounds if is_quiet(one, best_probe)]
    basis = kept or rounds
    ours, *peers = flops
    return {
        "rounds": len(rounds), "kept": len(kept),
        "crowded": {name: sum(name in crowded(one) for one in rounds) for name in flops},
        "peak_gflops": statistics.median(one.peak for one in basis),
        "engines": {name: alone(basis, name, flops[name]) for name in flops},
        "peers": {peer: beside(basis, ours, peer, len(kept)) for peer in peers},
    }


def alone(basis, name, flops):
    """One engine's times."""
    times = [one.seconds[name] for one in basis]
    return {"ms": statistics.median(times) * 1e3, "min_ms": min(times) * 1e3,
            "gflops": flops * 1e-9 / statistics.median(times),
            "of_peak": statistics.median(flops * 1e-9 / one.seconds[name] / one.peak
                                         for one in basis)}


def beside(basis, ours, peer, kept):
    """The peer's time divided by ours, paired by round."""
    ratios = [one.seconds[peer] / one.seconds[ours] for one in basis]
    low, high = bootstrap_interval(ratios)
    cpu_ratios = [one.cpu_seconds[peer] / max(one.cpu_seconds[ours], 1e-9) for one in basis]
    fastest = [min(one.seconds[name] for one in basis) for name in (peer, ours)]
    return {"ratio": statistics.median(ratios), "interval": [low, high],
            "min_time_ratio": fastest[0] / fastest[1], "cpu_ratio": statistics.median(cpu_ratios),
            "cpu_interval": list(bootstrap_interval(cpu_ratios)),
            "verdict": verdict(kept, low, high)}


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


def geometric_mean(ratios):
    return math.exp(statistics.fmean(math.log(ratio) for ratio in ratios))

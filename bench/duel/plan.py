"""What will be measured, and about how long that takes."""

from duel.engine import FORWARD_ONLY, PAUSE_SECONDS
from duel.rounds import SLICE_SECONDS, rounds_wanted

# Guesses: what a call reaches on average over the engines, and the time besides the rounds, for
# inputs, truth and choosing among a peer's variants.
GFLOPS = {"best": 90e9, "avx2": 70e9}
SET_UP_SECONDS = 0.7  # of each engine
SET_UP_CALLS = 8
PROBE_SECONDS = 0.006


def seconds_of(cell, isa, threads, engines, limits):
    one_call = cell.flops / (GFLOPS[isa] * threads)
    round_seconds = engines * (max(SLICE_SECONDS, one_call) + PAUSE_SECONDS) + PROBE_SECONDS
    rounds = rounds_wanted(limits[0], round_seconds)
    set_up = engines * (SET_UP_SECONDS + SET_UP_CALLS * one_call)
    return set_up + rounds * round_seconds


def players(engines, cell):
    return len(engines.keys() - FORWARD_ONLY) if cell.training else len(engines)


def text(match):
    total = sum(seconds_of(cell, isa, threads, players(match.commands(isa), cell), match.limits)
                for isa, threads in match.settings for cell in match.cells)
    lines = [f"{len(match.cells)} cells, each in {len(match.settings)} settings: "
             f"{', '.join(f'{isa} x {n} thr' for isa, n in match.settings)}"]
    for isa in dict.fromkeys(isa for isa, _ in match.settings):
        lines.append(f"  {isa}: {', '.join(match.commands(isa))}")
    lines.append(f"up to {match.limits[0]} rounds per cell; about {total / 60:.0f} minutes")
    return "\n".join(lines)

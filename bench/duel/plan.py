"""What will be measured, and about how long that takes."""

from duel.engine import PAUSE_SECONDS
from duel.rounds import CELL_SECONDS, SLICE_SECONDS, rounds_wanted

# Guesses of what a call reaches, and of the time besides the rounds: starting, inputs, truth,
# choosing variants.
GFLOPS = {"best": 80e9, "avx2": 60e9}
SET_UP_SECONDS = 1.5
PROBE_SECONDS = 0.006


def seconds_of(cell, isa, threads, engines, limits):
    one_call = cell.flops / (GFLOPS[isa] * threads)
    round_seconds = engines * (max(SLICE_SECONDS, one_call) + PAUSE_SECONDS) + PROBE_SECONDS
    rounds = min(limits[0], rounds_wanted(limits[0], round_seconds, CELL_SECONDS))
    return SET_UP_SECONDS + engines * 5 * one_call + rounds * round_seconds


def text(match):
    total = sum(seconds_of(cell, isa, threads, len(match.commands(isa)), match.limits)
                for isa, threads in match.settings for cell in match.cells)
    lines = [f"{len(match.cells)} cells, each in {len(match.settings)} settings: "
             f"{', '.join(f'{isa} x {n} thr' for isa, n in match.settings)}"]
    for isa in dict.fromkeys(isa for isa, _ in match.settings):
        lines.append(f"  {isa}: {', '.join(match.commands(isa))}")
    lines.append(f"up to {match.limits[0]} rounds per cell; about {total / 60:.0f} minutes")
    return "\n".join(lines)

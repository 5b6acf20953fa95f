"""Rounds of one cell: probe, one slice of each engine in random order, probe."""

import time

from duel.rules import Round, is_quiet

SLICE_SECONDS = 0.010
# After a slice the threads of the one that ran still spin for a while: let them go to sleep.
PAUSE_SECONDS = 0.010


class WrongAnswer(Exception):
    pass


def prepare(pair, judge, cell):
    """Both engines take the inputs; nothing is timed before both have answered rightly."""
    folder = judge.inputs(cell)
    prepared = pair.ask_both(*cell.command(folder))
    answers = {engine.name: folder / f"{engine.name}.out" for engine in pair.engines}
    first = {engine.name: engine.ask("call", answers[engine.name])["seconds"]
             for engine in pair.engines}
    if error := judge.find_error(cell, answers):
        raise WrongAnswer(error)
    return {"variant": prepared["torch"]["variant"], "first_call_ms":
            {name: seconds * 1e3 for name, seconds in first.items()},
            "worst_error": judge.worst_errors(cell, answers)}


def calls_per_slice(engine):
    seconds = min(engine.ask("slice", 2)["seconds"] / 2 for _ in range(3))
    time.sleep(PAUSE_SECONDS)
    return max(1, round(SLICE_SECONDS / seconds))


def play_round(pair, calls, rng):
    before = pair.probe()
    seconds, cpu_seconds = {}, {}
    for engine in rng.sample(pair.engines, len(pair.engines)):
        count = calls[engine.name]
        answer = engine.ask("slice", count)
        seconds[engine.name] = answer["seconds"] / count
        cpu_seconds[engine.name] = answer["cpu_seconds"] / count
        time.sleep(PAUSE_SECONDS)
    return Round(seconds["polyhead"], seconds["torch"], before, pair.probe(),
                 cpu_seconds["torch"] / max(cpu_seconds["polyhead"], 1e-9))


def play(pair, wanted, most, rng, best_probe, on_round):
    """At most `most` rounds, until `wanted` of them were undisturbed. Whether one counts is said
    by its probes alone, so stopping by their number favours nobody."""
    calls = {engine.name: calls_per_slice(engine) for engine in pair.engines}
    rounds = []
    for _ in range(most):
        rounds.append(play_round(pair, calls, rng))
        best_probe = max([best_probe, rounds[-1].probe_before, rounds[-1].probe_after])
        kept = sum(is_quiet(one, best_probe) for one in rounds)
        on_round(kept, len(rounds))
        if kept >= wanted:
            break
    return rounds, best_probe

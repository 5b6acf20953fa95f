"""Ratios of our own times, no peer needed: what a mask saves, what weights cost, what the first
forward and packing cost. On the best instruction set."""

import statistics

from duel.engine import OURS, EngineFailed, Team, our_command
from duel.rounds import answer_of, calls_per_slice, play, take
from duel.rules import bootstrap_interval, summarise

OTHER = "polyhead-other-cell"
FRESH_MODULES = 15
PACKINGS = 15


def measure(match, own):
    """Yields results. `own`: entries of grid.json by what is measured."""
    for threads in sorted({threads for isa, threads in match.settings if isa == "best"}):
        for what, entries in own.items():
            for entry in entries:
                if entry["of"].flops <= match.most_flops:
                    found = MEASURES[what](match, entry, threads)
                    yield judged(entry, threads, found)


def judged(entry, threads, found):
    """Whether the interval keeps the bound; `found`: ratio and interval."""
    low, high = found["interval"]
    held = low >= entry.get("at_least", low) and high <= entry.get("at_most", high)
    bound = ("at least {at_least}" if "at_least" in entry else "at most {at_most}").format(**entry)
    result = {"name": entry["name"], "cell": entry["of"].name, "threads": threads, "bound": bound,
              "held": held} | found
    print(line_of(result), flush=True)
    return result


def line_of(result):
    low, high = result["interval"]
    return (f"{result['name']:<34} {result['cell']:<34} {result['threads']} thr  "
            f"{result['ratio']:.2f} [{low:.2f}, {high:.2f}], wanted {result['bound']}"
            f"{'' if result['held'] else '  MISSED'}")


def median_of(ratios):
    return {"ratio": statistics.median(ratios), "interval": list(bootstrap_interval(ratios))}


def take_and_answer(engine, judge, cell):
    """Seconds of the first call. A wrong answer ends it all: its times would mean nothing."""
    folder = judge.inputs(cell)
    take(engine, cell, folder)
    seconds, outputs = answer_of(engine, judge, cell, folder)
    if wrong := judge.find_errors(cell, {engine.name: outputs}):
        raise EngineFailed(f"{cell.name}: {wrong[engine.name]}")
    return seconds


def pair(match, entry, threads):
    """The time of one cell divided by that of another, in the same rounds."""
    command = our_command(match.build)
    with Team({OURS: command, OTHER: command}, "best", threads) as team:
        for engine, cell in ((team.ours, entry["over"]), (team.engines[OTHER], entry["of"])):
            take_and_answer(engine, match.judge, cell)
        rounds, best = play(team, list(team.engines.values()), match.limits, match.rng, 0.0,
                            lambda *_: None)
    flops = {OURS: entry["over"].flops, OTHER: entry["of"].flops}
    one = summarise(rounds, best, flops)
    return {key: one["peers"][OTHER][key] for key in ("ratio", "interval")} | {"kept": one["kept"]}


def first_forward(match, entry, threads):
    """First forward of a module / a forward once it runs steadily, in a process that is warm."""
    ratios = []
    with Team({OURS: our_command(match.build)}, "best", threads) as team:
        for number in range(FRESH_MODULES + 1):
            first = take_and_answer(team.ours, match.judge, entry["of"])
            calls, _ = calls_per_slice(team.ours)
            steady = team.ours.ask("slice", calls)["seconds"] / calls
            if number > 0:
                ratios.append(first / steady)
    return median_of(ratios)


def packing(match, entry, threads):
    """Seconds to pack a module's weights / seconds to copy as many bytes."""
    words = entry["of"].words(match.judge.inputs(entry["of"])).items()
    ratios = []
    with Team({OURS: our_command(match.build)}, "best", threads) as team:
        for _ in range(PACKINGS):
            one = team.ours.ask("pack", *(f"{name}={value}" for name, value in words))
            ratios.append(one["pack_seconds"] / one["copy_seconds"])
    return median_of(ratios)


MEASURES = {"pairs": pair, "first": first_forward, "packing": packing}

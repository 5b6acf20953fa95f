"""Ratios of our own times, no peer needed: what a mask saves, what weights cost, what the first
forward and packing cost. On the best instruction set."""

import statistics

from duel.engine import OURS, Team, our_command
from duel.rounds import calls_per_slice, play, take
from duel.rules import bootstrap_interval, summarise

OTHER = "polyhead, the other cell"
FRESH_MODULES = 15
PACKINGS = 15


def measure(match, own):
    print("own ratios", flush=True)
    results = []
    for threads in sorted({threads for isa, threads in match.settings if isa == "best"}):
        for entry in own["pairs"]:
            results.append(judged(entry, threads, pair(match, entry, threads)))
        for entry in own["first"]:
            found = median_of(first_forwards(match, entry["of"], threads))
            results.append(judged(entry, threads, found))
        for entry in own["packing"]:
            results.append(judged(entry, threads, median_of(packings(match, entry, threads))))
    return results


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


def median_of(found):
    ratios = list(found)
    return {"ratio": statistics.median(ratios), "interval": list(bootstrap_interval(ratios))}


def pair(match, entry, threads):
    """The time of one cell divided by that of another, in the same rounds."""
    command = our_command(match.build)
    with Team({OURS: command, OTHER: command}, "best", threads) as team:
        for engine, cell in ((team.ours, entry["over"]), (team.engines[OTHER], entry["of"])):
            folder = match.judge.inputs(cell)
            take(engine, cell, folder)
            engine.ask("call", folder / "own")
        rounds, best = play(team, list(team.engines.values()), match.limits, match.rng, 0.0,
                            lambda *_: None)
    flops = {OURS: entry["over"].flops, OTHER: entry["of"].flops}
    one = summarise(rounds, best, flops)
    return {key: one["peers"][OTHER][key] for key in ("ratio", "interval")} | {"kept": one["kept"]}


def first_forwards(match, cell, threads):
    """First forward of a module / a forward once it runs steadily, in a process that is warm."""
    folder = match.judge.inputs(cell)
    with Team({OURS: our_command(match.build)}, "best", threads) as team:
        for number in range(FRESH_MODULES + 1):
            take(team.ours, cell, folder)
            first = team.ours.ask("call", folder / "own")["seconds"]
            calls, _ = calls_per_slice(team.ours)
            steady = team.ours.ask("slice", calls)["seconds"] / calls
            if number > 0:
                yield first / steady


def packings(match, entry, threads):
    """Seconds to pack a module's weights / seconds to copy as many bytes."""
    with Team({OURS: our_command(match.build)}, "best", threads) as team:
        words = entry["of"].words(match.judge.inputs(entry["of"])).items()
        for _ in range(PACKINGS):
            one = team.ours.ask("pack", *(f"{name}={value}" for name, value in words))
            yield one["pack_seconds"] / one["copy_seconds"]

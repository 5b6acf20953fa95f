"""Rounds of one cell: probe, one slice of each engine in random order, probe."""

from duel.engine import PAUSE_SECONDS
from duel.rules import ENOUGH_ROUNDS, Round, is_quiet

SLICE_SECONDS = 0.010
# Longer rounds are fewer, so that the grid ends in time; SPARE more are played for disturbed ones.
CELL_SECONDS = 4.0
SPARE = 1.1


def take(engine, cell, folder):
    """The reason if the engine does not offer the cell, and what it says of its choice."""
    words = [f"{name}={value}" for name, value in cell.words(folder).items()]
    return engine.ask(cell.kind, *words)


def answer_of(engine, judge, cell, folder):
    """Seconds of the first call, and its outputs."""
    prefix = folder / engine.name.replace("@", "_")
    seconds = engine.ask("call", prefix)["seconds"]
    engine.park()
    return seconds, judge.read(cell, prefix)


def prepare(team, judge, cell):
    """Every engine takes the inputs; none is timed before it has answered rightly. Returns what is
    known of the cell then, with the engines that take part, ours first."""
    folder = judge.inputs(cell)
    facts = {"variants": {}, "tried": {}, "not_offered": {}, "first_call_ms": {}}
    answers = {}
    for name, engine in team.engines.items():
        taken = take(engine, cell, folder)
        if "not_offered" in taken:
            facts["not_offered"][name] = taken["not_offered"]
            continue
        facts["variants"][name] = taken.get("variant", "")
        facts["tried"][name] = taken.get("tried", [])
        seconds, answers[name] = answer_of(engine, judge, cell, folder)
        facts["first_call_ms"][name] = seconds * 1e3
    facts["wrong"] = replace_wrong_ones(team, judge, cell, answers, facts)
    facts["worst_error"] = judge.worst_errors(cell, answers)
    return facts, [team.engines[name] for name in answers]


def replace_wrong_ones(team, judge, cell, answers, facts):
    """A peer whose fastest variant errs goes on with the next one. {engine: errors}; engines that
    are left without a right answer are taken out of `answers`."""
    errors = {}
    while wrong := judge.find_errors(cell, answers):
        for name, error in wrong.items():
            errors[name] = error
            del answers[name]
            engine = team.engines[name]
            if engine is team.ours or not facts["tried"][name]:
                continue
            if (variant := engine.ask("drop").get("variant")) is not None:
                facts["variants"][name] = variant
                answers[name] = answer_of(engine, judge, cell, judge.inputs(cell))[1]
    return errors


def calls_per_slice(engine):
    seconds = engine.ask("slice", 1)["seconds"]
    if seconds < SLICE_SECONDS:
        seconds = min(engine.ask("slice", 2)["seconds"] / 2 for _ in range(3))
    engine.park()
    return max(1, round(SLICE_SECONDS / seconds)), seconds


def play_round(team, engines, calls, rng):
    before = team.probe()
    seconds, cpu_seconds, queued = {}, {}, {}
    for engine in rng.sample(engines, len(engines)):
        count = calls[engine.name]
        answer, queued[engine.name] = engine.slice(count)
        seconds[engine.name] = answer["seconds"] / count
        cpu_seconds[engine.name] = answer["cpu_seconds"] / count
        engine.park()
    return Round(seconds, cpu_seconds, before, team.probe(), queued)


def rounds_wanted(most, round_seconds, cell_seconds=CELL_SECONDS):
    """As many as asked for, or as fit; where even enough ones do not fit, enough ones."""
    fitting = int(cell_seconds / round_seconds)
    return min(most, max(fitting, round(ENOUGH_ROUNDS * SPARE)))


def play(team, engines, limits, rng, best_probe, on_round):
    """Until so many rounds were undisturbed. Whether one counts is said by its probes alone, so
    stopping by their number favours nobody. `limits`: rounds wanted, times that at most."""
    plan = {engine.name: calls_per_slice(engine) for engine in engines}
    calls = {name: count for name, (count, _) in plan.items()}
    slices = (count * seconds + PAUSE_SECONDS for count, seconds in plan.values())
    wanted = rounds_wanted(limits[0], sum(slices))
    rounds = []
    for _ in range(wanted * limits[1]):
        rounds.append(play_round(team, engines, calls, rng))
        best_probe = max([best_probe, rounds[-1].probe_before, rounds[-1].probe_after])
        kept = sum(is_quiet(one, best_probe) for one in rounds)
        on_round(kept, wanted, len(rounds))
        if kept >= wanted:
            break
    return rounds, best_probe

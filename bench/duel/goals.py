"""What the grid aims for, and whether a report reaches it. grid.json lists the bounds."""

from duel import report as ask


def measured(report, goal, threads):
    """A geometric mean over a class of cells, or one cell's share of the FMA peak."""
    if "of_peak" in goal:
        found = ask.select(report, cell=goal["of_peak"], isa="best", threads=threads)
        if not found:
            return None
        wrong = ask.our_error(found[0]) is not None
        return 0.0 if wrong else found[0]["run"]["engines"]["polyhead"]["of_peak"]
    cells = [result for kind in goal["kinds"] for result in ask.select(
        report, kind=kind, group=goal.get("group"), isa="best", threads=threads)]
    return ask.mean_ratio(cells, goal["beside"])[0]


def name_of(goal):
    if "of_peak" in goal:
        return f"share of FMA peak, {goal['of_peak']}"
    which = f", {goal['group']}" if "group" in goal else ""
    cells = " and ".join(ask.KINDS[kind] for kind in goal["kinds"])
    return f"mean over {cells}{which}, beside {goal['beside']}"


def rows(report):
    """(name, threads, bound, text of what was measured, whether it holds)"""
    for goal in report["goals"]:
        for threads in ask.threads_of(report):
            if (value := measured(report, goal, threads)) is not None:
                yield (name_of(goal), threads, f"at least {goal['at_least']}", f"{value:.2f}",
                       value >= goal["at_least"])
    for one in report["own"]:
        low, high = one["interval"]
        yield (f"{one['name']}, {one['cell']}", one["threads"], one["bound"],
               f"{one['ratio']:.2f} [{low:.2f}, {high:.2f}]", one["held"])

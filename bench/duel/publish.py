"""Results as lines for the terminal."""

from duel.engine import OURS

WORST_FIRST = ("wrong", "loss", "slower, once", "undecided", "inconclusive", "parity", "faster")
FAILED = ("wrong", "loss")


def ratio_text(one):
    low, high = one["interval"]
    return f"{one['ratio']:.2f} [{low:.2f}, {high:.2f}]"


def lines_of(result):
    """What was just measured: ours, then one line per peer."""
    run = result["run"]
    head = f"{result['cell']} | {result['isa']}, {result['threads']} thr"
    for name, error in run["wrong"].items():
        yield f"{head}  WRONG: {error}"
    if OURS in run["wrong"]:
        return
    ours = run["engines"][OURS]
    yield (f"{head} | ours {ours['ms']:.3f} ms, {ours['of_peak']:.0%} of peak, "
           f"{run['kept']}/{run['rounds']} rounds")
    for name, one in run["peers"].items():
        cpu = f" (CPU {one['cpu_ratio']:.2f})" if result["threads"] == 1 else ""
        yield (f"    {name:<16} {run['engines'][name]['ms']:9.3f} ms  {ratio_text(one)}{cpu}  "
               f"{result['verdicts'][name]}  {run['variants'][name]}")
    for name, reason in run["not_offered"].items():
        yield f"    {name:<16} does not offer it: {reason}"


def comparisons(report):
    """(verdict, result, peer), the worst first; a cell that we got wrong is one."""
    found = []
    for result in report["results"]:
        if OURS in result["run"]["wrong"]:
            found.append(("wrong", result, None))
        found += [(verdict, result, peer) for peer, verdict in result["verdicts"].items()]
    return sorted(found, key=lambda one: WORST_FIRST.index(one[0]))


def summary_lines(report):
    verdicts = [verdict for verdict, _, _ in comparisons(report)]
    yield (f"{len(verdicts)} comparisons: "
           + ", ".join(f"{verdicts.count(v)} {v}" for v in WORST_FIRST if v in verdicts))


def has_failed(report):
    return any(verdict in FAILED for verdict, _, _ in comparisons(report))

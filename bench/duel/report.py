"""Questions to a report, the dictionary that run.py writes as JSON."""

from duel.engine import OURS, PEERS
from duel.rules import geometric_mean

WORST_FIRST = ("wrong", "loss", "slower, once", "undecided", "inconclusive", "parity", "faster")
FAILED = ("wrong", "loss")
BEST_PEER = "best peer"
KINDS = {"module": "modules", "attention": "attention alone",  # in the order of the tables
         "decode": "a decoder's step",
         "train-module": "training, modules", "train-attention": "training, attention alone"}


def beside(result, peer):
    """Ours and the peer in the last run that they played, and that run."""
    again = result.get("again", {})
    run = again if peer in again.get("peers", {}) else result["run"]
    return run["peers"][peer], run


def our_error(result):
    """What was wrong with our answer, in either run; None: it was right."""
    runs = result["run"], result.get("again", {"wrong": {}})
    return next((run["wrong"][OURS] for run in runs if OURS in run["wrong"]), None)


def comparisons(report):
    """(verdict, result, peer), the worst first; a cell that we got wrong is one."""
    found = []
    for result in report["results"]:
        if our_error(result) is not None:
            found.append(("wrong", result, None))
        found += [(verdict, result, peer) for peer, verdict in result["verdicts"].items()]

    def key(one):
        verdict, result, peer = one
        ratio = beside(result, peer)[0]["ratio"] if peer else 0.0
        return WORST_FIRST.index(verdict), ratio
    return sorted(found, key=key)


def has_failed(report):
    return any(verdict in FAILED for verdict, _, _ in comparisons(report))


def counts(report):
    verdicts = [verdict for verdict, _, _ in comparisons(report)]
    return (f"{len(verdicts)} comparisons: "
            + ", ".join(f"{verdicts.count(v)} {v}" for v in WORST_FIRST if v in verdicts))


def peers_of(report):
    """In the order of PEERS; another build of ours is none of those."""
    names = dict.fromkeys(peer for result in report["results"] for peer in result["verdicts"])
    return sorted(names, key=lambda name: list(PEERS).index(name) if name in PEERS else -1)


def mean_ratio(results, peer):
    """(geometric mean, cells) of a peer's time / ours; BEST_PEER: of each cell's fastest."""
    ratios = []
    for result in results:
        peers = result["verdicts"] if peer == BEST_PEER else {peer} & result["verdicts"].keys()
        if peers:
            ratios.append(min(beside(result, name)[0]["ratio"] for name in peers))
    return (geometric_mean(ratios) if ratios else None), len(ratios)


def select(report, **wanted):
    """Results with these values, None: any."""
    return [result for result in report["results"]
            if all(value is None or result[name] == value for name, value in wanted.items())]


def classes(report):
    """(kind, group) in the order of KINDS, group None: all of the kind."""
    groups = {}
    for result in report["results"]:
        groups.setdefault(result["kind"], {})[result["group"]] = None
    for kind in filter(groups.__contains__, KINDS):
        yield from ((kind, group) for group in (None, *groups[kind]))


def threads_of(report):
    return sorted({result["threads"] for result in report["results"]})


def isas_of(report):
    return list(dict.fromkeys(result["isa"] for result in report["results"]))


def isa_name(report, isa):
    """What "best" was on this machine."""
    for setting, engines in report["engines"].items():
        if setting.startswith(isa + ","):
            return engines[OURS]["isa"]
    return isa


def reasons(report):
    """{peer: {why it does not offer a cell, or is not counted in it: how many comparisons}}"""
    found = {}
    for result in report["results"]:
        run = result["run"]
        for peer, reason in run["not_offered"].items():
            note = found.setdefault(peer, {})
            note[f"does not offer it: {reason}"] = note.get(f"does not offer it: {reason}", 0) + 1
        for peer in run["wrong"].keys() - run.get("peers", {}).keys() - {OURS}:
            note = found.setdefault(peer, {})
            note["no right answer"] = note.get("no right answer", 0) + 1
    return found


def variants(report):
    """{peer: {variant: in how many comparisons it was the fastest}}"""
    found = {}
    for result in report["results"]:
        for peer in result["verdicts"]:
            name = result["run"]["variants"][peer]
            found.setdefault(peer, {}).setdefault(name, 0)
            found[peer][name] += 1
    return {peer: dict(sorted(names.items(), key=lambda one: -one[1]))
            for peer, names in found.items()}

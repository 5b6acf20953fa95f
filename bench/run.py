#!/usr/bin/env python3
"""Times Polyhead beside its peers, on the same processors, one at a time, in interleaved rounds.

    ./dev bench                      the frozen grid, about half an hour on an idle machine
    ./dev bench --quick              does it all work? a few rounds, nothing to conclude from
    ./dev bench --publish            and put the results into docs/performance.md and README.md
    ./dev bench --only module --beside torch --threads 1 --isa best
    ./dev bench --pass training      forward and backward alone
    ./dev bench --against main       beside another commit of ours in place of the peers

docs/performance.md describes the method. Exit code: 1 if an answer is wrong or a loss is proved.
What an interrupted run has measured is kept: --from build/bench.json shows it.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the referee's threads must not spin

from duel import against, own, plan, publish  # noqa: E402
from duel.grid import load_grid  # noqa: E402
from duel.engine import PEERS, EngineFailed  # noqa: E402
from duel.judge import Judge  # noqa: E402
from duel.machine import describe_machine  # noqa: E402
from duel.match import QUICK_ROUNDS, Match  # noqa: E402
from duel.report import has_failed  # noqa: E402
from duel.truth import ROOT  # noqa: E402


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--build", default=ROOT / "build" / "release", type=Path)
    parser.add_argument("--grid", default=ROOT / "bench" / "grid.json", type=Path)
    parser.add_argument("--rounds", default=30, type=int,
                        help="undisturbed rounds per cell; long ones get fewer")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds per cell")
    parser.add_argument("--only", "--cells", default="", help="cells whose name contains this")
    parser.add_argument("--pass", dest="passes", choices=("forward", "training"),
                        help="cells of this kind alone")
    parser.add_argument("--beside", type=lambda text: text.split(","), metavar="PEER,PEER",
                        help=f"of {', '.join(PEERS)}")
    parser.add_argument("--against", metavar="REF", help="a commit of ours in place of the peers")
    parser.add_argument("--threads", type=int, action="append")
    parser.add_argument("--isa", action="append", choices=("best", "avx2"))
    parser.add_argument("--json", default=ROOT / "build" / "bench.json", type=Path)
    parser.add_argument("--publish", action="store_true",
                        help="write docs/performance.md, .svg and the table in README.md")
    parser.add_argument("--from", dest="source", type=Path, metavar="JSON",
                        help="measure nothing, take an earlier run")
    arguments = parser.parse_args()
    if unknown := set(arguments.beside or ()) - set(PEERS):
        parser.error(f"--beside: {', '.join(sorted(unknown))}: not one of {', '.join(PEERS)}")
    return arguments


def measure(arguments, kind=Match):
    if not (arguments.build / "bench" / "bench_worker").exists():
        sys.exit(f"bench: {arguments.build}/bench/bench_worker: not there; ./dev bench builds it")
    rival = against.build(ROOT, arguments.against) if arguments.against else None
    scratch = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    grid = load_grid(arguments.grid)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        match = kind(arguments, grid, Judge(folder), rival)
        if not match.cells:
            sys.exit(f"bench: no cell's name contains \"{arguments.only}\"")
        print(plan.text(match), flush=True)
        part = any((arguments.only, arguments.passes, arguments.threads, arguments.isa,
                    arguments.beside, rival))
        report = {"machine": describe_machine(), "rounds_wanted": match.limits[0],
                  "complete": False, "against": arguments.against, "goals": grid.goals,
                  "results": match.results, "engines": match.engines, "own": []}
        try:
            match.run()
            for one in own.measure(match, {} if part else grid.own):
                report["own"].append(one)
            report["complete"] = not (part or arguments.quick)
        finally:
            save(report, arguments.json)
    return report


def save(report, path):
    """Once something was measured: an earlier run's file is not given up for nothing."""
    if report["results"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"written to {path}")


def main():
    arguments = parse_arguments()
    if arguments.source:
        report = json.loads(arguments.source.read_text(encoding="utf-8"))
    else:
        try:
            report = measure(arguments)
        except EngineFailed as error:
            sys.exit(f"bench: {error}")
        except KeyboardInterrupt:
            sys.exit("\nbench: interrupted")
    print("\n".join(publish.summary_lines(report)))
    if arguments.publish:
        publish.write(report, ROOT)
    return 1 if has_failed(report) else 0


if __name__ == "__main__":
    sys.exit(main())

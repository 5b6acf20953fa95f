#!/usr/bin/env python3
"""Times Polyhead beside PyTorch, on the same processors, one at a time, in interleaved rounds.

    ./dev bench                      the frozen grid, about 10 minutes on an idle machine
    ./dev bench --quick              does it all work? a few rounds, nothing to conclude from
    ./dev bench --publish            and put the results into docs/performance.md and README.md
    ./dev bench --only causal --threads 1 --isa best

docs/performance.md describes the method. Exit code: 1 if an answer is wrong or a loss is proved.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the referee's threads must not spin

from duel import publish  # noqa: E402
from duel.cells import ROOT, Judge, load_grid  # noqa: E402
from duel.engine import EngineFailed, Pair  # noqa: E402
from duel.machine import describe_machine  # noqa: E402
from duel.progress import Progress  # noqa: E402
from duel.rounds import WrongAnswer, play, prepare  # noqa: E402
from duel.rules import final_verdict, summarise  # noqa: E402

MOST_ROUNDS = 3  # times the wanted ones, where neighbours spoil many
QUICK_ROUNDS = 3
QUICK_FLOPS = 1e9  # --quick leaves larger cells out


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--build", default=ROOT / "build" / "release", type=Path)
    parser.add_argument("--grid", default=ROOT / "bench" / "grid.json", type=Path)
    parser.add_argument("--rounds", default=30, type=int, help="undisturbed rounds per cell")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds per cell")
    parser.add_argument("--only", default="", help="cells whose name contains this")
    parser.add_argument("--threads", type=int, action="append")
    parser.add_argument("--isa", action="append", choices=("best", "avx2"))
    parser.add_argument("--json", default=ROOT / "build" / "bench.json", type=Path)
    parser.add_argument("--publish", action="store_true",
                        help="write docs/performance.md, .svg and the table in README.md")
    parser.add_argument("--from", dest="source", type=Path, metavar="JSON",
                        help="measure nothing, take an earlier run")
    return parser.parse_args()


class Match:
    """All that is asked of one call of this program."""

    def __init__(self, arguments, judge):
        self.arguments = arguments
        self.judge = judge
        self.rng = random.Random(time.time_ns())
        grid = load_grid(arguments.grid)
        self.cells = [cell for cell in grid.cells if arguments.only in cell.name
                      and not (arguments.quick and cell.flops > QUICK_FLOPS)]
        self.settings = [(isa, threads) for isa in arguments.isa or grid.isas
                         for threads in arguments.threads or grid.threads]
        self.wanted = QUICK_ROUNDS if arguments.quick else arguments.rounds
        self.most = self.wanted * (1 if arguments.quick else MOST_ROUNDS)
        self.progress = Progress(len(self.cells) * len(self.settings))
        self.complete = not (arguments.quick or arguments.only or arguments.threads
                             or arguments.isa)
        self.best_probe = {}  # by setting
        self.engines = {}

    def run(self):
        results = []
        for setting in self.settings:
            results += self.run_setting(setting, self.cells)
        suspects = [r for r in results if r["runs"][-1].get("verdict") == "slower"]
        self.progress.total += len(suspects)
        for result in suspects:  # a loss is one that a second, independent run shows too
            cell = next(c for c in self.cells if c.name == result["cell"])
            again = self.run_setting((result["isa"], result["threads"]), [cell])
            result["runs"] += again[0]["runs"]
            result["verdict"] = final_verdict([run["verdict"] for run in result["runs"]])
        self.progress.clear()
        return results

    def run_setting(self, setting, cells):
        isa, threads = setting
        results = []
        with Pair(self.arguments.build, isa, threads) as pair:
            self.engines[f"{isa}, {threads} threads"] = pair.ask_both("hello")
            for cell in cells:
                run = self.run_cell(pair, cell, setting)
                results.append({"cell": cell.name, "isa": isa, "threads": threads, "runs": [run],
                                "verdict": final_verdict([run["verdict"]])})
                self.progress.step()
                self.progress.clear()
                print(publish.one_line(results[-1]), flush=True)
        return results

    def run_cell(self, pair, cell, setting):
        what = f"{cell.name}, {setting[0]}, {setting[1]} threads"
        self.progress.show(what)
        try:
            facts = prepare(pair, self.judge, cell)
        except WrongAnswer as error:
            return {"verdict": "wrong", "error": str(error)}

        def on_round(kept, played):
            self.progress.show(f"{what}: {kept} of {played} rounds kept", kept / self.wanted)

        rounds, best = play(pair, self.wanted, self.most, self.rng,
                            self.best_probe.get(setting, 0.0), on_round)
        self.best_probe[setting] = best
        return facts | summarise(rounds, best, cell.flops)


def measure(arguments):
    if not (arguments.build / "bench" / "bench_worker").exists():
        sys.exit(f"bench: {arguments.build}/bench/bench_worker: not there; ./dev bench builds it")
    scratch = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        match = Match(arguments, Judge(folder))
        if not match.cells:
            sys.exit(f"bench: no cell's name contains \"{arguments.only}\"")
        report = {"machine": describe_machine(), "rounds_wanted": match.wanted,
                  "complete": match.complete,
                  "results": match.run(), "engines": match.engines}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


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
            sys.exit("\nbench: interrupted, nothing written")
    print(publish.summary_line(report))
    if arguments.publish:
        publish.write(report, ROOT)
    bad = [r for r in report["results"] if r["verdict"] in ("wrong", "loss")]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""The cells of bench/grid.json through Python: polyhead.torch beside torch's fastest way.

    ./dev bench python cells [--only "module 1x16"] [--threads 1] [--rounds 30] [--quick]

By the rules of ./dev bench, in processes of their own: answers are checked first, the two take turns
between probes of the FMA rate, and what looks like a loss is measured again. All cells: --only "".
Exit code 1: a wrong answer, or torch is faster in a cell.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "bench"))

import run  # noqa: E402
from duel import match, publish, tables  # noqa: E402
from duel.engine import OURS, peer_command  # noqa: E402
from duel.report import comparisons, counts, has_failed  # noqa: E402


class ThroughPython(match.Match):
    def commands(self, isa):
        worker = [sys.executable, str(Path(__file__).with_name("worker.py")), str(self.build)]
        return {OURS: worker, "torch": peer_command("torch")}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--build", default=ROOT / "build/release", type=Path)
    parser.add_argument("--only", default="module", help="cells whose name contains this")
    parser.add_argument("--threads", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=30, help="undisturbed ones per cell")
    parser.add_argument("--quick", action="store_true", help="does it all work? proves nothing")
    parser.set_defaults(grid=ROOT / "bench/grid.json", json=ROOT / "build/bench-python.json",
                        isa=["best"], beside=["torch"], passes=None, against=None)
    return parser.parse_args()


def main():
    report = run.measure(parse_arguments(), ThroughPython)
    print()
    print("\n".join(tables.details(report)))
    print("\n".join(publish.summary_lines(report)))
    proved = all(verdict in ("faster", "parity") for verdict, _, _ in comparisons(report))
    state = "MISSED" if has_failed(report) else "reached" if proved else "open"
    print(f"{state:<8} no cell slower than torch's fastest way: {counts(report)}")
    return 1 if has_failed(report) else 0


if __name__ == "__main__":
    sys.exit(main())

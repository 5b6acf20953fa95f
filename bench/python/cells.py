#!/usr/bin/env python3
"""The cells of bench/grid.json through Python: polyhead.torch beside torch's fastest way.

    build/venv-parity/bin/python bench/python/cells.py [--threads 1] [--only "module 1x16"]

Both in this process, by turns. `./dev bench` compares the C++ library, in processes of their own, by
stricter rules. Exit code 1: torch is faster in a cell.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "bench"), str(ROOT / "bench/peers")]

import polyhead.torch  # noqa: E402
import torch  # noqa: E402
from duel.grid import load_grid  # noqa: E402
from serving import Words, ranked  # noqa: E402
from torch_cells import AttentionCell, ModuleCell, Timed, way  # noqa: E402
from torch_training import Step, learning, module_in_training  # noqa: E402
from torch_worker import BEST  # noqa: E402

ROUNDS = 15
SECONDS = 0.05  # of a turn


class OurAttention(AttentionCell):
    def attend(self, *operands):
        return polyhead.torch.scaled_dot_product_attention(
            *operands, is_causal=self.words.mask == "causal")


def ours(kind, words):
    """The cell's Variant."""
    if kind == "module":
        cell = ModuleCell(words)
        polyhead.torch.convert(cell.mha)
        return Timed(cell.with_flags(), way)
    if kind == "train-module":
        cell, *known = module_in_training(words)
        polyhead.torch.convert(cell.mha)
        return Step(cell.with_flags(), learning, *known)
    cell = OurAttention(words)

    def call():
        return cell.heads_outer(cell.attend(*map(cell.heads_outer, cell.operands.values())))
    if kind == "attention":
        return Timed(call, way)
    with torch.inference_mode(False):
        leaves = {name: x.clone().requires_grad_() for name, x in cell.operands.items()}
        cell.operands = leaves
        return Step(call, learning, leaves, [cell.read("d_out", words.q_len).clone()])


def medians(variants):
    """Of the seconds of a call, and of the ratio of the first to the second."""
    calls = [max(1, round(SECONDS / variant.timed(2)["seconds"] * 2)) for variant in variants]
    rounds = []
    for _ in range(ROUNDS):
        turns = [v.timed(n)["seconds"] / n for v, n in zip(variants, calls)]
        rounds.append([*turns, turns[0] / turns[1]])
    return [statistics.median(column) for column in zip(*rounds)]


def measure(cell):
    """(seconds of torch, of ours, ratio, what torch did)"""
    with tempfile.TemporaryDirectory() as folder:
        cell.write_inputs(Path(folder))
        words = Words(f"{k}={v}" for k, v in cell.words(folder).items())
        theirs = BEST[cell.kind](words)
        best = ranked(theirs)[0]
        with torch.inference_mode(not cell.training):
            return *medians([theirs[best], ours(cell.kind, words)]), best


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="cells whose name contains this")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{arguments.threads} threads\n| cell | torch | polyhead | ratio | torch's way |")
    print("|---|---|---|---|---|")
    least = float("inf")
    for cell in load_grid(ROOT / "bench/grid.json").cells:
        if arguments.only not in f"{cell.kind} {cell.name}":
            continue
        with torch.inference_mode():
            stock, own, ratio, best = measure(cell)
        print(f"| {cell.name} | {stock * 1e3:.3f} ms | {own * 1e3:.3f} ms | {ratio:.2f} | {best} |",
              flush=True)
        least = min(least, ratio)
    print(f"least ratio: {least:.2f}")
    return 0 if least >= 1 else 1


if __name__ == "__main__":
    sys.exit(main())

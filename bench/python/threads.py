#!/usr/bin/env python3
"""Two libraries on the same cores: torch's products in turn with our attention.

    ./dev bench python threads [--threads 2] [--own-pool]

For each pair of sizes both are timed alone, and then in turn; the last column is what company costs.
--own-pool: the library on threads of its own, not on torch's. Exit code 1: more than a tenth.
"""

import argparse
import statistics
import sys
import time

import torch
from polyhead import _core

from aims import Aims

ALLOWED = 1.1
ROUNDS = 25
SECONDS = 0.1  # of each timing


def seconds(calls, repeat):
    start = time.perf_counter()
    for _ in range(repeat):
        for call in calls:
            call()
    return (time.perf_counter() - start) / repeat


def cost_of_company(calls):
    """Medians, in seconds: each alone, all in turn; and of the ratio of the latter to the sum."""
    repeat = max(3, round(SECONDS / seconds(calls, 3)))
    rounds = []
    for _ in range(ROUNDS):
        alone = [seconds([call], repeat) for call in calls]
        together = seconds(calls, repeat)
        rounds.append([*alone, together, together / sum(alone)])
    return [statistics.median(column) for column in zip(*rounds)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--own-pool", action="store_true")
    arguments = parser.parse_args()
    if arguments.own_pool:
        _core.lend_openmp_of = lambda path: False
    import polyhead.torch  # lends torch's threads
    torch.set_num_threads(arguments.threads)
    print(f"{arguments.threads} threads\n| torch matmul | our attention | alone | alone | in turn | of the sum |")
    print("|---|---|---|---|---|---|")
    aims = Aims()
    for size, length in ((64, 32), (128, 64), (256, 128), (512, 256), (1024, 512)):
        a, b = torch.randn(2, size, size)
        query, key, value = torch.randn(3, 1, 8, length, 64)
        times = cost_of_company([
            lambda: a @ b, lambda: polyhead.torch.scaled_dot_product_attention(query, key, value)])
        one, other, together = (f"{t * 1e3:.3f} ms" for t in times[:3])
        print(f"| {size} x {size} | 8 heads of {length} x 64 | {one} | {other} | {together} "
              f"| {times[3]:.2f} |", flush=True)
        aims.at_most(f"in turn / alone, {size} x {size}", times[3], ALLOWED)
    return aims.close()


if __name__ == "__main__":
    with torch.no_grad():
        sys.exit(main())

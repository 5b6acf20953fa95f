#!/usr/bin/env python3
"""What Python adds to a call, L = 16, one thread: beside call_cost.cc, which does the same in C++.

    ./dev bench python overhead [build/release]

A process of either kind in turn, since where its pages come to lie is a twentieth of a large
module's time. In each: the shortest of many groups of calls, in microseconds. What is added: the
median of the pairs, and their range. Exit code 1: it is more than is allowed.
"""

import collections
import statistics
import subprocess
import sys
import time
from pathlib import Path

import polyhead
import polyhead.torch
import torch

from aims import Aims

ROOT = Path(__file__).resolve().parents[2]
LEN, HEADS, PAIRS = 16, 8, 9
ALLOWED = {"numpy": 15, "torch, no_grad": 30, "torch, with grad": 60}


def shortest(call, groups=1000, calls=5):
    least = float("inf")
    for _ in range(groups):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        least = min(least, (time.perf_counter() - start) / calls)
    return least * 1e6


def training(module, x, d_out):
    leaves = [x, *module.parameters()]
    return lambda: torch.autograd.grad(module(x, x, x, need_weights=False)[0], leaves, d_out)


def cases():
    """(name in call_cost.cc, kind in ALLOWED, torch's own call or None, ours)"""
    x = torch.randn(1, HEADS, LEN, 64)
    array = x.numpy()
    yield "attention", "numpy", None, lambda: polyhead.scaled_dot_product_attention(array, array, array)
    yield ("attention", "torch, no_grad",
           lambda: torch.nn.functional.scaled_dot_product_attention(x, x, x),
           lambda: polyhead.torch.scaled_dot_product_attention(x, x, x))
    for width in (64, 512):
        x = torch.randn(1, LEN, width)
        d_out, array, name = torch.randn_like(x), x.numpy(), f"module {width}"
        modules = [kind(width, HEADS, batch_first=True).eval() for kind in
                   (torch.nn.MultiheadAttention, polyhead.torch.MultiheadAttention)]
        alone = polyhead.MultiheadAttention(width, HEADS, batch_first=True)
        yield name, "numpy", None, lambda: alone(array, array, array, need_weights=False)
        with torch.no_grad():
            yield (name, "torch, no_grad",
                   *(lambda m=m: m(x, x, x, need_weights=False) for m in modules))
        leaf = x.clone().requires_grad_()
        yield f"{name} training", "torch, with grad", *(training(m, leaf, d_out) for m in modules)


def print_costs():
    torch.set_num_threads(1)
    polyhead.set_num_threads(1)
    for name, kind, theirs, ours in cases():
        print(name, kind, "ours", shortest(ours), sep="|")
        if theirs is not None:
            print(name, kind, "torch", shortest(theirs), sep="|")


def printed_by(*command):
    """[(what is before the number, the number)]"""
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    lines = run.stdout.splitlines()
    return [(name, float(cost)) for name, _, cost in (line.rpartition("|") for line in lines)]


def measured(build):
    """{what: [microseconds of each pair]}"""
    found = collections.defaultdict(list)
    for pair in range(PAIRS):
        print(f"\rpair {pair + 1} of {PAIRS}", end="", file=sys.stderr, flush=True)
        for command in ([build / "bench/call_cost"], [sys.executable, __file__, "--once"]):
            for name, cost in printed_by(*command):
                found[name].append(cost)
    print(file=sys.stderr)
    return found


def main():
    if sys.argv[1:] == ["--once"]:
        print_costs()
        return 0
    costs = measured(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build/release")
    print("| call | through | C++ | Python | added | torch's own |\n|---|---|---|---|---|---|")
    aims = Aims()
    for what in [what for what in costs if what.endswith("|ours")]:
        name, kind, _ = what.split("|")
        added = sorted(ours - cpp for ours, cpp in zip(costs[what], costs[name]))
        cpp, ours = statistics.median(costs[name]), statistics.median(costs[what])
        theirs = costs.get(f"{name}|{kind}|torch")
        own = f"{statistics.median(theirs):.0f}" if theirs else ""
        middle = statistics.median(added)
        print(f"| {name} | {kind} | {cpp:.1f} | {ours:.1f} | "
              f"{middle:.1f} ({added[0]:.1f} to {added[-1]:.1f}) | {own} |")
        aims.at_most(f"added to {name}, {kind}", middle, ALLOWED[kind], " us")
    return aims.close()


if __name__ == "__main__":
    sys.exit(main())

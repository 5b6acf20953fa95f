#!/usr/bin/env python3
"""What Python adds to a call, L = 16, one thread: beside call_cost.cc, which does the same in C++.

    ./dev bench python overhead [build/release]

Times are the shortest of many groups of calls, in microseconds. Exit code 1: more is added than
is allowed.
"""

import subprocess
import sys
import time
from pathlib import Path

import polyhead
import polyhead.torch
import torch

from aims import Aims

ROOT = Path(__file__).resolve().parents[2]
LEN, HEADS = 16, 8
ALLOWED = {"numpy": 15, "torch, no_grad": 30, "torch, with grad": 60}


def shortest(call, groups=4000, calls=5):
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


def main():
    torch.set_num_threads(1)
    polyhead.set_num_threads(1)
    build = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build/release"
    lines = subprocess.run([build / "bench/call_cost"], capture_output=True, text=True, check=True)
    in_cpp = {name: float(cost) for name, cost in
              (line.rsplit(" ", 1) for line in lines.stdout.splitlines())}
    print("| call | through | C++ | Python | added | torch's own |\n|---|---|---|---|---|---|")
    aims = Aims()
    for name, kind, theirs, ours in cases():
        cost = shortest(ours)
        added = cost - in_cpp[name]
        own = "" if theirs is None else f"{shortest(theirs):.0f}"
        print(f"| {name} | {kind} | {in_cpp[name]:.1f} | {cost:.1f} | {added:.1f} | {own} |")
        aims.at_most(f"added to {name}, {kind}", added, ALLOWED[kind], " us")
    return aims.close()


if __name__ == "__main__":
    sys.exit(main())

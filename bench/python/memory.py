#!/usr/bin/env python3
"""How much memory attention takes on a long sequence, beside torch's own.

    ./dev bench python memory [LEN = 4096]

Each in a process of its own: the largest resident set during the call, less that after a call on a
few tokens. The scores of 8 heads take 512 MiB at 4096.
"""

import re
import subprocess
import sys
from pathlib import Path

from aims import Aims

WIDTH, HEADS = 512, 8
WHO = ("torch", "polyhead")
CALLS = ("eval", "eval, weights", "training", "attention, training")
# Of ours at 4096, MiB: [1, L, E] takes 8, one head's scores 64. A module keeps q, k, v and the heads'
# outputs, in training their gradients, too.
ALLOWED = {"eval": 64, "training": 128, "attention, training": 96}


def resident_mib():
    """The largest so far. Not getrusage's, which counts what the parent held when it started us."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024


def call_of(who, call):
    """A function of the length."""
    import polyhead.torch
    import torch
    torch.set_num_threads(2)
    names = polyhead.torch if who == "polyhead" else torch.nn
    if call.startswith("attention"):
        attend = (polyhead.torch if who == "polyhead" else
                  torch.nn.functional).scaled_dot_product_attention
        return lambda length: attend(
            *torch.randn(3, 1, HEADS, length, WIDTH // HEADS).requires_grad_()).sum().backward()
    module = names.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    if call == "training":
        def train(length):
            x = torch.randn(1, length, WIDTH, requires_grad=True)
            module(x, x, x, need_weights=False)[0].sum().backward()
        return train

    def evaluate(length):
        x = torch.randn(1, length, WIDTH)
        with torch.no_grad():
            module.eval()(x, x, x, need_weights=call != "eval")
    return evaluate


def measure_here(who, call, length):
    run = call_of(who, call)
    run(16)
    before = resident_mib()
    run(length)
    return resident_mib() - before


def measure(who, call, length=4096):
    """MiB, in a process of its own."""
    done = subprocess.run([sys.executable, __file__, who, call, str(length)], capture_output=True,
                          text=True, check=True)
    return float(done.stdout)


def main():
    if len(sys.argv) == 4:
        print(measure_here(sys.argv[1], sys.argv[2], int(sys.argv[3])))
        return 0
    length = int(sys.argv[1]) if len(sys.argv) > 1 else 4096
    print(f"{length} tokens, {HEADS} heads, width {WIDTH}, MiB\n| | {' | '.join(WHO)} |\n|---|---|---|")
    aims = Aims()
    for call in CALLS:
        theirs, ours = (measure(who, call, length) for who in WHO)
        print(f"| {call} | {theirs:.0f} | {ours:.0f} |")
        if length == 4096 and call in ALLOWED:
            aims.at_most(call, ours, ALLOWED[call], " MiB")
    return aims.close()


if __name__ == "__main__":
    sys.exit(main())

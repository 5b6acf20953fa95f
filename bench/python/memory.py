#!/usr/bin/env python3
"""How much memory attention takes on a long sequence, beside torch's own.

    build/venv-parity/bin/python bench/python/memory.py [LEN = 4096]

Each in a process of its own: the largest resident set during the call, less that after a call on a
few tokens. The scores of 8 heads take 512 MiB at 4096.
"""

import resource
import subprocess
import sys

WIDTH, HEADS = 512, 8
WHO = ("torch", "polyhead")
CALLS = ("eval", "eval, weights", "training", "attention, training")


def resident_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


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
        return
    length = int(sys.argv[1]) if len(sys.argv) > 1 else 4096
    print(f"{length} tokens, {HEADS} heads, width {WIDTH}, MiB\n| | {' | '.join(WHO)} |\n|---|---|---|")
    for call in CALLS:
        print(f"| {call} | {' | '.join(f'{measure(who, call, length):.0f}' for who in WHO)} |")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Calls that leave work out, and ALiBi by a function of one's own beside torch's flex_attention.

    ./dev bench python structure [build/release] [THREADS = 1] [ROUNDS = 9]

What structure.cc times in pairs, and how long torch's compiled kernel takes for the
same ALiBi, in a process of its own after it. On one thread it is the processor's time. Exit code 1:
something costs more than it should.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from aims import Aims

ROOT = Path(__file__).resolve().parents[2]
HEADS, LEN, DIM = 8, 2048, 64  # as in structure.cc


def milliseconds(call, clock):
    start = clock()
    call()
    return (clock() - start) * 1e3


def flex(causal, rounds, clock):
    """Milliseconds of torch's kernel for ALiBi, once its answer is right."""
    query, key, value = torch.randn(3, 1, HEADS, LEN, DIM)
    slopes = torch.exp2(-torch.arange(1.0, HEADS + 1))

    def alibi(score, _batch, head, i, j):
        return score - slopes[head] * (i - j).abs()

    block_mask = None
    if causal:
        block_mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, LEN, LEN, device="cpu")
    compiled = torch.compile(flex_attention)
    call = lambda: compiled(query, key, value, score_mod=alibi, block_mask=block_mask)  # noqa: E731
    torch.testing.assert_close(call(), truth(query, key, value, slopes, causal))
    call()
    return statistics.median(milliseconds(call, clock) for _ in range(rounds))


def truth(query, key, value, slopes, causal):
    query, key, value = query.double(), key.double(), value.double()
    place = torch.arange(LEN)
    scores = query @ key.mT * DIM**-0.5
    scores -= slopes.double()[:, None, None] * (place[:, None] - place).abs()
    if causal:
        scores.masked_fill_(place[:, None] < place, -torch.inf)
    return (scores.softmax(-1) @ value).float()


def ours(build, threads, rounds):
    """name -> (milliseconds of the one, of the other, median ratio)"""
    done = subprocess.run([build / "bench/structure", str(threads), str(rounds)],
                          stdout=subprocess.PIPE, text=True, check=True)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    return {name: tuple(map(float, numbers)) for name, *numbers in lines}


def main():
    build = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build/release"
    threads = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 9
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    found = ours(build, threads, rounds)
    print(f"{threads} thread(s), {rounds} rounds, float32, {HEADS} heads of {DIM}\n")
    print("| call | ms | beside | ms | ratio |\n|---|---|---|---|---|")
    beside = {"packed": "each sequence alone", "packed, causal": "each sequence alone",
              "causal, window of 256": "the window", "score_mod": "Mask::alibi",
              "score_mod, causal": "Mask::alibi"}
    for name, (one, other, ratio) in found.items():
        print(f"| {name} | {one:.2f} | {beside[name]} | {other:.2f} | {ratio:.3f} |")
    aims = Aims()
    for name, causal in (("score_mod", False), ("score_mod, causal", True)):
        theirs = flex(causal, rounds, clock)
        one = found[name][0]
        print(f"| {name} | {one:.2f} | torch {torch.__version__} flex_attention | {theirs:.2f} "
              f"| {one / theirs:.3f} |", flush=True)
        aims.at_most(f"{name} / Mask::alibi", found[name][2], 1.1)
        aims.at_most(f"{name} / flex_attention", one / theirs, 1)
    for name in ("packed", "packed, causal"):
        aims.at_most(f"{name} / each sequence alone", found[name][2], 1.1)
    aims.at_least("causal / window of 256, L = 8192", found["causal, window of 256"][2], 10)
    return aims.close()


if __name__ == "__main__":
    with torch.no_grad():
        sys.exit(main())

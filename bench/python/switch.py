#!/usr/bin/env python3
"""Before and after polyhead.torch.convert(model): the table of docs/torch.md.

    ./dev bench python switch [--publish]

nn.TransformerEncoder of 6 layers, width 512, 8 heads, batch 8 x 128, two threads; memory of one
attention module on one sequence of 4096 tokens. --publish puts the table into the page. Exit code 1:
a number is not smaller after.
"""

import argparse
import copy
import statistics
import sys
from pathlib import Path

import encoder
import memory
import polyhead.torch
import torch
from torch import nn

from aims import Aims

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "bench"))

from duel import machine, publish, tables  # noqa: E402

PAGE = ROOT / "docs/torch.md"
MARKS = ("<!-- switch: begin, written by ./dev bench python switch --publish -->",
         "<!-- switch: end -->")


def times(width, steps, rounds):
    """(what, before, after), ms"""
    runs = encoder.curves(width, steps)[:2]  # not that in float64
    yield "a step of training", *(1e3 * statistics.median(run.seconds) for run in runs)
    yield "eval", *(1e3 * seconds for seconds in encoder.eval_seconds(width, rounds))


def memories(length):
    """(what, before, after), MiB"""
    for call in ("eval", "training"):
        yield f"memory of attention, {call}", *(memory.measure(who, call, length) for who in memory.WHO)


def items_with_nan(model, width):
    """In eval, of 8 items, the first whole, the others with padding on the left, under a causal mask:
    a position that is no padding sees itself, so its answer is a number."""
    length = 16
    real = torch.arange(length) >= 2 * torch.arange(8)[:, None]  # [B, L]
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    with torch.no_grad():
        out = model.eval()(torch.randn(8, length, width), mask=future, src_key_padding_mask=~real)
    return sum(item[known].isnan().any().item() for item, known in zip(out, real))


def gradients_with_nan(attention, width):
    """How many of 4 parameters' gradients, where one item is all padding; the loss does not see it."""
    x = torch.randn(2, 8, width)
    padding = torch.tensor([[False] * 8, [True] * 8])
    attention(x, x, x, key_padding_mask=padding)[0][0].square().sum().backward()
    return sum(p.grad.isnan().any().item() for p in attention.parameters())


def counts_of_nan(width):
    """(what, before, after)"""
    torch.manual_seed(0)
    for what, model, count in (
            ("items with NaN, of 8: padding on the left, causal mask, eval", encoder.encoder(width),
             items_with_nan),
            ("gradients with NaN, of 4: an item is all padding, weights are returned",
             nn.MultiheadAttention(width, 8, batch_first=True), gradients_with_nan)):
        converted = polyhead.torch.convert(copy.deepcopy(model))
        yield what, count(model, width), count(converted, width)


def rows(width=512, steps=20, rounds=30, length=4096):
    """(what, before, after, unit)"""
    for found, unit in ((times(width, steps, rounds), " ms"), (memories(length), " MiB"),
                        (counts_of_nan(width), "")):
        for row in found:
            yield *row, unit


def block(found):
    """As it stands in the page."""
    yield f"{tables.machine_text({'machine': machine.describe_machine()})}; two threads.\n"
    yield from tables.header("", "before", "after")
    for what, before, after, unit in found:
        yield tables.row(what, f"{before:.0f}{unit}", f"{after:.0f}{unit}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--publish", action="store_true", help="into docs/torch.md")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    found = list(rows())
    lines = list(block(found))
    print("\n".join(lines))
    if arguments.publish:
        publish.replace_block(PAGE, lines, MARKS)
    aims = Aims()
    for what, before, after, unit in found:
        aims.at_most(what, after, before, unit)
    return aims.close()


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Before and after polyhead.torch.convert(model): the table of docs/torch.md.

    build/venv-parity/bin/python bench/python/switch.py

nn.TransformerEncoder of 6 layers, width 512, 8 heads, batch 8 x 128, two threads; memory of one
attention module on one sequence of 4096 tokens.
"""

import copy
import statistics

import encoder
import memory
import polyhead.torch
import torch


def gradients_with_nan(model, width):
    """Of a batch with an item that is all padding: how many parameters get a NaN."""
    x = torch.randn(2, 8, width)
    padding = torch.tensor([[False] * 8, [True] * 8])
    model.train()(x, src_key_padding_mask=padding)[0].square().mean().backward()
    found = [p.grad.isnan().any().item() for p in model.parameters()]
    return f"{sum(found)} of {len(found)}"


def rows(width=512, steps=10, rounds=20, length=4096):
    """(what, before, after)"""
    runs = encoder.curves(width, steps)
    yield "a step of training", *(f"{statistics.median(r.seconds) * 1e3:.0f} ms" for r in runs)
    yield "eval", *(f"{s * 1e3:.0f} ms" for s in encoder.eval_seconds(width, rounds))
    for what, call in (("memory, eval", "eval"), ("memory, training", "training")):
        yield what, *(f"{memory.measure(who, call, length):.0f} MiB" for who in memory.WHO)
    stock = encoder.encoder(width)
    yield ("parameters whose gradient is NaN after an item that is all padding",
           gradients_with_nan(copy.deepcopy(stock), width),
           gradients_with_nan(polyhead.torch.convert(stock), width))


def main():
    torch.set_num_threads(2)
    print("| | before | after |\n|---|---|---|")
    for row in rows():
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()

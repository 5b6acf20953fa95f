#!/usr/bin/env python3
"""torch.nn.TransformerEncoder before and after convert(): training and eval.

    ./dev bench python encoder [--steps 50] [--threads 2] [--width 512]

6 layers, 8 heads, batch 8 x 128. Both models train side by side, a step of one and a step of the
other, so that what else runs on the machine takes from both. torch's own in float64 says how far from the truth float32 takes each
curve. Exit code 1: ours is further from it than twice torch's distance, or slower.
"""

import argparse
import copy
import math
import statistics
import sys
import time

import polyhead.torch
import torch
from torch import nn

from aims import Aims

LAYERS, HEADS, BATCH, LENGTH = 6, 8, 8, 128


def encoder(width, dtype=torch.float32):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(width, HEADS, 4 * width, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, LAYERS).to(dtype)


class Training:
    """One model's run; each step's loss and seconds."""

    def __init__(self, model, x, target):
        dtype = next(model.parameters()).dtype
        self.model, self.x, self.target = model.train(), x.to(dtype), target.to(dtype)
        self.optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        self.losses, self.seconds = [], []

    def step(self):
        start = time.perf_counter()
        loss = (self.model(self.x) - self.target).square().mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.seconds.append(time.perf_counter() - start)
        self.losses.append(loss.item())


def curves(width, steps, length=LENGTH):
    """Runs of torch's encoder, of the converted one, and of torch's in float64."""
    stock = encoder(width)
    x, target = torch.randn(2, BATCH, length, width)
    runs = [Training(*run) for run in (
        (copy.deepcopy(stock), x, target), (polyhead.torch.convert(stock), x, target),
        (encoder(width, torch.float64), x, target))]
    for _ in range(steps):
        for run in runs:
            run.step()
    return runs


def distances(stock, ours, precise):
    """How far from float64's curve float32 took torch's and ours: the root of the mean square."""
    return (math.sqrt(statistics.fmean((a - b) ** 2 for a, b in zip(run.losses, precise.losses)))
            for run in (stock, ours))


def eval_seconds(width, rounds=30):
    stock = encoder(width).eval()
    models = [stock, polyhead.torch.convert(copy.deepcopy(stock))]
    x = torch.randn(BATCH, LENGTH, width)
    found = [[], []]
    with torch.no_grad():
        for _ in range(rounds):
            for model, times in zip(models, found):
                start = time.perf_counter()
                model(x)
                times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in found]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--width", type=int, default=512)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    stock, ours, precise = curves(arguments.width, arguments.steps)
    theirs, mine = distances(stock, ours, precise)
    print(f"loss of torch {stock.losses[0]:.6f} to {stock.losses[-1]:.6f}, of ours "
          f"{ours.losses[0]:.6f} to {ours.losses[-1]:.6f}; from torch's in float64 "
          f"{theirs:.2g} and {mine:.2g}, root of the mean square")
    print("| | torch | polyhead | ratio |\n|---|---|---|---|")
    aims = Aims()
    aims.at_most("distance of the loss curve from float64's, twice torch's allowed", mine, 2 * theirs)
    pairs = {"a step of training": [statistics.median(run.seconds) for run in (stock, ours)],
             "eval": eval_seconds(arguments.width)}
    for name, (theirs, mine) in pairs.items():
        print(f"| {name} | {theirs * 1e3:.1f} ms | {mine * 1e3:.1f} ms | {theirs / mine:.2f} |")
        aims.at_least(f"torch's time / ours, {name}", theirs / mine, 1)
    return aims.close()


if __name__ == "__main__":
    sys.exit(main())

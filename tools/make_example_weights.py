#!/usr/bin/env python3
"""Trains the layer that examples/ load, and writes it with what torch 2.13 answers.

The task: each position repeats the vector of the position before it, which a causal layer can do by
attending there. Usage: python tools/make_example_weights.py, with torch==2.13.0.
"""

import pathlib

import torch
from safetensors.torch import save_file

TARGET = pathlib.Path(__file__).resolve().parent.parent / "examples" / "data"
BATCH, LENGTH, EMBED, HEADS = 2, 5, 64, 8


def words(batch, position):
    """Random words with the position's own vector in the second half."""
    half = EMBED // 2
    return torch.cat([torch.randn(batch, LENGTH, half), position.expand(batch, -1, -1)], dim=2)


def main():
    torch.manual_seed(0)
    position = torch.randn(LENGTH, EMBED // 2)
    layer = torch.nn.MultiheadAttention(EMBED, HEADS, batch_first=True)
    optimizer = torch.optim.Adam(layer.parameters(), lr=2e-3)
    future = torch.ones(LENGTH, LENGTH).triu(1).bool()
    for step in range(600):
        x = words(64, position)
        out, _ = layer(x, x, x, attn_mask=future, need_weights=False)
        loss = (out[:, 1:, :EMBED // 2] - x[:, :-1, :EMBED // 2]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"loss after {step + 1} steps: {loss.item():.4f}")

    x = words(BATCH, position)
    padding = torch.zeros(BATCH, LENGTH, dtype=torch.bool)
    padding[1, 3:] = True
    with torch.no_grad():
        out, weights = layer(x, x, x, key_padding_mask=padding, attn_mask=future,
                             average_attn_weights=False)
    save_file(layer.state_dict(), TARGET / "layer.safetensors", {"num_heads": str(HEADS)})
    save_file({"x": x, "padding": padding, "out": out.contiguous(),
               "weights": weights},
              TARGET / "answer.safetensors")


if __name__ == "__main__":
    main()

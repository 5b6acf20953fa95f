"""The model of examples/train in torch: from the same parameters, on the same data, by the same
optimiser it must have the same losses, and not be faster."""

import os
import subprocess
import time

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

STEPS, TIMED_STEPS, ROUNDS = 200, 40, 3
LARGEST_DIFFERENCE = 0.005  # of the loss
HEADS, LAYERS, NO_TARGET = 4, 2, -100


class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, HEADS, batch_first=True)

    def forward(self, x, hidden):
        y = self.norm(x)
        # Without weights: torch's fused kernel.
        return x + self.attention(y, y, y, attn_mask=hidden, is_causal=True, need_weights=False)[0]


class Model(nn.Module):
    def __init__(self, start):
        super().__init__()
        (vocabulary, width), (length, _) = start["tokens.weight"].shape, start["positions.weight"].shape
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.layers = nn.ModuleList(Layer(width) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)
        self.hidden = nn.Transformer.generate_square_subsequent_mask(length)
        self.load_state_dict(start)

    def forward(self, tokens):
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        for layer in self.layers:
            x = layer(x, self.hidden)
        return self.head(self.norm(x))


def optimizer_of(model):
    decays = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": decays, "weight_decay": 0.01}, {"params": others, "weight_decay": 0}]
    return torch.optim.AdamW(groups, lr=3e-3, fused=True)


def train_in_torch(folder, threads=1):
    """(losses, seconds of each step)"""
    state = safetensors.torch.load_file(folder / "start.safetensors")
    model = Model({n: t for n, t in state.items() if not n.startswith("adamw.")})
    optimizer = optimizer_of(model)
    losses, seconds = [], []
    torch.set_num_threads(threads)
    try:
        for tokens, targets in zip(*(torch.from_numpy(np.load(folder / f"{name}.npy"))
                                     for name in ("tokens", "targets"))):
            begin = time.perf_counter()
            optimizer.zero_grad()
            logits = model(tokens)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(),
                                               ignore_index=NO_TARGET)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
            seconds.append(time.perf_counter() - begin)
    finally:
        torch.set_num_threads(1)
    return np.array(losses), np.array(seconds)


def train_in_polyhead(build, folder, steps, threads=1):
    folder.mkdir(exist_ok=True)
    result = subprocess.run([build / "tests/parity/train_curve", folder, str(steps)], text=True,
                            env=os.environ | {"POLYHEAD_NUM_THREADS": str(threads)},
                            capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    return np.load(folder / "losses.npy"), np.load(folder / "seconds.npy")


def test_the_losses_are_torchs(build, tmp_path):
    ours, _ = train_in_polyhead(build, tmp_path / "run", STEPS)
    torchs, _ = train_in_torch(tmp_path / "run")
    difference = np.abs(ours / torchs - 1)
    print(f"\nlosses of {STEPS} steps: {torchs[0]:.4f} to {torchs[-1]:.4f} in torch, to "
          f"{ours[-1]:.4f} in Polyhead; at most {100 * difference.max():.4f} % apart")
    assert torchs[-1] < 0.95 * torchs[0], "it must have learned something"
    assert difference.max() <= LARGEST_DIFFERENCE, int(difference.argmax())


@pytest.mark.parametrize("threads", [1, 2])
def test_a_step_is_no_slower_than_torchs(build, tmp_path, threads):
    if threads > os.cpu_count():
        pytest.skip("fewer CPUs")
    ours, torchs = [], []
    for _ in range(ROUNDS):  # in turn: what disturbs one disturbs the other
        ours.append(np.median(train_in_polyhead(build, tmp_path / "run", TIMED_STEPS, threads)[1]))
        torchs.append(np.median(train_in_torch(tmp_path / "run", threads)[1]))
    print(f"\n{threads} thread(s): {1000 * min(ours):.2f} ms a step, torch {1000 * min(torchs):.2f}")
    assert min(ours) <= min(torchs)

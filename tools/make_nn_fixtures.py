#!/usr/bin/env python3
"""Writes tests/data/nn_fixtures.safetensors: float64 answers of torch 2.13 for polyhead::nn.

Each case is a set of tensors CASE/NAME: inputs, parameters, d_y (what is fed to the backward), and
what torch computes. Usage: python tools/make_nn_fixtures.py, with torch==2.13.0.
"""

import pathlib

import torch
from safetensors.torch import save_file
from torch.nn import functional as F

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = ROOT / "tests" / "data" / "nn_fixtures.safetensors"
DOUBLE = torch.float64
tensors = {}


def keep(case, **named):
    for name, tensor in named.items():
        tensors[f"{case}/{name}"] = torch.as_tensor(tensor).detach().contiguous().clone()


def number(*shape):
    return torch.randn(*shape, dtype=DOUBLE)


def trained(*shape):
    return number(*shape).requires_grad_()


def function_case(case, function, x, **parameters):
    """y, and the gradients of x and the parameters for a random d_y."""
    y = function(x, **parameters)
    d_y = number(*y.shape)
    y.backward(d_y)
    gradients = {f"d_{name}": each.grad for name, each in parameters.items()}
    keep(case, x=x, y=y, d_y=d_y, d_x=x.grad, **parameters, **gradients)


def layers():
    function_case("linear", F.linear, trained(2, 3, 5), weight=trained(4, 5), bias=trained(4))
    function_case("layer_norm", lambda x, weight, bias: F.layer_norm(x, (21,), weight, bias, 1e-3),
                  trained(2, 3, 21), weight=trained(21), bias=trained(21))
    points = torch.cat([torch.linspace(-9, 9, 55, dtype=DOUBLE), torch.tensor([0.0, 1e-9, -30.0])])
    function_case("gelu", F.gelu, points.requires_grad_())
    function_case("relu", F.relu, (torch.arange(9, dtype=DOUBLE) - 4).requires_grad_())
    weight, ids = trained(7, 3), torch.tensor([[1, 6, 1], [0, 1, 2]])
    y = F.embedding(ids, weight)
    d_y = number(*y.shape)
    y.backward(d_y)
    keep("embedding", weight=weight, ids=ids, y=y, d_y=d_y, d_weight=weight.grad)


def losses():
    for case, scale in (("cross_entropy", 1), ("cross_entropy_peaked", 40)):
        logits = (scale * number(2, 5, 19)).requires_grad_()
        targets = torch.randint(0, 19, (2, 5))
        targets[0, 1] = targets[1, 4] = -100
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        keep(case, logits=logits, targets=targets, loss=loss, d_logits=logits.grad)


def optimizer():
    """Four steps of AdamW on two tensors, the second without decay; the norm is clipped to 1.5."""
    weight, bias = trained(3, 4), trained(4)
    keep("adamw", weight=weight, bias=bias)
    adamw = torch.optim.AdamW([{"params": [weight], "weight_decay": 0.2},
                               {"params": [bias], "weight_decay": 0}],
                              lr=0.05, betas=(0.8, 0.95), eps=1e-6)
    for step in range(4):
        weight.grad, bias.grad = 3 ** (step - 2) * number(3, 4), number(4) / 2
        keep(f"adamw/{step}", d_weight=weight.grad, d_bias=bias.grad)
        norm = torch.nn.utils.clip_grad_norm_([weight, bias], 1.5)
        keep(f"adamw/{step}", norm=norm)
        adamw.step()
        keep(f"adamw/{step}", weight=weight, bias=bias)


def main():
    torch.manual_seed(7)
    torch.set_num_threads(1)
    layers()
    losses()
    optimizer()
    save_file(tensors, TARGET)
    print(f"{TARGET.relative_to(ROOT)}: {len(tensors)} tensors, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()

"""What a graph keeps between forward and backward, where a program takes charge of it: activation
checkpointing, hooks of saved tensors."""

import re
from pathlib import Path

import polyhead.torch
import pytest
import torch
from polyhead.torch import scaled_dot_product_attention
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

E, H = 64, 4


def module_and_x(length, dtype=torch.float32):
    torch.manual_seed(8)
    module = polyhead.torch.MultiheadAttention(E, H, batch_first=True, dtype=dtype)
    return module, torch.randn(4, length, E, dtype=dtype, requires_grad=True)


def attend_to_heads(x):
    heads = x.unflatten(-1, (H, -1)).transpose(1, 2)
    return scaled_dot_product_attention(heads, heads, heads).transpose(1, 2).flatten(2)


def resident_mib():
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


@pytest.mark.parametrize("kind", ["module", "attention"])
def test_a_checkpoint_keeps_only_what_it_was_given(kind):
    """A layer's result is half a MiB; what its backward reads is several."""
    layers = 24
    module, x = module_and_x(512)
    layer = (lambda y: module(y, y, y, need_weights=False)[0]) if kind == "module" \
        else attend_to_heads
    checkpoint(layer, x, use_reentrant=False).sum().backward()
    before, y = resident_mib(), x
    for _ in range(layers):
        y = checkpoint(layer, y, use_reentrant=False)
    grown = resident_mib() - before
    y.sum().backward()
    print(f"{kind}: {grown:.1f} MiB in {layers} layers")
    assert grown < 1.5 * layers


def gradients_of(run, leaves):
    return torch.autograd.grad(run().square().sum(), leaves)


@pytest.mark.parametrize("kind", ["module", "attention"])
@pytest.mark.parametrize("around", ["checkpoint", "save_on_cpu", "hooks"])
def test_the_gradients_are_the_same(kind, around):
    module, x = module_and_x(16, torch.float64)
    leaves = [x, *module.parameters()] if kind == "module" else [x]
    layer = (lambda y: module(y, y, y)[0]) if kind == "module" else attend_to_heads
    want = gradients_of(lambda: layer(x), leaves)

    def run():
        if around == "checkpoint":
            return checkpoint(layer, x, use_reentrant=False)
        with save_on_cpu() if around == "save_on_cpu" else saved_tensors_hooks(
                torch.clone, torch.clone):
            return layer(x)

    assert all(map(torch.allclose, gradients_of(run, leaves), want))


def test_hooks_see_all_that_is_kept():
    """With zeros in place of what they were given, no gradient is left."""
    module, x = module_and_x(16)
    with saved_tensors_hooks(lambda t: t, torch.zeros_like):
        out, _ = module(x, x, x)
    assert not torch.autograd.grad(out.square().sum(), x)[0].any()

"""Tensors whose change of sign torch has put off, as of the imaginary part of a conjugate."""

import polyhead.torch
import pytest
import torch
from polyhead.torch import scaled_dot_product_attention

B, L, E, H = 2, 6, 12, 3


def negative(x):
    """The same numbers; in memory they have the other sign."""
    given = torch._neg_view(-x.detach())
    assert given.is_neg() and torch.equal(given, x)
    return given


def module_call():
    torch.manual_seed(6)
    module = polyhead.torch.MultiheadAttention(E, H, batch_first=True)
    tensors = {name: torch.randn(B, L, E) for name in ("query", "key", "value")}
    tensors["key_padding_mask"] = torch.randn(B, L)
    tensors["attn_mask"] = torch.randn(L, L)
    return module, tensors


def answers(module, tensors, d_results=None):
    leaves = {name: x.detach().requires_grad_() for name, x in tensors.items()}
    results = module(**leaves)
    d_results = [torch.ones_like(x) for x in results] if d_results is None else d_results
    return [*results, *torch.autograd.grad(
        results, [*leaves.values(), *module.parameters()], d_results)]


def same(got, want):
    return all(map(torch.equal, got, want))


@pytest.mark.parametrize("name", ["query", "key", "value", "key_padding_mask", "attn_mask"])
def test_of_the_module(name):
    module, tensors = module_call()
    want = answers(module, tensors)
    tensors[name] = negative(tensors[name])
    assert same(answers(module, tensors), want)
    with torch.no_grad():
        assert same(module(**tensors), want[:2])


@pytest.mark.parametrize("name", [n for n, _ in module_call()[0].named_parameters()])
def test_of_its_parameters(name):
    module, tensors = module_call()
    want = answers(module, tensors)
    of, _, short = name.rpartition(".")
    owner = module.get_submodule(of)
    setattr(owner, short, torch.nn.Parameter(negative(getattr(owner, short))))
    assert same(answers(module, tensors), want)


@pytest.mark.parametrize("which", [0, 1])
def test_of_the_gradients_that_come_in(which):
    module, tensors = module_call()
    d_results = [torch.randn(B, L, E), torch.randn(B, L, L)]
    want = answers(module, tensors, d_results)
    d_results[which] = negative(d_results[which])
    assert same(answers(module, tensors, d_results), want)


def attention_answers(operands, d_results):
    leaves = [x.detach().requires_grad_() for x in operands]
    results = scaled_dot_product_attention(*leaves[:4], sinks=leaves[4], weights="per_head")
    return [*results, *torch.autograd.grad(results, leaves, d_results)]


@pytest.mark.parametrize("which", range(7))
def test_of_attention(which):
    torch.manual_seed(7)
    operands = [*(torch.randn(B, H, L, 4) for _ in range(3)), torch.randn(L, L), torch.randn(H)]
    d_results = [torch.randn(B, H, L, 4), torch.randn(B, H, L, L)]
    want = attention_answers(operands, d_results)
    to = operands if which < 5 else d_results
    to[which % 5] = negative(to[which % 5])
    assert same(attention_answers(operands, d_results), want)


def test_as_a_program_makes_them():
    x = torch.fft.fft(torch.randn(B, L, E)).conj().imag
    assert x.is_neg()
    module, _ = module_call()
    assert torch.equal(module(x, x, x)[0], module(*[x.resolve_neg()] * 3)[0])

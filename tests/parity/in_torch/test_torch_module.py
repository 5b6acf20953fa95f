"""polyhead.torch inside torch: construction, pickling, hooks, errors, what torch gets wrong."""

import copy
import pickle

import numpy as np
import polyhead.torch
import pytest
import torch
from torch import nn

OPTIONS = [{}, {"bias": False}, {"add_bias_kv": True}, {"add_zero_attn": True}, {"kdim": 5},
           {"kdim": 5, "vdim": 7, "bias": False, "add_bias_kv": True},
           {"batch_first": True, "dropout": 0.1, "dtype": torch.float64}]


def pair(embed_dim=16, num_heads=4, **options):
    """torch's module and ours from one state of the generator."""
    made = []
    for kind in (nn.MultiheadAttention, polyhead.torch.MultiheadAttention):
        torch.manual_seed(3)
        made.append(kind(embed_dim, num_heads, **options))
    return made


@pytest.mark.parametrize("options", OPTIONS)
def test_construction(options):
    theirs, ours = pair(**options)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]), name
    assert torch.rand(1) == torch.rand(1, generator=generator_after(options))
    assert repr(ours) == repr(theirs)
    for name in ("embed_dim", "num_heads", "kdim", "vdim", "head_dim", "dropout", "batch_first",
                 "add_zero_attn", "_qkv_same_embed_dim", "training"):
        assert getattr(ours, name) == getattr(theirs, name)
    ours.load_state_dict(theirs.state_dict())


def generator_after(options):
    torch.manual_seed(3)
    nn.MultiheadAttention(16, 4, **options)
    generator = torch.Generator()
    generator.set_state(torch.get_rng_state())
    return generator


@pytest.mark.parametrize("arguments, error", [((0, 1), ValueError), ((8, 3), AssertionError)])
def test_constructor_errors(arguments, error):
    messages = []
    for kind in (nn.MultiheadAttention, polyhead.torch.MultiheadAttention):
        with pytest.raises(error) as refusal:
            kind(*arguments)
        messages.append(str(refusal.value))
    assert messages[0] == messages[1]


def test_copies_compute_the_same():
    _, module = pair(batch_first=True)
    x = torch.randn(2, 5, 16)
    out = module(x, x, x)[0]
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert type(twin) is polyhead.torch.MultiheadAttention
        assert torch.equal(twin(x, x, x)[0], out)
        with torch.no_grad():
            twin.out_proj.bias.add_(1)
        assert not torch.equal(twin(x, x, x)[0], out)
    assert torch.equal(module(x, x, x)[0], out)
    double = copy.deepcopy(module).double()
    assert torch.allclose(double(*[x.double()] * 3)[0].float(), out, atol=np.finfo("f").eps * 16)


def test_one_path():
    """The same bits with and without weights, gradients, train, other batch items, copies of x."""
    _, module = pair(batch_first=True, bias=False)
    x = torch.randn(3, 9, 16)
    out = module(x, x, x)[0]
    with torch.no_grad():
        assert torch.equal(module(x, x, x, need_weights=False)[0], out)
        assert torch.equal(module.eval()(x, x, x)[0], out)
        assert torch.equal(module(x, x.clone(), x.clone())[0], out)
        assert torch.equal(module(x[1:2], x[1:2], x[1:2])[0], out[1:2])
        assert torch.equal(module(x[1], x[1], x[1])[0], out[1])
    assert out.is_contiguous()


def write_in_place(p):
    with torch.no_grad():
        p.mul_(0.5)


def write_through_data(p):
    p.data.mul_(0.5)


def write_by_numpy(p):
    p.detach().numpy()[...] *= 0.5


def replace_data(p):
    p.data = p.data * 0.5


@pytest.mark.parametrize("write", [write_in_place, write_through_data, write_by_numpy, replace_data])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_parameters_are_followed(write, mode):
    theirs, ours = pair(batch_first=True)
    x = torch.randn(2, 5, 16)
    for name, parameter in ours.named_parameters():
        with mode():
            before = ours(x, x, x)[0]
        write(parameter)
        write(theirs.get_parameter(name))
        with mode():
            out, want = ours(x, x, x)[0], theirs(x, x, x)[0]
        assert torch.allclose(out, want, atol=1e-5), name
        assert not parameter.any() or not torch.equal(out, before), name


def test_a_module_made_under_inference_mode():
    """Its parameters have no count of writes."""
    with torch.inference_mode():
        theirs, ours = pair(64, 8, batch_first=True)
        x = torch.randn(2, 5, 64)
        for factor in (1, 2):
            for module in (theirs, ours):
                for parameter in module.parameters():
                    parameter.mul_(factor)
            assert torch.allclose(theirs(x, x, x)[0], ours(x, x, x)[0], atol=1e-4)


def test_training_steps_follow_torchs():
    curves = []
    for module in pair(batch_first=True, dtype=torch.float64):
        torch.manual_seed(0)
        x, target = torch.randn(2, 4, 7, 16, dtype=torch.float64)
        optimiser = torch.optim.AdamW(module.parameters(), lr=0.01)
        losses = []
        for _ in range(30):
            loss = (module(x, x, x)[0] - target).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        curves.append(losses)
    np.testing.assert_allclose(*curves, rtol=1e-10)
    assert curves[0][-1] < 0.8 * curves[0][0]


def test_two_calls_before_their_backward():
    """With other parameters in between, as functional_call gives them."""
    _, module = pair(batch_first=True, dtype=torch.float64)
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    halves = {name: (p / 2).detach().requires_grad_() for name, p in module.named_parameters()}
    first = module(x, x, x)[0]
    second = torch.func.functional_call(module, halves, (x, x, x))[0]
    gradients = torch.autograd.grad(first.sum(), list(module.parameters()))
    theirs = nn.MultiheadAttention(16, 4, batch_first=True, dtype=torch.float64)
    theirs.load_state_dict(module.state_dict())
    want = torch.autograd.grad(theirs(x, x, x)[0].sum(), list(theirs.parameters()))
    for got, wanted in zip(gradients, want):
        assert torch.allclose(got, wanted)
    assert all(d is not None for d in torch.autograd.grad(second.sum(), list(halves.values())))


def test_backward_twice_and_what_forbids_it():
    _, module = pair(batch_first=True)
    x = torch.randn(2, 5, 16, requires_grad=True)
    loss = module(x, x, x)[0].sum()
    loss.backward(retain_graph=True)
    first = x.grad.clone()
    loss.backward()
    assert torch.equal(x.grad, 2 * first)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()
    loss = module(x, x, x)[0].sum()
    with torch.no_grad():
        module.in_proj_weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    d_x, = torch.autograd.grad(module(x, x, x)[0].sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives are not implemented"):
        d_x.sum().backward()


def test_gradients_of_masks_of_another_precision():
    """float32 in a float64 module: as of the same masks in float64, rounded."""
    _, module = pair(batch_first=True, dtype=torch.float64)
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    mask, padding = torch.randn(5, 5), torch.randn(2, 5)
    found = []
    for dtype in (torch.float64, torch.float32):
        masks = [each.to(dtype).requires_grad_() for each in (mask, padding)]
        out, _ = module(x, x, x, attn_mask=masks[0], key_padding_mask=masks[1])
        found.append(torch.autograd.grad(out.square().sum(), masks))
    for want, got in zip(*found):
        assert got.dtype == torch.float32 and torch.equal(got, want.float())


def test_dropout():
    _, module = pair(batch_first=True, dropout=0.5)
    x = torch.randn(2, 50, 16)
    torch.manual_seed(1)
    out, weights = module(x, x, x, average_attn_weights=False)
    torch.manual_seed(1)
    assert torch.equal(module(x, x, x, need_weights=False)[0], out)
    assert 0.4 < (weights == 0).double().mean() < 0.6
    assert not torch.equal(module(x, x, x)[0], out)
    assert torch.equal(module.eval()(x, x, x)[0], module(x, x, x)[0])
    for p, kinds in ((2.0, (ValueError, RuntimeError)), (-0.5, (ValueError, RuntimeError))):
        module.train().dropout = p
        for need_weights, kind in zip((True, False), kinds):
            with pytest.raises(kind, match="dropout probability has to be between 0 and 1, but got"):
                module(x, x, x, need_weights=need_weights)
    module.dropout = 1.0
    assert torch.equal(module(x, x, x)[0], module.out_proj.bias.expand(2, 50, 16))

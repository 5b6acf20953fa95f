"""convert and revert: torch's models with our attention inside."""

import copy
import io
import sys
from pathlib import Path

import numpy as np
import polyhead.torch
import pytest
import torch
from polyhead.torch import convert, revert
from torch import nn
from torch.nn.utils import prune

from error_rule import unit_roundoff

sys.path.append(str(Path(__file__).resolve().parents[3] / "bench/python"))

import encoder as bench_encoder  # noqa: E402

WIDTH, HEADS = 32, 4


def encoder(**options):
    torch.manual_seed(5)
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 64, dropout=0.0, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 3, nn.LayerNorm(WIDTH))


def inputs(dtype=torch.float32):
    torch.manual_seed(6)
    padding = torch.arange(9)[None] >= torch.tensor([9, 5, 1])[:, None]
    return torch.randn(3, 9, WIDTH, dtype=dtype), padding


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("masked", ["none", "padding", "causal"])
def test_encoder(train, grad, norm_first, masked):
    stock = encoder(norm_first=norm_first).double().train(train)
    ours = convert(copy.deepcopy(stock))
    x, padding = inputs(torch.float64)
    causal = nn.Transformer.generate_square_subsequent_mask(9, dtype=torch.float64)
    options = {"none": {}, "padding": {"src_key_padding_mask": padding},
               "causal": {"mask": causal, "is_causal": True}}[masked]
    with torch.set_grad_enabled(grad):
        want, got = stock(x, **options), ours(x, **options)
    visible = ~padding if masked == "padding" else torch.ones_like(padding)
    assert torch.allclose(got[visible], want[visible])  # torch's padded positions vary by its path
    assert torch.equal(got, ours.train(not train)(x, **options))


def test_subclasses_of_others_stay():
    class Theirs(nn.MultiheadAttention):
        pass
    assert type(convert(Theirs(WIDTH, HEADS))) is Theirs


def test_the_layers_own_fast_path_is_not_taken():
    model = convert(encoder()).eval()
    assert sum(len(m._forward_pre_hooks) for m in model.modules()) == 3
    calls = []
    forward = polyhead.torch.MultiheadAttention.forward
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(polyhead.torch.MultiheadAttention, "forward",
                      lambda *a, **k: calls.append(1) or forward(*a, **k))
        x, padding = inputs()
        model(x)
        model(x, src_key_padding_mask=padding)
    assert len(calls) == 6


def test_fully_masked_items_are_finite():
    """In torch they are NaN, and with them every gradient."""
    x, padding = inputs()
    padding[1] = True
    gradients = {}
    for name, model in (("stock", encoder()), ("ours", convert(encoder()))):
        attention = model.layers[0].self_attn
        out, weights = attention(x, x, x, key_padding_mask=padding)
        out[0].sum().backward()
        gradients[name] = attention.in_proj_weight.grad
        if name == "ours":
            assert torch.equal(out[1], attention.out_proj.bias.expand(9, WIDTH))
            assert not weights[1].any()
    assert gradients["stock"].isnan().any() and gradients["ours"].isfinite().all()
    for eval_too in (False, True):
        model = convert(encoder()).train(not eval_too)
        with torch.set_grad_enabled(not eval_too):
            assert model(x, src_key_padding_mask=padding).isfinite().all()


def test_revert_gives_back_what_there_was():
    model = encoder().eval()
    x, padding = inputs()
    with torch.no_grad():
        before = model(x, src_key_padding_mask=padding)
        parameters = list(map(id, model.parameters()))
        assert convert(convert(model)) is model
        model(x)
        assert revert(model) is model
        assert torch.equal(model(x, src_key_padding_mask=padding), before)
    assert list(map(id, model.parameters())) == parameters
    assert {type(m) for m in model.modules()} == {type(m) for m in encoder().modules()}
    assert not any(m._forward_pre_hooks for m in model.modules())
    assert model.use_nested_tensor and not [k for m in model.modules() for k in vars(m) if "polyh" in k]


def test_a_converted_model_is_saved_and_copied():
    model = convert(encoder()).eval()
    x, _ = inputs()
    out = model(x)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for twin in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert torch.equal(twin(x), out)
    fresh = encoder().eval()
    fresh.load_state_dict(model.state_dict())
    assert torch.allclose(fresh(x), out, atol=1e-5)


def test_decoder():
    torch.manual_seed(5)
    layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 64, dropout=0.0, batch_first=True)
    stock = nn.TransformerDecoder(layer, 2).double()
    ours = convert(copy.deepcopy(stock))
    x, padding = inputs(torch.float64)
    memory = torch.randn(3, 5, WIDTH, dtype=torch.float64)
    causal = nn.Transformer.generate_square_subsequent_mask(9, dtype=torch.float64)
    for model in (stock, ours):
        model(x, memory, tgt_mask=causal, tgt_is_causal=True).sum().backward()
    for a, b in zip(stock.parameters(), ours.parameters()):
        assert torch.allclose(a.grad, b.grad)
    assert torch.allclose(stock(x, memory), ours(x, memory))


def test_training_an_encoder():
    """50 steps: the curve leaves that of float64 by no more than twice what torch's does."""
    stock, ours, precise = bench_encoder.curves(64, 50, 16)
    theirs, mine = bench_encoder.distances(stock, ours, precise)
    last = precise.losses[-1]
    assert mine <= 2 * theirs + 2 * unit_roundoff(np.float32) * last
    assert last < 0.9 * precise.losses[0]


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def lora(module):
    module.out_proj = nn.Sequential(module.out_proj, nn.Linear(WIDTH, WIDTH))


def replaced(module):
    module.out_proj = Doubled(WIDTH, WIDTH)


def hooked(module):
    module.out_proj.register_forward_hook(lambda m, args, out: 2 * out)


def parametrised(module):
    nn.utils.parametrizations.weight_norm(module.out_proj)


def pruned(module):
    prune.l1_unstructured(module.out_proj, "weight", 0.5)
    module.out_proj.weight_orig.data.mul_(3)


@pytest.mark.parametrize("change", [lora, replaced, hooked, parametrised, pruned])
def test_out_proj_is_called_when_it_must_be(change):
    torch.manual_seed(1)
    module = polyhead.torch.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    x, _ = inputs()
    heads = copy.deepcopy(module)
    with torch.no_grad():
        heads.out_proj.weight.copy_(torch.eye(WIDTH))
        heads.out_proj.bias.zero_()
    change(module)
    out = module(x, x, x)[0]
    assert torch.allclose(out, module.out_proj(heads(x, x, x)[0]), atol=1e-6)
    out.sum().backward()
    assert all(p.grad is not None for p in module.parameters())


class Watched:
    """An engine's core that notes whether its packed copy was still right."""

    def __init__(self, core):
        self.core, self.followed = core, []

    def follow(self, parameters):
        self.followed.append(self.core.follow(parameters))
        return self.followed[-1]

    def __getattr__(self, name):
        return getattr(self.core, name)


@pytest.mark.parametrize("bias", [True, False])
def test_beside_a_called_out_proj_nothing_is_packed_again(bias):
    """Nor is what stands in its place bound to the mode of the first call."""
    module = polyhead.torch.MultiheadAttention(WIDTH, HEADS, bias=bias, batch_first=True)
    hooked(module)
    x, _ = inputs()
    with torch.inference_mode():
        module(x, x, x)
    watched = module._engine._core = Watched(module._engine._core)
    for _ in range(2):
        module(x, x, x)[0].sum().backward()
    assert len(watched.followed) == 2 and all(watched.followed)


@pytest.mark.parametrize("width", [1, WIDTH // 2, 2 * WIDTH])
def test_out_proj_of_another_width(width):
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    theirs.out_proj = type(theirs.out_proj)(WIDTH, width)
    ours = convert(copy.deepcopy(theirs))
    x, _ = inputs()
    assert torch.allclose(ours(x, x, x)[0], theirs(x, x, x)[0], atol=1e-6)


def test_in_projection_can_be_parametrised():
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    nn.utils.parametrizations.weight_norm(theirs, "in_proj_weight")
    ours = polyhead.torch.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    nn.utils.parametrizations.weight_norm(ours, "in_proj_weight")
    ours.load_state_dict(theirs.state_dict())
    x, _ = inputs()
    for _ in range(2):
        with torch.no_grad():
            for module in (theirs, ours):
                module.parametrizations.in_proj_weight.original0.mul_(2)
            assert torch.allclose(theirs(x, x, x)[0], ours(x, x, x)[0], atol=1e-5)
        for module in (theirs, ours):
            module(x, x, x)[0].square().sum().backward()
        for a, b in zip(theirs.parameters(), ours.parameters()):
            assert torch.allclose(a.grad, b.grad, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("function", [convert, revert])
def test_what_is_no_model_is_refused(function):
    with pytest.raises(TypeError, match=f"{function.__name__}: model: is a int; need a torch.nn.Module"):
        function(5)


def test_a_layer_without_attention_stays_as_it_is():
    layer = nn.TransformerEncoderLayer(16, 2, 32)
    del layer.self_attn
    assert convert(layer) is layer and revert(layer) is layer

"""What torch's module has not: num_kv_heads, head_dim, qk_norm and rope, against a composition of
torch's own operations in float64, with every gradient."""

import copy
import pickle

import numpy as np
import polyhead
import polyhead.torch
import pytest
import torch
from torch import nn

from error_rule import Together
from in_torch.torch_case import safe_softmax
from test_rope import turned

Mha = polyhead.torch.MultiheadAttention
WIDTH, HEADS = 12, 4
HALVES = {"pairs": "halves", "base": 500.0}
OPTIONS = {
    "grouped": {"num_kv_heads": 2}, "one for all": {"num_kv_heads": 1, "bias": False},
    "wide": {"head_dim": 8}, "narrow": {"head_dim": 2, "num_kv_heads": 2, "add_bias_kv": True},
    "norm": {"qk_norm": True, "qk_norm_eps": 1e-3, "head_dim": 6},
    "halves": {"rope": HALVES, "head_dim": 4}, "parts": {
        "rope": {"pairs": "interleaved", "rotary_dim": 4}, "head_dim": 6, "add_zero_attn": True},
    "widths": {"num_kv_heads": 2, "kdim": 5, "vdim": 7, "batch_first": False},
    "all": {"num_kv_heads": 2, "head_dim": 8, "qk_norm": True, "rope": HALVES, "add_bias_kv": True,
            "add_zero_attn": True}}


def module_of(name, dtype=torch.float32, seed=5):
    options = {"batch_first": True} | OPTIONS[name]
    module = Mha(WIDTH, HEADS, dtype=dtype, **options)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():  # the same numbers in either dtype
            parameter.copy_(torch.randn(parameter.shape) / 2)
    return module


def inputs_of(module, dtype=torch.float32, seed=6):
    torch.manual_seed(seed + 100)
    x = torch.randn(2, 7, WIDTH)
    if module.kdim == module.vdim == WIDTH:
        return [x.to(dtype).requires_grad_()]
    sizes = ((7, 2, WIDTH), (9, 2, module.kdim), (9, 2, module.vdim))
    return [torch.randn(size).to(dtype).requires_grad_() for size in sizes]


def projected(module, inputs):
    """q, k, v [B, heads, len, head_dim], normed and turned; then what the options append."""
    dim, kv_heads = module.head_dim, module.num_kv_heads
    widths = [HEADS * dim, kv_heads * dim, kv_heads * dim]
    weights = [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]
    if module.in_proj_weight is not None:
        weights = module.in_proj_weight.split(widths)
    biases = [None] * 3 if module.in_proj_bias is None else module.in_proj_bias.split(widths)
    q, k, v = (nn.functional.linear(x, *pair).unflatten(-1, (-1, dim)).transpose(1, 2)
               for x, *pair in zip(inputs, weights, biases))
    if module.qk_norm:
        q, k = (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + module.qk_norm_eps) * weight
                for y, weight in ((q, module.q_norm.weight), (k, module.k_norm.weight)))
    return *(turned(y, module.rope, first) for y, first in ((q, 3), (k, 1))), v


def formula(module, inputs, mask):
    inputs = inputs * 3 if len(inputs) == 1 else inputs
    if not module.batch_first:
        inputs = [x.transpose(0, 1) for x in inputs]
    q, k, v = projected(module, inputs)
    if module.bias_k is not None:
        k, v = (torch.cat([y, extra.view(1, module.num_kv_heads, 1, -1).expand(2, -1, -1, -1)], 2)
                for y, extra in ((k, module.bias_k), (v, module.bias_v)))
    if module.add_zero_attn:
        k, v = (torch.cat([y, torch.zeros_like(y[:, :, :1])], 2) for y in (k, v))
    k, v = (y.repeat_interleave(HEADS // module.num_kv_heads, 1) for y in (k, v))
    scores = q @ k.mT * module.head_dim ** -0.5
    bias = torch.zeros(mask.shape, dtype=q.dtype).masked_fill(mask, -torch.inf)
    weights = safe_softmax(scores, nn.functional.pad(bias, (0, k.shape[2] - mask.shape[-1])))
    out = nn.functional.linear((weights @ v).transpose(1, 2).flatten(2), module.out_proj.weight,
                               module.out_proj.bias)
    return out if module.batch_first else out.transpose(0, 1), weights.mean(1)


def library(module, inputs, mask):
    inputs = inputs * 3 if len(inputs) == 1 else inputs
    turns = {"query_position": 3, "key_position": 1} if module.rope else {}
    return module(*inputs, attn_mask=mask, **turns)


def hidden(module):
    torch.manual_seed(7)
    mask = torch.rand(7, 7 if module.kdim == WIDTH else 9) < 0.2
    mask[2] = True  # a row that sees nothing but what is appended
    return mask


def answers(run, name, dtype, seed):
    """{name: array} of out, weights and every gradient of a loss that sees both."""
    module = module_of(name, dtype, seed)
    inputs = inputs_of(module, dtype, seed)
    results = run(module, inputs, hidden(module))
    torch.manual_seed(seed)
    loss = sum((x * torch.randn(x.shape).to(dtype)).sum() for x in results)
    leaves = dict(zip(("query", "key", "value"), inputs)) | dict(module.named_parameters())
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    found = dict(zip(("out", "weights"), results)) | {
        f"d_{leaf}": gradient for leaf, gradient in zip(leaves, gradients)}
    if "d_in_proj_bias" in found and module.rope is None:  # of the keys it is 0 but for rounding
        found["d_in_proj_bias"] = found["d_in_proj_bias"][:HEADS * module.head_dim]
    return {what: x.detach().numpy() for what, x in found.items()}


@pytest.mark.parametrize("name", OPTIONS)
def test_numbers_and_gradients(name):
    errors = Together()
    for seed in range(20):
        truth = answers(formula, name, torch.float64, seed)
        naive = answers(formula, name, torch.float32, seed)
        found = answers(library, name, torch.float32, seed)
        assert list(found) == list(truth)
        for what, got in found.items():
            assert got.shape == truth[what].shape
            errors.note(f"extras, {what}", got - truth[what], naive[what] - truth[what])
    errors.expect_as_exact_as_torch()


@pytest.mark.parametrize("name", OPTIONS)
def test_gradcheck(name):
    module = module_of(name, torch.float64)
    inputs, mask = inputs_of(module, torch.float64), hidden(module)
    names = [parameter for parameter, _ in module.named_parameters()]

    def call(*leaves):
        parameters = dict(zip(names, leaves[len(inputs):]))
        turns = {"query_position": 3, "key_position": 1} if module.rope else {}
        operands = leaves[:len(inputs)] * (3 if len(inputs) == 1 else 1)
        return torch.func.functional_call(
            module, parameters, operands, {"attn_mask": mask, **turns})

    assert torch.autograd.gradcheck(call, (*inputs, *module.parameters()), fast_mode=True)


@pytest.mark.parametrize("name", OPTIONS)
def test_state_dicts_are_those_of_the_numpy_class(name, tmp_path):
    module = module_of(name)
    options = {key: x for key, x in ({"batch_first": True} | OPTIONS[name]).items()}
    twin = polyhead.MultiheadAttention(WIDTH, HEADS, **options)
    state = module.state_dict()
    assert {key: tuple(x.shape) for key, x in state.items()} == {
        key: x.shape for key, x in twin.state_dict().items()}
    twin.load_state_dict(state)
    inputs = [x.detach() for x in inputs_of(module)]
    inputs = inputs * 3 if len(inputs) == 1 else inputs
    with torch.no_grad():
        out, weights = module(*inputs)
    same, other = twin(*inputs)
    assert np.array_equal(out.numpy(), same) and np.array_equal(weights.numpy(), other)
    for attribute in ("num_kv_heads", "head_dim", "qk_norm", "rope", "embed_dim", "kdim", "vdim"):
        assert getattr(module, attribute) == getattr(twin, attribute)


@pytest.mark.parametrize("name", OPTIONS)
def test_copies_and_modes_have_the_same_bits(name):
    module = module_of(name)
    inputs, mask = inputs_of(module), hidden(module)
    out, weights = library(module, inputs, mask)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert repr(twin) == repr(module) and type(twin) is Mha
        assert torch.equal(library(twin, inputs, mask)[0], out)
    with torch.no_grad():
        assert torch.equal(library(module.eval(), inputs, mask)[0], out)
    compiled = torch.compile(lambda: library(module, inputs, mask), fullgraph=True,
                             backend="aot_eager")
    torch.compiler.reset()
    for got, want in zip(compiled(), (out, weights)):
        assert torch.equal(got, want)
    gradients = [torch.autograd.grad(run()[0].square().sum(), [*inputs, *module.parameters()])
                 for run in (compiled, lambda: library(module, inputs, mask))]
    for got, want in zip(*gradients):
        assert torch.allclose(got, want, rtol=0, atol=1e-4)


def test_what_it_says_of_itself():
    module = module_of("all")
    assert repr(module).startswith(
        "MultiheadAttention(\n  num_kv_heads=2, head_dim=8, qk_norm=True, qk_norm_eps=1e-06, "
        "rope={'pairs': 'halves', 'base': 500.0, 'rotary_dim': 8, ")
    assert "(q_norm): RMSNorm((8,), eps=1e-06" in repr(module)
    plain = Mha(WIDTH, HEADS)
    assert (plain.num_kv_heads, plain.head_dim, plain.qk_norm, plain.rope) == (4, 3, False, None)


def test_a_draw_is_torchs_where_shapes_are():
    torch.manual_seed(1)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, add_bias_kv=True)
    torch.manual_seed(1)
    ours = Mha(WIDTH, HEADS, add_bias_kv=True, qk_norm=True)
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)
    assert torch.equal(ours.k_norm.weight, torch.ones(3))


@pytest.mark.parametrize("options, error, words", [
    ({"num_kv_heads": 3}, ValueError, "num_kv_heads: got 3; must be a divisor"),
    ({"num_kv_heads": 0}, ValueError, "num_kv_heads: got 0"),
    ({"head_dim": -1}, ValueError, "head_dim: got -1"),
    ({"num_kv_heads": "2"}, TypeError, "num_kv_heads: got str; need an int"),
    ({"qk_norm": True, "qk_norm_eps": -1.0}, ValueError, "qk_norm_eps: got -1"),
    ({"qk_norm": 1}, TypeError, "qk_norm: got int; need True or False"),
    ({"rope": {"base": 3.0}}, ValueError, "rope: pairs: not said; need"),
    ({"rope": "halves"}, TypeError, "rope: got str; need a dict"),
    ({"rope": HALVES}, ValueError, "rotary_dim"),  # heads of 3
    ({"embed_dim": 0, "num_kv_heads": 1}, ValueError, "must be greater than 0, got embed_dim=0"),
    ({"num_heads": 0, "num_kv_heads": 1}, ValueError, "got embed_dim=12 and num_heads=0"),
    ({"qk_norm_eps": 5.0}, ValueError, "qk_norm_eps: got 5; must be between 0 and 1"),
    ({"qk_norm_eps": "x"}, TypeError, "qk_norm_eps: got str; need a number"),
    ({"num_kv_heads": 1, "kdim": 0}, ValueError, "kdim: got 0"),
    ({"num_kv_heads": 1, "vdim": -3}, ValueError, "vdim: got -3"),
    ({"num_kv_heads": 1, "vdim": "3"}, TypeError, "vdim: got str; need an int"),
    ({"num_kv_heads": 1, "dropout": 3.0}, ValueError, "dropout: got 3; must be between 0 and 1"),
    ({"embed_dim": 13, "num_kv_heads": 1}, AssertionError, "divisible by num_heads")], ids=str)
def test_refused_options(options, error, words):
    with pytest.raises(error) as refusal:
        Mha(**{"embed_dim": WIDTH, "num_heads": HEADS} | options)
    assert words in str(refusal.value)


def test_an_eps_without_norms_is_kept():
    assert Mha(WIDTH, HEADS, qk_norm_eps=0.5).qk_norm_eps == 0.5
    assert polyhead.MultiheadAttention(WIDTH, HEADS, qk_norm_eps=0.5).qk_norm_eps == 0.5


@pytest.mark.parametrize("options", [{}, {"num_kv_heads": 2}])
def test_parameters_without_memory(options):
    """Nothing is computed of what is not there."""
    module, x = Mha(WIDTH, HEADS, device="meta", batch_first=True, **options), torch.zeros(2, 3, WIDTH)
    with torch.no_grad():
        with pytest.raises(RuntimeError, match="is on meta; need query's device, cpu|on device meta"):
            module(x, x, x)
        cache = polyhead.torch.KvCache(**module.cache_config(2, 2))
        with pytest.raises(RuntimeError, match="^(in|q)_proj_weight: is on meta; need query's device, cpu$"):
            module.forward_cached(x, cache)


def test_refused_calls():
    module, x = module_of("grouped"), torch.randn(2, 7, WIDTH)
    for arguments, error, words in (
            ((x[..., :5],) * 3, ValueError, "query"), ((x.double(),) * 3, ValueError, "float64"),
            ((x, x[:, :3], x), ValueError, "value"), ((x, None, x), TypeError, "key must be Tensor")):
        with pytest.raises(error, match=words):
            module(*arguments)
    with pytest.raises(ValueError, match="no rotary positions|query_position"):
        module(x, x, x, query_position=1)


def test_what_is_called_by_itself():
    """A hooked out_proj is called where its part can be left out; a hooked norm is refused."""
    module, x = module_of("grouped"), torch.randn(2, 7, WIDTH)
    want = module(x, x, x)[0]
    seen = []
    module.out_proj.register_forward_hook(lambda *call: seen.append(call))
    assert torch.allclose(module(x, x, x)[0], want, atol=1e-5) and len(seen) == 1
    wide = module_of("wide")
    wide.out_proj.register_forward_hook(lambda *call: None)
    with pytest.raises(NotImplementedError, match="out_proj: is hooked"):
        wide(x, x, x)
    norm = module_of("norm")
    norm.q_norm.register_forward_hook(lambda *call: None)
    with pytest.raises(RuntimeError, match="q_norm: is hooked"):
        norm(x, x, x)


def test_in_an_encoder_and_back():
    """The layer's own kernel would not know of the options; torch's class cannot have them."""
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, batch_first=True)
    layer.self_attn = module_of("halves")
    layer.eval()
    x = torch.randn(2, 7, WIDTH)
    with torch.no_grad():
        inferred = layer(x)
    assert torch.allclose(inferred, layer(x), atol=1e-6)
    assert polyhead.torch.convert(layer).self_attn is layer.self_attn
    polyhead.torch.revert(layer)
    assert type(layer.self_attn) is Mha


def test_half_precision_and_autocast():
    module, x = module_of("all"), torch.randn(2, 7, WIDTH)
    want = module(x, x, x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = module(x, x, x)
    assert out.dtype == torch.bfloat16 and torch.allclose(out.float(), want, atol=0.1)
    half = copy.deepcopy(module).bfloat16()
    assert half(*[x.bfloat16()] * 3)[0].dtype == torch.bfloat16

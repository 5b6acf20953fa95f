"""MultiheadAttention.forward_cached among torch's other ways: hooks, replaced projections, autocast,
torch.compile; and what a step that fails leaves."""

import warnings

import polyhead.torch
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

B, L, E, H = 2, 9, 16, 4


def decoder(**options):
    torch.manual_seed(0)
    module = polyhead.torch.MultiheadAttention(E, H, **{"batch_first": True} | options)
    return module.eval().requires_grad_(False)


def tokens():
    torch.manual_seed(1)
    return torch.randn(B, L, E)


def cache_of(module, pages=4, **options):
    return polyhead.torch.KvCache(**module.cache_config(B, pages), **{"page_len": 32} | options)


def pruned(module):
    return prune.l1_unstructured(module, "in_proj_weight", 0.5)


HOOKS = {
    "prune": (pruned, lambda module: prune.remove(module, "in_proj_weight")),
    "weight_norm": (lambda module: nn.utils.weight_norm(module, "in_proj_weight"),
                    lambda module: nn.utils.remove_weight_norm(module, "in_proj_weight")),
    "spectral_norm": (lambda module: nn.utils.spectral_norm(module, "in_proj_weight"),
                      lambda module: nn.utils.remove_spectral_norm(module, "in_proj_weight"))}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", HOOKS)
def test_a_parameter_that_a_hook_makes(name):
    module, x = decoder(), tokens()
    make, remove = HOOKS[name]
    cache = cache_of(module)
    with torch.no_grad():
        make(module)
        with pytest.raises(RuntimeError, match="module: has the forward hook .*only a call.*remove"):
            module.forward_cached(x, cache)
        assert not cache.lengths.any()
        remove(module)
        want, _ = module(x, x, x, is_causal=True)
        assert torch.equal(module.forward_cached(x, cache), want)


def test_a_hook_of_the_module():
    module, x = decoder(), tokens()
    module.register_forward_hook(lambda *call: None)
    with pytest.raises(RuntimeError, match="has the forward hook .*lambda"):
        module.forward_cached(x, cache_of(module))


def test_the_hook_of_convert_is_none():
    layer = nn.TransformerEncoderLayer(E, H, batch_first=True)
    polyhead.torch.convert(layer).eval().requires_grad_(False)
    module, x = layer.self_attn, tokens()
    assert module._forward_pre_hooks
    assert torch.equal(module.forward_cached(x, cache_of(module)), module(x, x, x, is_causal=True)[0])


def test_a_parametrisation_is_followed():
    module, x = decoder(), tokens()
    with torch.no_grad():
        nn.utils.parametrizations.weight_norm(module, "in_proj_weight")
        module.parametrizations.in_proj_weight.original0.mul_(2)
        want, _ = module(x, x, x, is_causal=True)
        assert torch.equal(module.forward_cached(x, cache_of(module)), want)


class Adapted(nn.Module):
    """A projection with something beside it, as LoRA has it; it raises when told to."""

    def __init__(self, inner, error=None):
        super().__init__()
        self.inner, self.error = inner, error

    def forward(self, x):
        if self.error is not None:
            raise self.error
        return self.inner(x) + 1


@pytest.mark.parametrize("batch_first", [True, False])
def test_what_lengths_leave_out_is_0_behind_another_out_proj(batch_first):
    module, x = decoder(batch_first=batch_first), tokens()
    module.out_proj = Adapted(module.out_proj)
    x = x if batch_first else x.transpose(0, 1)
    want, _ = module(x, x, x, is_causal=True)
    out = module.forward_cached(x, cache_of(module), torch.tensor([L, 3]))
    if not batch_first:
        out, want = out.transpose(0, 1), want.transpose(0, 1)
    assert torch.equal(out[0], want[0]) and torch.equal(out[1, :3], want[1, :3])
    assert not out[1, 3:].any()


@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()], ids=str)
def test_an_out_proj_that_raises_takes_the_tokens_back(window, error):
    """Also where the window has forgotten pages by then: no position to come would have seen them."""
    module, x = decoder(rope={"pairs": "halves"}), torch.randn(B, 200, E)
    module.out_proj = Adapted(module.out_proj)
    cache, twin = (cache_of(module, 14, window=window) for _ in range(2))
    for part in (slice(0, 70), slice(70, 110)):
        module.forward_cached(x[:, part], cache)
        module.forward_cached(x[:, part], twin)
    module.out_proj.error = error
    with pytest.raises(type(error)):
        module.forward_cached(x[:, 110:150], cache, torch.tensor([40, 2]))
    with pytest.raises(type(error)):
        module.forward_cached(x[1, 110:190], cache, sequence=1)
    assert cache.lengths.tolist() == [110, 110]
    module.out_proj.error = None
    assert torch.equal(module.forward_cached(x[:, 110:], cache), module.forward_cached(x[:, 110:], twin))
    assert (cache.first_kept == twin.first_kept).all() and cache.free_pages == twin.free_pages


@pytest.mark.parametrize("out_proj", ["own", "adapted"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_that_of_forward(dtype, out_proj):
    module, x = decoder(), tokens()
    if out_proj == "adapted":
        module.out_proj = Adapted(module.out_proj)
    for given in (x, x.to(dtype), x.double()):
        with torch.autocast("cpu", dtype):
            want, _ = module(given, given, given, is_causal=True)
            got = module.forward_cached(given, cache_of(module))
        assert got.dtype == want.dtype == dtype and torch.equal(got, want)
    wide = decoder(dtype=torch.float64)
    with torch.autocast("cpu", dtype):
        assert wide.forward_cached(x.double(), cache_of(wide)).dtype == torch.float64
        with pytest.raises(ValueError, match="dtype is torch.float32; need the module's torch.float64"):
            wide.forward_cached(x, cache_of(wide))


def test_compile_breaks_the_graph_and_no_more():
    module, x = decoder(), tokens()
    cache, seen = cache_of(module), []

    def step(x):
        return module.forward_cached(x * 2, cache, torch.tensor([x.shape[1], 2])) + 1

    def count(graph, inputs):
        seen.append(graph)
        return graph

    torch.compiler.reset()
    want = step(x)
    cache.reset()
    compiled = torch.compile(step, backend=count)
    with warnings.catch_warnings(record=True) as said:
        assert torch.equal(compiled(x), want)
    assert not [warning for warning in said if "cache" in str(warning.message)]
    assert cache.lengths.tolist() == [L, 2]
    graphs = len(seen)
    for _ in range(12):  # more than dynamo compiles one function anew
        cache.reset()
        assert torch.equal(compiled(x), want)
    assert len(seen) == graphs == 2  # before the step and after it
    with pytest.raises(Exception, match="forward_cached|disable"):
        torch.compile(step, backend="eager", fullgraph=True)(x)

"""MultiheadAttention.forward_cached among torch's other ways: hooks, replaced projections, autocast,
torch.compile; and what a step that fails leaves."""

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

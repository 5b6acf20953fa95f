"""Forward-mode derivatives are refused, not left out."""

import polyhead.torch
import pytest
import torch
from polyhead.torch import scaled_dot_product_attention
from torch.autograd import forward_ad
from torch.func import jacfwd, jacrev, jvp

X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(9))
WORDS = r"forward-mode derivatives are not implemented; use polyhead.torch.revert\(model\)"
MODULE = polyhead.torch.MultiheadAttention(8, 2, batch_first=True)


def module_of(x):
    return MODULE(x, x, x)[0]


def attention_of(x):
    return scaled_dot_product_attention(x, x, x)


CALLS = pytest.mark.parametrize("call", [module_of, attention_of])


@CALLS
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
def test_of_dual_numbers(call, mode):
    with forward_ad.dual_level(), mode():
        assert torch.equal(call(X), call(X.clone()))  # no tangent, no refusal
        with pytest.raises(NotImplementedError, match=WORDS):
            call(forward_ad.make_dual(X, X))


@CALLS
def test_of_torch_func(call):
    with pytest.raises(NotImplementedError, match=WORDS):
        jvp(call, (X,), (X,))
    with pytest.raises(NotImplementedError, match=WORDS):
        jacfwd(call)(X)
    with pytest.raises((NotImplementedError, RuntimeError), match="derivatives are not implemented"):
        jacfwd(jacrev(call))(X)


def test_of_a_parameter():
    state = {name: p.detach() for name, p in MODULE.named_parameters()}
    with forward_ad.dual_level():
        state["in_proj_bias"] = forward_ad.make_dual(
            state["in_proj_bias"], torch.ones_like(state["in_proj_bias"]))
        with pytest.raises(NotImplementedError, match=WORDS):
            torch.func.functional_call(MODULE, state, (X, X, X))

"""Writes to the tensors of a call between its forward and its backward, such as torch does not
count: they are refused, where torch's module crashes or has other gradients."""

import polyhead.torch
import pytest
import torch

B, L, E, H = 2, 6, 12, 3
NAMES = "query", "key", "value", "key_padding_mask", "attn_mask"


def grow(x):
    """Other memory, of which the first part is the same."""
    x.untyped_storage().resize_(2 * x.untyped_storage().nbytes())


WRITES = {
    "data": lambda x: setattr(x, "data", torch.zeros_like(x)),
    "smaller": lambda x: setattr(x, "data", torch.zeros(1, dtype=x.dtype)),
    "no memory": lambda x: x.untyped_storage().resize_(0),
    "grown": grow,
    "another view": lambda x: setattr(x, "data", x.data[:, :1]),
}


def call_of(mask_dtype, dtype):
    torch.manual_seed(3)
    module = polyhead.torch.MultiheadAttention(E, H, batch_first=True, dtype=dtype)
    tensors = [torch.randn(B, L, E, dtype=dtype) for _ in range(3)]
    masks = torch.zeros(B, L, dtype=mask_dtype), torch.zeros(L, L, dtype=mask_dtype)
    return module, dict(zip(NAMES, (*tensors, *masks)))


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mask_dtype, dtype", [
    (torch.bool, torch.float32), (torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16)])
def test_a_tensor_of_other_memory_is_refused(name, write, mask_dtype, dtype):
    module, call = call_of(mask_dtype, dtype)
    out, _ = module(**call)
    WRITES[write](call[name])
    with pytest.raises(RuntimeError, match=f"{name}: was replaced between forward and backward"):
        out.sum().backward()
    assert module.in_proj_weight.grad is None


def test_one_given_thrice():
    module, call = call_of(torch.bool, torch.float32)
    x = call["query"].requires_grad_()
    out, _ = module(x, x, x)
    x.data = torch.zeros_like(x)
    with pytest.raises(RuntimeError, match="query: was replaced"):
        out.sum().backward()


def test_memory_that_comes_back_is_not_taken_for_the_old():
    """The allocator may give the same address again, as soon as it was freed."""
    for _ in range(20):
        module, call = call_of(torch.float32, torch.float32)
        out, _ = module(**call)
        call["query"].data = torch.zeros(1)
        call["query"].data = torch.randn(B, L, E)
        with pytest.raises(RuntimeError, match="query: was replaced"):
            out.sum().backward()


def test_a_storage_cut_in_place_is_refused():
    """Often at its old address."""
    for _ in range(20):
        module, call = call_of(torch.float32, torch.float32)
        out, _ = module(**call)
        for _ in range(2):
            call["query"].untyped_storage().resize_(4 * B * L * E // 2)
        with pytest.raises(RuntimeError, match="query: was replaced"):
            out.sum().backward()


def test_a_second_backward_sees_the_write_as_well():
    module, call = call_of(torch.float32, torch.float32)
    out, _ = module(**call)
    out.sum().backward(retain_graph=True)
    call["attn_mask"].data = torch.ones(L, L)
    with pytest.raises(RuntimeError, match="attn_mask: was replaced"):
        out.sum().backward()

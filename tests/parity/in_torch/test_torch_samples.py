"""The samples that torch tests its own modules and functions with, through ours: results and
gradients."""

import pytest
import torch
from polyhead.torch import scaled_dot_product_attention
from torch.func import functional_call
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db
from torch.utils._pytree import tree_leaves, tree_map

from error_rule import Together
from torch_case import OURS, TORCHS

FLOAT64_LIMIT = 1e-10  # of the largest value


def info_of(database, name):
    return next(info for info in database if info.name == name)


def leaves_in(tree, dtype):
    """The tree with its floats in `dtype` and wanting gradients, and those."""
    is_float = lambda x: isinstance(x, torch.Tensor) and x.is_floating_point()
    fresh = tree_map(lambda x: x.detach().to(dtype).requires_grad_() if is_float(x) else x, tree)
    return fresh, [x for x in tree_leaves(fresh) if is_float(x)]


def gradients(results, leaves):
    """Of random sums of the results."""
    given = [x for x in results if x is not None]
    rng = torch.Generator().manual_seed(1)
    d_results = [torch.randn(x.shape, generator=rng).to(x) for x in given]
    found = torch.autograd.grad(given, leaves, d_results, allow_unused=True)
    return [*given, *(torch.zeros_like(x) if d is None else d for d, x in zip(found, leaves))]


def expect_same(samples, run):
    """run(sample, is_ours, dtype): tensors. In float64 each by itself, in float32 all together."""
    together = Together()
    count = 0
    for sample in samples:
        want, in_double, theirs, got = (
            [x.detach() for x in run(sample, is_ours, dtype)]
            for dtype in (torch.float64, torch.float32) for is_ours in (False, True))
        for truth, one, other, mine in zip(want, in_double, theirs, got, strict=True):
            largest = truth.abs().max().clamp(min=1)
            assert one.shape == truth.shape == mine.shape
            assert (one - truth).abs().max() <= FLOAT64_LIMIT * largest
            together.note("torch's samples", ((mine - truth) / largest).numpy(),
                          ((other - truth) / largest).numpy())
        count += 1
    together.expect_as_exact_as_torch()
    return count


def module_samples(training):
    torch.manual_seed(0)
    info = info_of(module_db, "nn.MultiheadAttention")
    return info.module_inputs_func(info, "cpu", torch.float32, requires_grad=True, training=training)


@pytest.mark.parametrize("training", [True, False])
def test_module(training):
    def run(sample, is_ours, dtype):
        torch.manual_seed(2)
        constructor, call = sample.constructor_input, sample.forward_input
        module = (OURS if is_ours else TORCHS)(*constructor.args, **constructor.kwargs)
        (args, kwargs), leaves = leaves_in((call.args, call.kwargs), dtype)
        results = module.to(dtype).train(training)(*args, **kwargs)
        return gradients(results, [*leaves, *module.parameters()])

    assert expect_same(module_samples(training), run) >= 64


def test_modules_reference():
    """What torch compares a sample's result with: the same call as a batch of one. Ours has the same
    bits."""
    for sample in module_samples(False):
        constructor, call = sample.constructor_input, sample.forward_input
        module = OURS(*constructor.args, **constructor.kwargs)
        want = sample.reference_fn(module, *call.args, **call.kwargs)
        for one, other in zip(module(*call.args, **call.kwargs), want):
            assert torch.equal(one, other)


def function_samples(name):
    torch.manual_seed(0)
    return info_of(op_db, name).sample_inputs("cpu", torch.float32, requires_grad=False)


def by_module(query, key, value, embed_dim, num_heads, in_proj_weight, in_proj_bias, bias_k, bias_v,
              add_zero_attn, dropout_p, out_proj_weight, out_proj_bias, **options):
    """torch's multi_head_attention_forward: a module with these parameters."""
    if options["use_separate_proj_weight"]:
        in_proj_weight = torch.cat([options[f"{name}_proj_weight"] for name in "qkv"])
    module = OURS(embed_dim, num_heads, dropout_p, add_bias_kv=True, add_zero_attn=add_zero_attn)
    parameters = {
        "in_proj_weight": in_proj_weight, "in_proj_bias": in_proj_bias,
        "bias_k": bias_k.view(1, 1, -1), "bias_v": bias_v.view(1, 1, -1),
        "out_proj.weight": out_proj_weight, "out_proj.bias": out_proj_bias}
    return functional_call(module.train(options["training"]), parameters, (query, key, value),
                           {"attn_mask": options["attn_mask"]})


def test_multi_head_attention_forward():
    stock = torch.nn.functional.multi_head_attention_forward

    def run(sample, is_ours, dtype):
        args = [sample.input, *sample.args]
        dropout_p, args[10] = args[10], 0.0  # numbers are compared without it
        (args, kwargs), leaves = leaves_in((args, sample.kwargs), dtype)
        if is_ours and dropout_p:
            dropped, _ = by_module(*args[:10], dropout_p, *args[11:], **kwargs)
            assert dropped.isfinite().all() and dropped.shape == args[0].shape
        return gradients((by_module if is_ours else stock)(*args, **kwargs), leaves)

    assert expect_same(function_samples("nn.functional.multi_head_attention_forward"), run) >= 96


def test_scaled_dot_product_attention():
    stock = torch.nn.functional.scaled_dot_product_attention

    def run(sample, is_ours, dtype):
        (args, kwargs), leaves = leaves_in(((sample.input, *sample.args), sample.kwargs), dtype)
        attend = scaled_dot_product_attention if is_ours else stock
        if kwargs.pop("dropout_p"):
            assert attend(*args, dropout_p=0.5, **kwargs).isfinite().all()
        return gradients([attend(*args, **kwargs)], leaves)

    assert expect_same(function_samples("nn.functional.scaled_dot_product_attention"), run) >= 25

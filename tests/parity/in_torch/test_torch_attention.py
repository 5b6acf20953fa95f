"""polyhead.torch.scaled_dot_product_attention and FromScratchMultiHeadAttention: results and
gradients against torch's."""

import copy

import numpy as np
import polyhead.torch
import pytest
import torch
from polyhead.torch import scaled_dot_product_attention as ours
from torch.nn.functional import scaled_dot_product_attention as torchs

import budget
from budget import Errors, attention, attention_gradients, exact, summed_onto
from error_rule import Ratios, Together, unit_roundoff
from test_from_scratch import SeedClass, draw_mask, split_module, wide_module
from test_scaled_dot_product_attention import draw, in_dtype

NUM_CASES = 300
FLOAT64_LIMIT = 1e-10  # of the largest value
# Of the budget: about twice the largest use in 3000 calls.
ERRORS = Errors({"out": 0.6, "d_query": 0.4, "d_key": 0.6, "d_value": 1, "d_attn_mask": 0.5})


def leaves_of(query, key, value, options):
    """Fresh tensors that want gradients, laid out as given."""
    fresh = lambda x: x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    leaves = [fresh(x) for x in (query, key, value)]
    mask = options.get("attn_mask")
    if mask is not None and mask.dtype != torch.bool:
        leaves.append(fresh(mask))
        options = options | {"attn_mask": leaves[3]}
    return leaves, options


def cotangent(out):
    return torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)


def answers(attend, call):
    """[out, every gradient] as arrays."""
    leaves, options = leaves_of(*call)
    out = attend(*leaves[:3], **options)
    gradients = torch.autograd.grad(out, leaves, cotangent(out))
    with torch.no_grad():
        assert torch.equal(attend(*leaves[:3], **options), out) or attend is torchs
    return [x.detach().numpy() for x in (out, *gradients)]


def truth_of(call):
    """By torch's plain formula in float64."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return answers(torchs, in_dtype(torch.float64, *call))


def bias_of(query, key, options):
    """[..., L, S], -inf hides."""
    bias = np.zeros((*query.shape[:-1], key.shape[-2]))
    mask = options.get("attn_mask")
    if options.get("is_causal"):
        return np.where(np.tri(*bias.shape[-2:], dtype=bool), bias, -np.inf)
    if mask is not None and mask.dtype == torch.bool:
        return np.where(mask.numpy(), bias, -np.inf)
    return bias if mask is None else bias + mask.numpy()


def budget_of(query, key, value, options):
    """As answers()."""
    u = unit_roundoff(np.float32)
    repeat = query.shape[-3] // key.shape[-3] if options.get("enable_gqa") else 1
    heads = [exact(x.numpy()) for x in (query, key, value)]
    of_query_heads = lambda x: x.map(lambda y: y.repeat(repeat, -3)) if repeat > 1 else x
    heads[1:] = map(of_query_heads, heads[1:])
    scale = query.shape[-1]**-0.5 if options["scale"] is None else options["scale"]
    out, weights = attention(heads, bias_of(query, key, options), scale, u)
    d_out = exact(cotangent(torch.empty(out.value.shape)).numpy())
    *gradients, d_scores = attention_gradients(heads, weights, d_out, 0, scale, u)
    by_group = lambda x, like: summed_onto(
        x.map(lambda y: y.reshape(*like.shape[:-2], repeat, *like.shape[-2:])),
        (*like.shape[:-2], 1, *like.shape[-2:]), u).map(lambda y: y.reshape(like.shape))
    gradients = [by_group(x, like) if repeat > 1 and like is not query else x
                 for x, like in zip(gradients, (query, key, value))]
    mask = options.get("attn_mask")
    if mask is not None and mask.dtype != torch.bool:
        gradients.append(summed_onto(d_scores, mask.shape, u))
    return [out, *gradients]


@pytest.mark.parametrize("seed", range(NUM_CASES))
def test_random_call(seed):
    call = in_dtype(torch.float32, *draw(seed))
    truth, budget = truth_of(call), budget_of(*call)
    for got, want in zip(answers(ours, in_dtype(torch.float64, *call)), truth):
        assert np.abs(got - want).max(initial=0) <= FLOAT64_LIMIT * max(1, np.abs(want).max(initial=0))
    for name, one, got, theirs, want in zip(ERRORS.limits, budget, answers(ours, call),
                                            answers(torchs, call), truth):
        assert np.abs(one.value - want).max(initial=0) <= FLOAT64_LIMIT * max(1, np.abs(want).max())
        ERRORS.expect_within(name, got, theirs, one)


def test_errors_are_torchs_on_the_whole():
    ERRORS.expect_as_exact_as_torch()


@pytest.mark.parametrize("spoil", [
    lambda x: x * np.float32(1.001), lambda x: np.roll(x, 1), np.zeros_like,
    lambda x: np.where(x == x.max(), np.nan, x), lambda x: x.astype(np.float16).astype(x.dtype)])
def test_the_budget_notices(spoil, monkeypatch):
    monkeypatch.setattr(budget, "RATIOS", Ratios())
    torch.manual_seed(0)
    heads = torch.randn(3, 2, 4, 16, 8)
    call = *heads, {"scale": None, "attn_mask": torch.randn(16, 16)}
    for name, one, got in zip(ERRORS.limits, budget_of(*call), answers(torchs, call)):
        errors = Errors(ERRORS.limits)
        errors.expect_within(name, got, got, one)
        with pytest.raises(AssertionError):
            errors.expect_within(name, spoil(got), got, one)


def test_options_of_ours():
    torch.manual_seed(0)
    query, key = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 6, 8)
    out, heads = ours(query, key, key, weights="per_head")
    _, average = ours(query, key, key, weights="average")
    assert heads.shape == (2, 3, 4, 6) and torch.allclose(average, heads.mean(1))
    assert torch.allclose(heads @ key, out, atol=1e-6)
    late = torch.ones(4, 6).tril(2).bool()
    assert torch.equal(ours(query, key, key, is_causal=True, causal_align="bottom_right"),
                       ours(query, key, key, late))
    assert torch.equal(ours(query, key, key, late, is_causal=True),
                       ours(query, key, key, is_causal=True))
    none = torch.zeros(4, 6, dtype=torch.bool)
    assert not ours(query, key, key, none).any()
    assert ours(query, key, key, none, empty_rows="nan").isnan().all()
    torch.manual_seed(2)
    dropped = ours(query, key, key, dropout_p=0.5)
    torch.manual_seed(2)
    assert torch.equal(ours(query, key, key, dropout_p=0.5), dropped)
    assert not torch.equal(dropped, out)
    half = ours(*[x.bfloat16() for x in (query, key, key)])
    assert half.dtype == torch.bfloat16 and torch.allclose(half.float(), out, atol=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(query, key, key).dtype == torch.bfloat16


R = torch.rand


@pytest.mark.parametrize("call, options", [
    ((R(4), R(4), R(4)), {}), ((R(2, 4), R(2, 4).double(), R(2, 4)), {}),
    ((R(1, 3, 2, 4), R(1, 2, 2, 4), R(1, 2, 2, 4)), {"enable_gqa": True}),
    ((R(1, 3, 2, 4), R(1, 2, 2, 4), R(1, 2, 2, 4)), {}), ((R(2, 4), R(2, 5), R(2, 4)), {}),
    ((R(2, 4), R(2, 4), R(2, 4), torch.ones(2, 2).long()), {}),
    ((R(2, 4), R(2, 4), R(2, 4), torch.ones(3, 2)), {}),
    ((R(2, 4), R(2, 4), R(2, 4), torch.ones(2, 2).double()), {}),
    ((R(2, 4), R(2, 4), R(2, 4)), {"dropout_p": 2.0}),
    *(([torch.ones(1, 2, 3, 4).to(dtype)] * 3, {})
      for dtype in (torch.int64, torch.uint8, torch.bool, torch.complex64))])
def test_refusals_are_torchs(call, options):
    refusals = []
    for attend in (torchs, ours):
        with pytest.raises((RuntimeError, ValueError, IndexError)) as refusal:
            attend(*call, **options)
        refusals.append((refusal.type, str(refusal.value)))
    assert refusals[0] == refusals[1]


def test_a_longer_value_is_refused():
    with pytest.raises(RuntimeError, match="value: length is 5; need the key's 4"):
        ours(R(1, 1, 3, 8), R(1, 1, 4, 8), R(1, 1, 5, 8))


def scratch_pair(seed, width):
    """The class as it is written, and ours with its parameters; tensors of a random call."""
    rng = np.random.default_rng(seed)
    heads, batch = int(rng.choice([1, 2, 3, 8])), int(rng.integers(1, 4))
    embed, q_len, kv_len = 8 * heads, int(rng.integers(1, 20)), int(rng.integers(1, 20))
    torch.manual_seed(seed)
    theirs = (split_module if width == "split" else wide_module)(embed, heads)
    torch.manual_seed(seed)
    module = polyhead.torch.FromScratchMultiHeadAttention(embed, heads, width)
    assert list(module.state_dict()) == list(theirs.state_dict())
    if width == "split":
        assert all(map(torch.equal, module.parameters(), theirs.parameters()))
    module.load_state_dict(theirs.state_dict())
    mask = torch.from_numpy(draw_mask(rng, batch, heads, q_len, kv_len))
    return (theirs, module), [torch.randn(batch, n, embed) for n in (q_len, kv_len, kv_len)], mask


def scratch_answers(module, inputs, mask, dtype):
    module = copy.deepcopy(module).to(dtype)
    leaves = [x.to(dtype).requires_grad_() for x in inputs]
    out = module(*leaves, mask.to(dtype) if mask.is_floating_point() else mask)
    return [out, *torch.autograd.grad(out, [*leaves, *module.parameters()], cotangent(out))]


@pytest.mark.parametrize("width", ["split", "full"])
def test_from_scratch(width):
    """float64 each by itself; float32 over all, its errors as shares of the largest value."""
    together = Together()
    for seed in range(40):
        modules, inputs, mask = scratch_pair(seed, width)
        in_double, in_single = ([scratch_answers(m, inputs, mask, dtype) for m in modules]
                                for dtype in (torch.float64, torch.float32))
        for i, (want, one, theirs, got) in enumerate(zip(*in_double, *in_single)):
            largest = max(1, want.abs().max())
            assert (one - want).abs().max() <= FLOAT64_LIMIT * largest
            what = "out" if i == 0 else "inputs" if i < 4 else "parameters"
            together.note(f"from scratch, {what}", *(((x - want) / largest).detach().numpy()
                                                  for x in (got, theirs)))
    together.expect_as_exact_as_torch()


def test_from_scratch_refuses():
    for kind in (SeedClass, polyhead.torch.FromScratchMultiHeadAttention):
        with pytest.raises(AssertionError, match="Embedding size needs to be divisible by num_heads"):
            kind(64, 7)

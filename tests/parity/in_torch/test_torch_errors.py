"""What does not fit: torch's error, in type and text; and what polyhead.torch takes that torch does
not."""

import itertools
import warnings

import polyhead.torch
import pytest
import torch
from polyhead.torch import MultiheadAttention, _engine
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

E, H = 8, 2


def modules(**options):
    made = []
    for kind in (nn.MultiheadAttention, MultiheadAttention):
        torch.manual_seed(0)
        made.append(kind(E, H, **options))
    return made


def answer(module, arguments):
    """The outcome as (type, text), or None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            module(**arguments)
        except Exception as error:  # pylint: disable=broad-exception-caught
            return type(error), str(error)
    return None


def expect_same_refusal(arguments, **options):
    theirs, ours = modules(**options)
    want = answer(theirs, arguments | {"need_weights": False})
    assert want is not None
    for need_weights in (False, True):
        assert answer(ours, arguments | {"need_weights": need_weights}) == want


R = torch.rand
GOOD = {"query": R(3, 2, E), "key": R(5, 2, E), "value": R(5, 2, E)}
UNBATCHED = {"query": R(3, E), "key": R(5, E), "value": R(5, E)}
BAD = {
    "1-D query": {"query": R(E)}, "4-D query": {"query": R(1, 3, 2, E)},
    "2-D key": {"key": R(5, E)}, "2-D value": {"value": R(5, E)},
    "padding of rank 1": {"key_padding_mask": R(5) > 0},
    "mask of rank 1": {"attn_mask": R(5) > 0}, "mask of rank 5": {"attn_mask": R(1, 1, 1, 3, 5)},
    "int mask": {"attn_mask": torch.ones(3, 5, dtype=torch.int64)},
    "uint8 padding": {"key_padding_mask": torch.ones(2, 5, dtype=torch.uint8)},
    "complex mask": {"attn_mask": torch.ones(3, 5, dtype=torch.cfloat)},
    "query's width": {"query": R(3, 2, 6)}, "key's width": {"key": R(5, 2, 6), "value": R(5, 2, 6)},
    "value's length": {"value": R(6, 2, E)}, "value's width": {"value": R(5, 2, 6)},
    "mask's shape": {"attn_mask": R(5, 3) > 0}, "3-D mask": {"attn_mask": R(2, 3, 5) > 0},
    "one row of a mask": {"attn_mask": R(1, 5) > 0},
    "batch of the key": {"key": R(5, 3, E), "value": R(5, 3, E)},
    "padding's batch": {"key_padding_mask": R(3, 5) > 0},
    "padding's length": {"key_padding_mask": R(2, 4) > 0},
    "double query": {"query": R(3, 2, E).double()}, "double key": {"key": R(5, 2, E).double()},
    "half query": {"query": R(3, 2, E).half()}, "int value": {"value": torch.ones(5, 2, E).long()},
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("batch_first", [False, True])
def test_refusals(name, batch_first):
    arguments = GOOD | BAD[name]
    if batch_first:
        arguments = {k: x.transpose(0, 1) if k in GOOD and x.dim() > 1 else x
                     for k, x in arguments.items()}
    expect_same_refusal(arguments, batch_first=batch_first)


@pytest.mark.parametrize("changes", [
    {"attn_mask": R(1, 3, 5) > 0}, {"key_padding_mask": R(1, 5) > 0}, {"key": R(5, 2, E)},
    {"attn_mask": R(3, 4) > 0}])
def test_refusals_unbatched(changes):
    expect_same_refusal(UNBATCHED | changes)


@pytest.mark.parametrize("changes", [
    {"key": R(5, 2, E)}, {"key": R(4, 2, 5)}, {"value": R(5, 2, E)}])
def test_refusals_of_separate_projections(changes):
    good = GOOD | {"key": R(5, 2, 5), "value": R(5, 2, 7)}
    expect_same_refusal(good | changes, kdim=5, vdim=7)


def test_mask_dtypes():
    """A float mask has the query's dtype or float32, whatever is asked for; the text is that of
    need_weights=False."""
    theirs, ours = modules()
    for dtype in (torch.float64, torch.float16):
        mask = R(3, 5).to(dtype)
        want = answer(theirs, GOOD | {"attn_mask": mask, "need_weights": False})
        assert want is not None
        for need_weights in (False, True):
            assert answer(ours, GOOD | {"attn_mask": mask, "need_weights": need_weights}) == want
    assert answer(ours.double(), {k: x.double() for k, x in GOOD.items()} | {"attn_mask": R(3, 5)}) is None


def test_mismatched_masks_warn_once():
    _, module = modules()
    with pytest.warns(UserWarning, match="mismatched key_padding_mask and attn_mask") as seen:
        module(**GOOD, key_padding_mask=R(2, 5) < 0.5, attn_mask=R(3, 5))
    assert len(seen) == 1 and seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module(**GOOD, key_padding_mask=R(2, 5) < 0.5, attn_mask=R(3, 5) < 0.5)


def test_tensors_of_another_kind():
    _, module = modules(batch_first=True)
    x = R(2, 3, E)
    nested = torch.nested.nested_tensor([R(3, E), R(2, E)])
    jagged = torch.nested.nested_tensor([R(3, E), R(2, E)], layout=torch.jagged)
    for wrong in (nested, jagged):
        with pytest.raises(AssertionError, match="MultiheadAttention does not support NestedTensor"):
            module(wrong, wrong, wrong)
    out, weights = module.to("meta")(*[x.to("meta")] * 3)
    assert out.shape == (2, 3, E) and weights.shape == (2, 3, 3) and out.is_meta


def other_kinds(*shape):
    """(a tensor, the error, what it says)"""
    x = R(*shape)
    yield x.to_sparse(), RuntimeError, r"query: layout is torch.sparse_coo; need .* query.to_dense\(\)"
    yield x.to_mkldnn(), RuntimeError, r"query: layout is torch._mkldnn; .*query.to_dense\(\)"
    yield x.numpy(), TypeError, "query must be Tensor, not ndarray"
    with FakeTensorMode():
        yield torch.empty(*shape, device="cuda"), RuntimeError, \
            r"query: is on cuda:0; polyhead computes on the CPU: give query.cpu\(\), or"


@pytest.mark.parametrize("kind", range(4))
def test_tensors_of_other_kinds_are_told_what_to_do(kind):
    for call, shape in ((polyhead.torch.scaled_dot_product_attention, (2, 2, 3, E)),
                        (modules(batch_first=True)[1], (2, 3, E))):
        wrong, error, words = list(other_kinds(*shape))[kind]
        x = R(*shape)
        for operands in ((wrong, wrong, wrong), (wrong, x, x)):
            with pytest.raises(error, match=words):
                call(*operands)


def test_nested_and_mixed_operands_are_refused():
    x, nested = R(2, 2, 3, E), torch.nested.nested_tensor([R(2, 3, E), R(2, 2, E)])
    with pytest.raises(RuntimeError, match="query: is a nested tensor; pad it"):
        polyhead.torch.scaled_dot_product_attention(nested, nested, nested)
    for operands in ((x, x.to("meta"), x.to("meta")), (x, x, x, R(3, 3).to("meta"))):
        with pytest.raises((RuntimeError, ValueError), match="device"):
            polyhead.torch.scaled_dot_product_attention(*operands)


@pytest.mark.parametrize("options", [{}, {"bias": False, "add_zero_attn": True}, {"add_bias_kv": True}])
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0), (2, 3)])
@pytest.mark.parametrize("kv_len", [0, 4])
def test_empty(options, shape, kv_len):
    """Results, and every gradient of a sum that sees them all."""
    theirs, ours = modules(batch_first=True, dtype=torch.float64, **options)
    query, key = (torch.rand(*size, E, dtype=torch.float64, requires_grad=True)
                  for size in (shape, (shape[0], kv_len)))
    for average in (True, False):
        answers = []
        for module in (ours, theirs):
            results = module(query, key, key, average_attn_weights=average)
            gradients = torch.autograd.grad(
                sum(x.square().sum() for x in results), [query, key, *module.parameters()])
            answers.append([*results, *gradients])
        for got, want in zip(*answers):
            assert got.shape == want.shape and torch.allclose(got, want)


def test_no_keys():
    _, module = modules(batch_first=True)
    key = torch.empty(2, 0, E)
    out, weights = module(R(2, 3, E), key, key)
    assert torch.equal(out, module.out_proj.bias.expand(2, 3, E)) and weights.shape == (2, 3, 0)


def test_is_causal_needs_no_mask_and_always_holds():
    _, module = modules(batch_first=True)
    x = R(2, 4, E)
    future = torch.ones(4, 4).triu(1).bool()
    padding = torch.tensor([[False] * 4, [False, False, True, True]])
    for train, weights, mask, kpm in itertools.product(
            (True, False), (True, False), (None, future, torch.zeros(4, 4)), (None, padding)):
        module.train(train)
        with torch.set_grad_enabled(train):
            out, _ = module(x, x, x, is_causal=True, need_weights=weights, attn_mask=mask,
                            key_padding_mask=kpm)
            want, _ = module(x, x, x, attn_mask=future, key_padding_mask=kpm)
        assert torch.equal(out, want)


def test_keywords():
    _, module = modules(batch_first=True)
    query, key = R(2, 3, E), R(2, 5, E)
    _, heads = module(query, key, key, weights="per_head", need_weights=False)
    assert heads.shape == (2, H, 3, 5)
    out, _ = module(query, key, key, is_causal=True, causal_align="bottom_right")
    late = torch.ones(3, 5).triu(3).bool()
    assert torch.equal(out, module(query, key, key, attn_mask=late)[0])
    hidden = torch.ones(2, 5, dtype=torch.bool)
    out, heads = module(query, key, key, key_padding_mask=hidden, empty_rows="nan")
    assert out.isnan().all() and heads.isnan().all()
    with pytest.raises(ValueError, match="causal_align"):
        module(query, key, key, is_causal=True, causal_align="left")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits(dtype):
    theirs, ours = (m.to(dtype) for m in modules(batch_first=True))
    x = R(2, 5, E, dtype=dtype, requires_grad=True)
    mask = torch.randn(5, 5, dtype=dtype)
    got, want = (m(x, x, x, attn_mask=mask) for m in (ours, theirs))
    eps = torch.finfo(dtype).eps
    for a, b in zip(got, want):
        assert a.dtype == dtype and torch.allclose(a.float(), b.float(), atol=4 * eps)
    got[0].square().sum().backward()
    assert ours.in_proj_weight.grad.dtype == dtype and x.grad.dtype == dtype
    with torch.no_grad():
        ours.in_proj_weight.mul_(2)
        assert not torch.equal(ours(x, x, x, attn_mask=mask)[0], got[0])


def test_autocast():
    theirs, ours = modules(batch_first=True)
    x = R(2, 5, E, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        got, want = ours(x, x, x), theirs(x, x, x)
    for a, b in zip(got, want):
        assert a.dtype == b.dtype == torch.bfloat16 and torch.allclose(a.float(), b.float(), atol=0.03)
    got[0].float().sum().backward()
    assert ours.in_proj_weight.grad.dtype == torch.float32


class CountCopies(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._to_copy.default
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("same, copies", [(True, 2), (False, 4)])
def test_what_is_given_twice_is_converted_once(same, copies):
    x = torch.zeros(2, 3, 4)
    call = (x, x, x) if same else (x, x.clone(), x.clone())
    with CountCopies() as counted:
        found = _engine.converted((*call, torch.zeros(2, 3), torch.zeros(3, 3) > 0), torch.float64)
    assert counted.count == copies and (found[0] is found[1] is found[2]) == same
    assert [each.dtype for each in found] == [torch.float64] * 4 + [torch.bool]

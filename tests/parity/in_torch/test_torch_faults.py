"""What torch gets wrong, or right on some of its paths alone, is right on every path of ours."""

import itertools
import sys
from pathlib import Path

import pytest
import torch
from polyhead.torch import scaled_dot_product_attention
from torch.func import vmap

from torch_case import OURS, TORCHS

sys.path.append(str(Path(__file__).resolve().parents[3] / "bench/python"))

import memory  # noqa: E402

B, L, E, H = 3, 6, 12, 3
MODES = {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}


def module_and_x(**options):
    torch.manual_seed(4)
    return OURS(E, H, batch_first=True, **options), torch.randn(B, L, E)


def masks_that_hide_all():
    """Of item 1 every key, or of each item's row 2; by one mask, or by two of which each leaves
    some."""
    item = torch.zeros(B, L, dtype=torch.bool)
    item[1] = True
    row = torch.zeros(L, L, dtype=torch.bool)
    row[2] = True
    half = torch.arange(L) < 3
    as_float = lambda mask: torch.zeros(mask.shape).masked_fill(mask, -torch.inf)
    of_row, of_item = (slice(None), 2), (1,)
    yield of_item, {"key_padding_mask": item}
    yield of_item, {"key_padding_mask": as_float(item)}
    yield of_row, {"attn_mask": row}
    yield of_row, {"attn_mask": as_float(row)}
    yield of_row, {"attn_mask": row.expand(B * H, L, L)}
    yield of_row, {"attn_mask": row & half, "key_padding_mask": (~half).expand(B, L)}
    yield of_item, {"key_padding_mask": item, "is_causal": True}


HIDING = list(masks_that_hide_all())


@pytest.mark.parametrize("case", range(len(HIDING)))
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_a_row_that_sees_nothing_is_the_bias(case, train, mode):
    where, masks = HIDING[case]
    for weights, bias in itertools.product((None, "average", "per_head"), (True, False)):
        module, x = module_and_x(bias=bias)
        with MODES[mode]():
            out, given = module.train(train)(x, x, x, need_weights=False, weights=weights, **masks)
        assert out.isfinite().all()
        expected = module.out_proj.bias if bias else torch.zeros(E)
        assert torch.equal(out[where], expected.expand(out[where].shape))
        if weights == "average":
            assert not given[where].any()
        elif weights == "per_head":
            assert not given.transpose(1, 2)[where].any()


@pytest.mark.parametrize("case", range(len(HIDING)))
def test_its_gradients_are_finite_and_leave_no_trace(case):
    """The same gradients as without the queries that see nothing; torch's are NaN with weights."""
    where, masks = HIDING[case]
    module, x = module_and_x()
    x.requires_grad_()
    query = x.detach().clone().requires_grad_()
    out, weights = module(query, x, x, **masks)
    d_out = torch.randn(out.shape)
    gradients = torch.autograd.grad(
        [out, weights], [query, x, *module.parameters()], [d_out, torch.randn(weights.shape)])
    assert all(d.isfinite().all() for d in gradients)
    assert not gradients[0][where].any()
    with torch.no_grad():
        query[where] = 1e3  # whatever stands there
    again, _ = module(query, x, x, **masks)
    assert torch.equal(again, out)


def test_torch_has_nan_there():
    """Else this page of faults could be shorter."""
    where, masks = HIDING[0]
    module, x = TORCHS(E, 4, batch_first=True), module_and_x()[1]  # its fast path wants an even number
    assert module(x, x, x, **masks)[0][where].isnan().all()
    with torch.no_grad():
        assert module.eval()(x, x, x, **masks, need_weights=False)[0][where].isnan().all()


@pytest.mark.parametrize("heads", [3, 4])
@pytest.mark.parametrize("masks", [{}, {"is_causal": True}, {"attn_mask": torch.eye(L).bool()}, {
    "key_padding_mask": torch.arange(L) >= torch.tensor([[6], [3], [0]])}])
def test_one_result_on_every_path(heads, masks):
    torch.manual_seed(5)
    module, x = OURS(E, heads, batch_first=True), torch.randn(B, L, E)
    wanted, _ = module(x, x, x, **masks)
    copies = (x, x, x), (x, x.clone(), x.clone()), (x.requires_grad_(),) * 3
    for train, mode, weights, inputs in itertools.product(
            (True, False), MODES, (None, "average", "per_head"), copies):
        with MODES[mode]():
            out, _ = module.train(train)(*inputs, need_weights=False, weights=weights, **masks)
        assert torch.equal(out, wanted)
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, x, x, **masks)[0], wanted)


def test_is_causal_needs_no_mask_on_any_path():
    module, x = module_and_x()
    changed = torch.cat([x[:, :3], 1e3 * torch.randn(B, L - 3, E)], 1)
    for train, mode, weights in itertools.product(
            (True, False), MODES, (None, "average", "per_head")):
        with MODES[mode]():
            module.train(train)
            before, after = (module(y, y, y, is_causal=True, need_weights=False, weights=weights)
                             for y in (x, changed))
        assert torch.equal(before[0][:, :3], after[0][:, :3])
        assert not torch.equal(before[0][:, 3:], after[0][:, 3:])
        if weights is not None:
            assert not after[1].triu(1).any()


def test_a_value_longer_than_its_key_is_refused():
    """torch reads past the key's end."""
    module, x = module_and_x()
    longer = torch.randn(B, L + 1, E)
    heads, more = torch.randn(2, H, L, 4), torch.randn(2, H, L + 1, 4)
    for mode in MODES.values():
        with mode():
            for one, other in ((x, longer), (longer, x)):
                with pytest.raises(AssertionError, match="key shape .* does not match value shape"):
                    module(x, one, other)
            for one, other in ((heads, more), (more, heads)):
                with pytest.raises(RuntimeError, match="value: length is"):
                    scaled_dot_product_attention(heads, one, other)
    with pytest.raises(RuntimeError, match="value: length is"):
        vmap(scaled_dot_product_attention)(heads, heads, more)


@pytest.mark.parametrize("call", memory.ALLOWED)
def test_memory_of_a_long_sequence(call):
    """4096 tokens, 8 heads, width 512: the scores of all heads would take 512 MiB."""
    ours = memory.measure("polyhead", call)
    print(f"{call}: {ours:.0f} MiB")
    assert ours <= memory.ALLOWED[call]

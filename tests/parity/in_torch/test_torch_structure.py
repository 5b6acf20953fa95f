"""Windows, lengths, segments, softcap, ALiBi, sinks and packed batches in torch: results and gradients
against the formula with everything written out."""

import math

import polyhead.torch
import pytest
import torch
from polyhead.torch import packed_attention, scaled_dot_product_attention as sdpa

B, H, HKV, L, S, D = 2, 4, 2, 21, 26, 8


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
        dtype)


def operands(dtype=torch.float64):
    return [random(B, H, L, D, seed=1, dtype=dtype), random(B, HKV, S, D, seed=2, dtype=dtype),
            random(B, HKV, S, D + 1, seed=3, dtype=dtype)]


def distance(offset=0, q_len=L, kv_len=S):
    """How far query i stands behind key j: [L, S]."""
    return torch.arange(q_len)[:, None] + offset - torch.arange(kv_len)


def formula(query, key, value, visible=True, bias=0.0, softcap=0.0, sinks=None):
    """In torch's own operations, in the operands' dtype."""
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    scores = (scores + bias).masked_fill(~torch.as_tensor(visible), -torch.inf)
    if sinks is not None:
        column = sinks[:, None, None].expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, column], -1)
    return scores.softmax(-1)[..., :value.shape[-2]] @ value


LENGTHS = torch.tensor([S, 9])
SLOPES = random(H, seed=4).abs()
SEGMENTS = torch.arange(L) // 7, torch.arange(S) // 9
SEEN = {"key_lengths": (torch.arange(S) < LENGTHS[:, None])[:, None, None]}
CASES = [
    ({"window": (3, 1)}, {"visible": (distance() <= 3) & (distance() >= -1)}),
    ({"window": (None, 0), "query_offset": 2}, {"visible": distance(2) >= 0}),
    ({"window": (4, None), "is_causal": True, "causal_align": "bottom_right"},
     {"visible": (distance(S - L) <= 4) & (distance(S - L) >= 0)}),
    ({"key_lengths": LENGTHS}, {"visible": SEEN["key_lengths"]}),
    ({"segments": SEGMENTS}, {"visible": SEGMENTS[0][:, None] == SEGMENTS[1]}),
    ({"alibi_slopes": SLOPES}, {"bias": -SLOPES[:, None, None] * distance().abs()}),
    ({"alibi_slopes": SLOPES.expand(B, H), "query_offset": 3, "is_causal": True},
     {"bias": -SLOPES[:, None, None] * distance(3).abs(), "visible": distance(3) >= 0}),
    ({"softcap": 0.7, "window": (5, 5)}, {"softcap": 0.7, "visible": distance().abs() <= 5})]


def gradients(attend, leaves, **options):
    leaves = [x.clone().requires_grad_() for x in leaves]
    if len(leaves) > 3:
        options["sinks"] = leaves[3]
    out = attend(*leaves[:3], **options)
    return [out, *torch.autograd.grad(out, leaves, random(*out.shape, seed=9).to(out))]


def expect_close(ours, wanted):
    """float64 both ways: the sums differ in order alone."""
    for got, want in zip(ours, wanted):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("has_sinks", [False, True])
@pytest.mark.parametrize("options, truth", CASES, ids=range(len(CASES)))
def test_results_and_gradients(options, truth, has_sinks):
    leaves = operands() + ([random(H, seed=5)] if has_sinks else [])
    ours = gradients(lambda *x, **more: sdpa(*x, enable_gqa=True, **options, **more), leaves)
    expect_close(ours, gradients(lambda *x, **more: formula(*x, **truth, **more), leaves))
    with torch.no_grad():
        sinks = {"sinks": leaves[3]} if has_sinks else {}
        assert torch.equal(sdpa(*leaves[:3], enable_gqa=True, **options, **sinks), ours[0])


@pytest.mark.parametrize("options, truth", CASES, ids=range(len(CASES)))
def test_compiled(options, truth):
    leaves = [*operands(), random(H, seed=5)]
    attend = lambda *x, **more: sdpa(*x, enable_gqa=True, **options, **more)
    compiled = torch.compile(attend, backend="aot_eager", fullgraph=True)
    for got, want in zip(gradients(compiled, leaves), gradients(attend, leaves)):
        assert torch.equal(got, want)
    torch._dynamo.reset()


def test_leading_dimensions():
    """Those of key_lengths, segments and slopes are those before the heads."""
    query, key, value = operands()
    options = {"key_lengths": LENGTHS, "alibi_slopes": SLOPES.expand(B, H),
               "segments": tuple(x.expand(B, -1) for x in SEGMENTS), "sinks": random(H, seed=5)}
    flat = sdpa(query, key, value, enable_gqa=True, **options)
    two = {name: tuple(y[:, None] for y in x) if name == "segments" else x[:, None]
           for name, x in options.items() if name != "sinks"}
    folded = sdpa(*(x[:, None] for x in (query, key, value)), enable_gqa=True,
                  sinks=options["sinks"], **two)
    assert torch.equal(folded[:, 0], flat)
    alone = sdpa(query[1], key[1], value[1], enable_gqa=True, key_lengths=LENGTHS[1],
                 alibi_slopes=SLOPES, segments=SEGMENTS, sinks=options["sinks"])
    assert torch.equal(alone, flat[1])


def test_half_precision():
    query, key, value = operands(torch.bfloat16)
    sinks = random(H, seed=5, dtype=torch.bfloat16)
    options = {"window": (3, 3), "alibi_slopes": SLOPES.bfloat16(), "enable_gqa": True}
    ours = sdpa(query, key, value, sinks=sinks, **options)
    wide = sdpa(*(x.float() for x in (query, key, value)), sinks=sinks.float(), **options)
    assert ours.dtype == torch.bfloat16 and torch.equal(ours, wide.bfloat16())


@pytest.mark.parametrize("options", [
    {}, {"is_causal": True}, {"window": (3, 1), "softcap": 0.8}, {"alibi_slopes": SLOPES},
    {"is_causal": True, "causal_align": "bottom_right", "scale": 0.2}], ids=str)
def test_a_packed_batch_is_its_sequences(options):
    of_query = torch.tensor([0, 5, 5, 17, 18], dtype=torch.int32)
    of_key = torch.tensor([0, 9, 12, 13, 20], dtype=torch.int32)
    leaves = [random(18, H, D, seed=1), random(20, HKV, D, seed=2), random(20, HKV, D, seed=3),
              random(H, seed=4)]

    def alone(query, key, value, sinks):
        parts = []
        for n in range(4):
            one = [x[bounds[n]:bounds[n + 1]].transpose(0, 1) for x, bounds in (
                (query, of_query), (key, of_key), (value, of_key))]
            parts.append(sdpa(*one, enable_gqa=True, sinks=sinks, **options).transpose(0, 1))
        return torch.cat(parts)

    ours = gradients(lambda *x, **more: packed_attention(*x, of_query, of_key, **options, **more),
                     leaves)
    wanted = gradients(alone, leaves)
    assert torch.equal(ours[0], wanted[0])
    expect_close(ours[1:], wanted[1:])
    self_attention = packed_attention(leaves[0], leaves[0], leaves[0], of_query, **options)
    assert torch.equal(self_attention, packed_attention(*[leaves[0]] * 3, of_query, of_query, **options))


@pytest.mark.parametrize("options, error, words", [
    ({"window": 3}, TypeError, "window: got 3; need"),
    ({"window": (-5, 1)}, ValueError, "window: got -5; must be"),
    ({"query_offset": 1, "causal_align": "bottom_right"}, ValueError, "query_offset: got 1"),
    ({"key_lengths": [1, 2]}, TypeError, "key_lengths must be Tensor, not list"),
    ({"key_lengths": torch.tensor([1, S + 1])}, ValueError, "between 0 and kv_len"),
    ({"segments": torch.zeros(L)}, TypeError, "segments: got torch.Tensor; need two arrays"),
    ({"alibi_slopes": SLOPES.clone().requires_grad_()}, RuntimeError, "alibi_slopes: requires grad"),
    ({"sinks": SLOPES[:2]}, ValueError, "sinks"), ({"softcap": -1.0}, ValueError, "softcap"),
], ids=str)
def test_refusals(options, error, words):
    with pytest.raises(error) as refusal:
        sdpa(*operands(), enable_gqa=True, **options)
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


def test_refusals_of_a_packed_batch():
    x, bounds = random(12, H, D), torch.tensor([0, 12])
    for arguments, error, words in [
            ((x[0], x, x, bounds), ValueError, "query: shape is (4, 8); need"),
            ((x, x, x, None), TypeError, "cu_seqlens_q must be Tensor"),
            ((x, x, x, torch.tensor([0, 11])), ValueError, "must be q_len = 12"),
            ((x, x, x, bounds, torch.tensor([0, 5, 12])), ValueError, "cu_seqlens_k")]:
        with pytest.raises(error) as refusal:
            packed_attention(*arguments)
        assert words in str(refusal.value), refusal.value


@pytest.mark.parametrize("change, words", [
    ({"key": torch.zeros(4, 2, 8).double()},
     "dtypes are torch.float32, torch.float64, torch.float32; need one dtype"),
    ({"key": torch.zeros(3, 2, 8)}, "value: length is 4; need the key's 3")])
def test_refusals_of_packed_operands_say_what_was_got(change, words):
    given = dict.fromkeys(("query", "key", "value"), torch.zeros(4, 2, 8)) | change
    with pytest.raises(ValueError) as refusal:
        polyhead.torch.packed_attention(**given, cu_seqlens_q=torch.tensor([0, 4]))
    assert str(refusal.value).startswith("packed_attention: ") and words in str(refusal.value)

"""KvCache on torch's tensors: the bits of attention over the whole sequences."""

import numpy as np
import polyhead.torch
import pytest
import torch

B, H, HKV, D, DV = 2, 4, 2, 8, 6
sdpa = polyhead.torch.scaled_dot_product_attention


def filled(length=40, dtype=torch.float32):
    torch.manual_seed(0)
    query, key, value = (torch.randn(B, heads, length, dim).to(dtype)
                         for heads, dim in ((H, D), (HKV, D), (HKV, DV)))
    cache = polyhead.torch.KvCache(
        batch=B, num_kv_heads=HKV, head_dim=D, v_head_dim=DV, page_len=32, num_pages=6,
        dtype=torch.float64 if dtype == torch.float64 else None)
    return cache, query, key, value


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_prefill_and_decode_are_one_pass(dtype):
    cache, query, key, value = filled(dtype=dtype)
    whole = sdpa(query, key, value, is_causal=True, enable_gqa=True)
    for part in (slice(0, 33), slice(33, 34), slice(34, 40)):
        cache.append(key[:, :, part], value[:, :, part])
        out = cache.attend(query[:, :, part], is_causal=True)
        assert out.dtype == dtype and torch.equal(out, whole[:, :, part])


@pytest.mark.parametrize("options", [
    {"window": (5, 0)}, {"softcap": 0.7}, {"sinks": torch.ones(H)}, {"scale": 0.2},
    {"alibi_slopes": torch.arange(4.0)}, {"attn_mask": torch.ones(2, 40).tril(36).bool()},
    {"segments": (torch.tensor([0, 1]), torch.arange(40) // 39)}], ids=lambda x: next(iter(x)))
@pytest.mark.parametrize("weights", [None, "average"])
def test_each_option(options, weights):
    cache, query, key, value = filled()
    cache.append(key, value)
    got = cache.attend(query[:, :, 38:], **options, weights=weights)
    align = "bottom_right" if options.keys() & {"window", "alibi_slopes"} else "top_left"
    want = sdpa(query[:, :, 38:], key, value, enable_gqa=True, causal_align=align, **options,
                weights=weights)
    for ours, theirs in zip(got, want) if weights else [(got, want)]:
        assert torch.equal(ours, theirs)


def test_sequences_of_unequal_lengths():
    cache, query, key, value = filled()
    cache.append(key, value, torch.tensor([40, 7]))
    cache.append(key[1, :, 7:9], value[1, :, 7:9], sequence=1)
    tokens = torch.cat([query[0, :, 38:], query[1, :, 6:9]], 1).transpose(0, 1)
    out = cache.attend(tokens, is_causal=True, cu_seqlens_q=torch.tensor([0, 2, 5]))
    alone = sdpa(query[1, :, :9], key[1, :, :9], value[1, :, :9], is_causal=True, enable_gqa=True)
    assert torch.equal(out[2:].transpose(0, 1), alone[:, 6:])
    assert torch.equal(cache.attend(query[:, :, :3], is_causal=True, query_offset=0)[0],
                       sdpa(query[0, :, :3], key[0, :, :3], value[0, :, :3], is_causal=True,
                            enable_gqa=True))
    cache.truncate(0, 3)
    cache.reset(1)
    assert cache.lengths.tolist() == [3, 0] and isinstance(cache, polyhead.KvCache)


def test_gradients_are_refused_not_lost():
    cache, query, key, value = filled()
    for x, call in ((key, lambda: cache.append(key, value)), (query, lambda: cache.attend(query)),
                    (value, lambda: cache.append(key, value))):
        x.requires_grad_()
        with pytest.raises(RuntimeError, match="requires grad, and a cache has no gradients"):
            call()
        x.requires_grad_(False)
    key.requires_grad_()
    with torch.no_grad():
        cache.append(key, value)
        assert torch.equal(cache.attend(query[:, :, 39:]), sdpa(query[:, :, 39:], key, value, enable_gqa=True))


def test_refusals():
    cache, query, key, value = filled()
    cases = [
        (lambda: cache.append(key.numpy(), value), TypeError, "key must be Tensor, not ndarray"),
        (lambda: cache.append(key.double(), value), ValueError, "key: dtype is float64"),
        (lambda: cache.append(key.to_sparse(), value), RuntimeError, "layout is torch.sparse_coo"),
        (lambda: cache.attend(None), TypeError, "query must be Tensor"),
        (lambda: cache.append(None, value), TypeError, "key must be Tensor"),
        (lambda: cache.append(key.to("meta"), value), RuntimeError, "KvCache: key: is on meta; need a tensor"),
        (lambda: cache.attend(query, cu_seqlens_q=np.array([0])), TypeError,
         "cu_seqlens_q must be Tensor, not ndarray"),
        (lambda: cache.attend(query), ValueError, "append first"),
        (lambda: cache.attend(query, segments=key), TypeError, "KvCache.attend: segments"),
        (lambda: cache.attend(query, is_causal="no"), TypeError, "is_causal: got str")]
    for call, error, words in cases:
        with pytest.raises(error, match=words):
            call()


OF_MODULE = [{}, {"num_kv_heads": 2, "qk_norm": True, "rope": {"pairs": "halves"}}, {"head_dim": 8}]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("options", OF_MODULE, ids=str)
def test_a_module_that_decodes(options, dtype):
    torch.manual_seed(0)
    module = polyhead.torch.MultiheadAttention(16, 4, batch_first=True, dtype=dtype, **options)
    x = torch.randn(B, 40, 16).to(dtype)
    with torch.no_grad():
        whole, _ = module(x, x, x, is_causal=True, need_weights=False)
        cache = polyhead.torch.KvCache(**module.cache_config(B, 4), page_len=32)
        for part in (slice(0, 33), slice(33, 34), slice(34, 40)):
            assert torch.equal(module.forward_cached(x[:, part], cache), whole[:, part])
        cache.reset()
        out = module.forward_cached(x, cache, torch.tensor([40, 7]))
        assert torch.equal(out[1, :7], whole[1, :7]) and not out[1, 7:].any()
        assert torch.equal(module.forward_cached(x[1, 7:9], cache, sequence=1), whole[1, 7:9])
        module.out_proj.bias.add_(1)  # parameters are followed
        cache.reset()
        if dtype != torch.bfloat16:
            assert not torch.equal(module.forward_cached(x, cache), whole)


def test_a_hooked_out_proj_decodes():
    module = polyhead.torch.MultiheadAttention(16, 4, batch_first=True).requires_grad_(False)
    x, calls = torch.randn(B, 5, 16), []
    cache = polyhead.torch.KvCache(**module.cache_config(B, 2), page_len=32)
    want = module.forward_cached(x, cache)
    module.out_proj.register_forward_hook(lambda *call: calls.append(1))
    cache.reset()
    assert torch.allclose(module.forward_cached(x, cache), want, atol=1e-6) and calls == [1]


def test_refusals_of_a_module_that_decodes():
    module = polyhead.torch.MultiheadAttention(16, 4, batch_first=True)
    x, cache = torch.randn(B, 5, 16), polyhead.torch.KvCache(**module.cache_config(B, 2))
    with pytest.raises(RuntimeError, match="parameters require grad, and a cache has no gradients"):
        module.forward_cached(x, cache)
    with torch.no_grad():
        for call, error, words in (
                (lambda: module.forward_cached(x.double(), cache), ValueError, "torch.float64; need"),
                (lambda: module.forward_cached(x, None), TypeError, "cache: got NoneType"),
                (lambda: module.forward_cached(x[0], cache, sequence="1"), TypeError, "sequence: got str"),
                (lambda: module.forward_cached(x[0], cache, sequence=3), ValueError, "sequence: got 3"),
                (lambda: module.forward_cached(x[:1], cache), ValueError, "batch is 1")):
            with pytest.raises(error, match=words):
                call()
    assert not cache.lengths.any()


@pytest.mark.parametrize("kind", [polyhead.KvCache, polyhead.torch.KvCache])
@pytest.mark.parametrize("dtype", [torch.float64, np.float64, np.dtype("float64"), "float64", float])
def test_a_dtype_by_any_name(kind, dtype):
    cache = kind(num_kv_heads=1, head_dim=2, num_pages=1, dtype=dtype)
    assert cache.dtype == "float64"
    assert kind(num_kv_heads=1, head_dim=2, num_pages=1, dtype=cache.dtype).dtype == "float64"


@pytest.mark.parametrize("kind", [polyhead.KvCache, polyhead.torch.KvCache])
@pytest.mark.parametrize("dtype, error", [
    (torch.bfloat16, ValueError), ("bfloat16", ValueError), (np.float16, ValueError), ("f2", ValueError),
    (torch.int32, ValueError), (3, TypeError), (torch.zeros(1), TypeError)], ids=str)
def test_refused_dtypes(kind, dtype, error):
    with pytest.raises(error) as refusal:
        kind(num_kv_heads=1, head_dim=2, num_pages=1, dtype=dtype)
    assert str(refusal.value) == (
        f"dtype: got {dtype!r}; need 'float32' or 'float64', or numpy's or torch's of this name")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_each_cache_is_made_for_the_others_module(dtype):
    numpys = polyhead.MultiheadAttention(16, 4, batch_first=True, dtype=getattr(torch, dtype))
    ours = polyhead.torch.MultiheadAttention(16, 4, batch_first=True, dtype=getattr(torch, dtype))
    ours.load_state_dict({name: torch.tensor(x) for name, x in numpys.state_dict().items()})
    x = torch.randn(B, 5, 16, dtype=ours.in_proj_weight.dtype)
    first = polyhead.torch.KvCache(**numpys.cache_config(B, 2))
    second = polyhead.KvCache(**ours.cache_config(B, 2))
    with torch.no_grad():
        out = ours.forward_cached(x, first)
    assert np.array_equal(out.numpy(), numpys.forward_cached(x, second))


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_what_counts_as_a_sequence(kind):
    module = {"numpy": polyhead.MultiheadAttention, "torch": polyhead.torch.MultiheadAttention}[kind](
        16, 4, batch_first=True)
    cache = {"numpy": polyhead.KvCache, "torch": polyhead.torch.KvCache}[kind](**module.cache_config(B, 2))
    x, key = torch.zeros(3, 16), torch.zeros(4, 3, 4)
    calls = (lambda n: module.forward_cached(x, cache, sequence=n),
             lambda n: cache.append(key, key, sequence=n), lambda n: cache.truncate(n, 2),
             lambda n: cache.truncate(1, n), cache.reset)
    with torch.no_grad():
        for call in calls:
            for one in (1, np.int64(1), np.array(1), torch.tensor(1)):
                call(one)
            for other in (True, np.True_, np.array(True), torch.tensor(True), 1.0, "1"):
                with pytest.raises(TypeError, match="(sequence|length): got .*; need an int$"):
                    call(other)
            with pytest.raises(ValueError, match="(sequence|length): got "):
                call(2**70)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_16_bits_in_a_cache_of_float64(half):
    cache, query, key, value = filled(dtype=torch.float64)
    query, key, value = (x.to(half) for x in (query, key, value))
    cache.append(key, value)
    out = cache.attend(query, is_causal=True, sinks=torch.ones(H, dtype=half))
    want = sdpa(query.double(), key.double(), value.double(), is_causal=True, enable_gqa=True,
                sinks=torch.ones(H))
    assert out.dtype == half and torch.equal(out, want.to(half))

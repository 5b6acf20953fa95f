"""polyhead.scaled_dot_product_attention against torch's, on torch's own tensors."""

import numpy as np
import polyhead
import pytest
import torch
from contract import attention
from error_rule import expect_as_good
from torch.nn.functional import scaled_dot_product_attention as torchs

NUM_CASES = 300


def draw(seed):
    """(query, key, value, options) in float64, as any of torch's paths takes them."""
    rng = np.random.default_rng(seed)
    pick = lambda *choices: choices[rng.integers(len(choices))]
    q_len, kv_len = pick(1, 2, 7, 16, 33, 130), pick(1, 3, 8, 17, 65)
    head_dim, v_head_dim = pick(1, 3, 8, 40, 64), pick(1, 5, 8, 64)
    leading = [pick(1, 2, 3) for _ in range(pick(0, 1, 2, 2, 2, 3))]
    options = {"scale": pick(None, None, 0.1, -1.0)}
    kv_leading = list(leading)
    if len(leading) > 1 and pick(True, False):
        group = pick(1, 2, 4)
        leading[-1] = kv_leading[-1] * group
        options["enable_gqa"] = True
    normal = lambda *shape: torch.from_numpy(rng.standard_normal(shape))
    query = normal(*leading, q_len, head_dim)
    key, value = normal(*kv_leading, kv_len, head_dim), normal(*kv_leading, kv_len, v_head_dim)
    kind = pick("none", "causal", "bool", "float")
    if kind == "causal":
        options["is_causal"] = True
    elif kind != "none":
        shape = [size if pick(True, False) else 1 for size in (*leading, q_len, kv_len)]
        shape = shape[pick(0, len(leading)):]
        visible = torch.from_numpy(rng.random(shape) < 0.7)
        bias = normal(*shape).masked_fill(~visible, -torch.inf)
        options["attn_mask"] = visible if kind == "bool" else bias
    if pick(True, False):  # strides of another layout
        query, key, value = (x.transpose(-1, -2).contiguous().transpose(-1, -2)
                             for x in (query, key, value))
    return query, key, value, options


def in_dtype(dtype, query, key, value, options):
    mask = options.get("attn_mask")
    if mask is not None and mask.dtype != torch.bool:
        options = options | {"attn_mask": mask.to(dtype)}
    return *(x.to(dtype) for x in (query, key, value)), options


def naive_of(query, key, value, options):
    """The formula in numpy, float32, in three orders of summation."""
    if options.get("enable_gqa"):
        repeat = query.shape[-3] // key.shape[-3]
        key, value = (x.repeat_interleave(repeat, -3) for x in (key, value))
    visible, bias, mask = True, 0, options.get("attn_mask")
    if options.get("is_causal"):
        visible = np.tri(query.shape[-2], key.shape[-2], dtype=bool)
    elif mask is not None and mask.dtype == torch.bool:
        visible = mask.numpy()
    elif mask is not None:
        bias = mask.numpy()
    return [attention(query, key, value, visible, bias, options["scale"], dtype=np.float32,
                      step=step)[0] for step in (1, -1, 0)]


def truth_of(query, key, value, options):
    """In float64, by torch's plain formula; a row without keys is 0."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return torchs(query, key, value, **options).numpy()


@pytest.mark.parametrize("seed", range(NUM_CASES))
def test_random_call(seed):
    query, key, value, options = in_dtype(torch.float32, *draw(seed))
    ours = polyhead.scaled_dot_product_attention(query, key, value, **options)
    assert ours.dtype == np.float32
    truth = truth_of(*in_dtype(torch.float64, query, key, value, options))
    others = [torchs(query, key, value, **options).numpy(), *naive_of(query, key, value, options)]
    expect_as_good("attention", ours, truth, others)


def test_tensors_that_cannot_be_shared_are_refused():
    x = torch.zeros(1, 2, 3, 8)
    for wrong, words in ((x.clone().requires_grad_(), "use tensor.detach"), (x.to("meta"), "meta"),
                         (x.to_sparse(), "strided"), (torch.zeros(1, 2, 3, 8, dtype=torch.cfloat), "")):
        with pytest.raises(TypeError, match=f"query: got Tensor of dtype .*{words}"):
            polyhead.scaled_dot_product_attention(wrong, x, x)
    with pytest.raises(TypeError, match=r"query: got a negated view; need tensor.resolve_neg\(\)"):
        polyhead.scaled_dot_product_attention(torch.view_as_complex(x.view(1, 2, 3, 4, 2)).conj().imag,
                                              x, x)
    with pytest.raises(ValueError, match="query: dtype is bfloat16; need float32 or float64"):
        polyhead.scaled_dot_product_attention(x.bfloat16(), x, x)

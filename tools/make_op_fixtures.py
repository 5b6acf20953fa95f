#!/usr/bin/env python3
"""Writes tests/data/op_fixtures.safetensors: attention forward and gradients by PyTorch in float64.

    python tools/make_op_fixtures.py tests/data/op_fixtures.safetensors

Needs torch 2.13 and safetensors. The tests of the double reference read the file and need neither.
Tensors of case N are named "N.query", "N.d_query", ...; what is absent was not used:
  query key value extra_key extra_value mask_bool (true = included) mask_add scale causal (1: top
  left, 2: bottom right) d_out d_weights, and the answers out lse weights d_query d_key d_value
  d_extra_key d_extra_value d_mask_add.
"""
import math
import sys

import torch
from safetensors.torch import save_file

torch.set_default_dtype(torch.float64)

# B, H, Hkv, L, S, D, Dv and options, one case a line.
CASES = [
    dict(shape=(1, 1, 1, 1, 1, 1, 1)),
    dict(shape=(2, 2, 2, 5, 7, 4, 4)),
    dict(shape=(1, 4, 2, 6, 9, 8, 3), scale=0.3),
    dict(shape=(2, 6, 1, 3, 10, 5, 6), weights="average"),
    dict(shape=(1, 2, 2, 8, 8, 4, 4), causal=1, weights="per_head"),
    dict(shape=(1, 2, 2, 4, 11, 4, 4), causal=2),
    dict(shape=(1, 2, 2, 9, 5, 4, 4), causal=1),
    dict(shape=(2, 2, 2, 5, 7, 4, 4), mask_bool=(2, 1, 1, 7), weights="average"),
    dict(shape=(2, 4, 2, 5, 7, 4, 4), mask_bool=(5, 7)),
    dict(shape=(2, 2, 2, 5, 7, 4, 4), mask_add=(2, 2, 5, 7), weights="per_head"),
    dict(shape=(2, 2, 2, 5, 7, 4, 4), mask_add=(2, 1, 7), mask_bool=(5, 7), causal=1),
    dict(shape=(2, 2, 2, 5, 7, 4, 4), mask_bool=(5, 7), empty_row=3),
    dict(shape=(2, 4, 4, 3, 6, 4, 4), extra=2, weights="average"),
    dict(shape=(1, 4, 2, 5, 6, 4, 5), extra=1, mask_bool=(1, 1, 5, 6), causal=1, weights="per_head"),
    dict(shape=(1, 2, 2, 33, 65, 16, 8), spread=4.0, causal=2, weights="average"),
]


def inputs_of(case):
    """The leaves of the graph, and the options, as named tensors."""
    batch, heads, kv_heads, q_len, kv_len, head_dim, v_head_dim = case["shape"]
    leaves = {
        "query": case.get("spread", 1.0) * torch.randn(batch, heads, q_len, head_dim),
        "key": torch.randn(batch, kv_heads, kv_len, head_dim),
        "value": torch.randn(batch, kv_heads, kv_len, v_head_dim),
    }
    options = {"scale": torch.tensor([case.get("scale", 1 / math.sqrt(head_dim))])}
    if extra := case.get("extra"):
        leaves["extra_key"] = torch.randn(kv_heads, extra, head_dim)
        leaves["extra_value"] = torch.randn(kv_heads, extra, v_head_dim)
    if shape := case.get("mask_add"):
        leaves["mask_add"] = torch.randn(shape)
        leaves["mask_add"][torch.rand(shape) < 0.2] = -math.inf
    if shape := case.get("mask_bool"):
        options["mask_bool"] = torch.rand(shape) < 0.7
        options["mask_bool"][..., 0] = True  # every row keeps a key, ...
        if (row := case.get("empty_row")) is not None:
            options["mask_bool"][..., row, :] = False  # ... but this one
    if causal := case.get("causal"):
        options["causal"] = torch.tensor([causal])
    return leaves, options


def bias_of(leaves, options, shape):
    """All masks as one additive [B, H, L, S]."""
    batch, heads, _, q_len, kv_len, _, _ = shape
    bias = torch.zeros(batch, heads, q_len, kv_len)
    if "mask_add" in leaves:
        bias = bias + leaves["mask_add"]
    if "mask_bool" in options:
        bias = bias.masked_fill(~options["mask_bool"], -math.inf)
    if "causal" in options:
        offset = 0 if options["causal"].item() == 1 else kv_len - q_len
        bias = bias.masked_fill(~torch.ones(q_len, kv_len).tril(offset).bool(), -math.inf)
    return bias


def forward(leaves, options, shape):
    """out by torch's own scaled_dot_product_attention; lse and weights by the formula, checked."""
    batch, heads, kv_heads, q_len, _, _, _ = shape
    key, value = leaves["key"], leaves["value"]
    bias = bias_of(leaves, options, shape)
    if "extra_key" in leaves:
        key = torch.cat([key, leaves["extra_key"].expand(batch, -1, -1, -1)], dim=2)
        value = torch.cat([value, leaves["extra_value"].expand(batch, -1, -1, -1)], dim=2)
        columns = leaves["extra_key"].shape[1]
        bias = torch.cat([bias, torch.zeros(batch, heads, q_len, columns)], dim=3)
    key = key.repeat_interleave(heads // kv_heads, dim=1)
    value = value.repeat_interleave(heads // kv_heads, dim=1)
    scale = options["scale"].item()
    out = torch.nn.functional.scaled_dot_product_attention(
        leaves["query"], key, value, attn_mask=bias, scale=scale)
    scores = scale * leaves["query"] @ key.transpose(2, 3) + bias
    lse = scores.logsumexp(dim=3)
    empty = (lse == -math.inf).unsqueeze(3)
    probs = torch.where(empty, 0.0, (scores.masked_fill(empty, 0) -
                                     lse.unsqueeze(3).masked_fill(empty, 0)).exp())
    torch.testing.assert_close(probs @ value, out)
    return out, lse, probs


def run(case):
    leaves, options = inputs_of(case)
    for leaf in leaves.values():
        leaf.requires_grad_()
    out, lse, probs = forward(leaves, options, case["shape"])
    tensors = {"out": out, "lse": lse, "d_out": torch.randn_like(out)}
    loss = (out * tensors["d_out"]).sum()
    if weights := case.get("weights"):
        tensors["weights"] = probs if weights == "per_head" else probs.mean(dim=1)
        tensors["d_weights"] = torch.randn_like(tensors["weights"])
        loss = loss + (tensors["weights"] * tensors["d_weights"]).sum()
    loss.backward()
    tensors |= {f"d_{name}": leaf.grad for name, leaf in leaves.items()}
    for name, tensor in tensors.items():
        assert name == "lse" or tensor.isfinite().all(), (case, name)
    return {name: t.detach().contiguous() for name, t in (leaves | options | tensors).items()}


def main():
    torch.manual_seed(2026)
    tensors = {}
    for number, case in enumerate(CASES):
        tensors |= {f"{number}.{name}": tensor for name, tensor in run(case).items()}
    save_file(tensors, sys.argv[1], {"cases": str(len(CASES)), "torch": torch.__version__})


if __name__ == "__main__":
    main()

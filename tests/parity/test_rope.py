"""Rotary positions, norms and grouped heads against attention as LLaMA-style models write it in
PyTorch: rotate_half or neighbours, cos and sin of position * base^(-2i/d), RMS norms of heads, keys
repeated for the query heads that share them."""

import itertools
import math
import subprocess

import numpy as np
import pytest
import safetensors.numpy
import torch

from error_rule import expect_as_good

HEADS, KV_HEADS, DIM, WIDTH, BATCH, LENGTH = 6, 2, 16, 24, 2, 29
EPS = 1e-5


def frequencies(rope, dtype):
    """As transformers has them, modeling_rope_utils."""
    dim, base, factor = rope["rotary_dim"], rope["base"], rope.get("factor", 1)
    if rope.get("scaling") == "ntk":
        base = base * factor**(dim / (dim - 2))
    plain = 1.0 / (base**(torch.arange(0, dim, 2, dtype=dtype) / dim))
    if rope.get("scaling") == "linear":
        return plain / factor
    if rope.get("scaling") != "llama3":
        return plain
    length, low, high = rope["original_length"], rope["low_freq_factor"], rope["high_freq_factor"]
    wavelength = 2 * math.pi / plain
    smooth = (length / wavelength - low) / (high - low)
    blend = (1 - smooth) * plain / factor + smooth * plain
    scaled = torch.where(wavelength > length / low, plain / factor, plain)
    between = ~(wavelength < length / high) * ~(wavelength > length / low)
    return torch.where(between, blend, scaled)


def rotate_half(x):
    left, right = x.chunk(2, dim=-1)
    return torch.cat((-right, left), dim=-1)


def rotate_neighbours(x):
    return torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)


def turned(x, rope, first):
    """x [batch, heads, length, head_dim]."""
    if rope is None:
        return x
    dim = rope["rotary_dim"]
    positions = first + torch.arange(x.shape[-2], dtype=x.dtype)
    angles = positions[:, None] * frequencies(rope, x.dtype)[None]
    if rope["pairs"] == "halves":
        angles, other = torch.cat((angles, angles), dim=-1), rotate_half
    else:
        angles, other = angles.repeat_interleave(2, dim=-1), rotate_neighbours
    head, rest = x[..., :dim], x[..., dim:]
    return torch.cat((head * angles.cos() + other(head) * angles.sin(), rest), dim=-1)


def normed(x, weight):
    if weight is None:
        return x
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS))


def attention(x, weights, rope, first):
    def heads(name):
        y = x @ weights[f"{name}_proj.weight"].T
        return y.view(BATCH, LENGTH, -1, DIM).transpose(1, 2)

    q = turned(normed(heads("q"), weights.get("q_norm.weight")), rope, first)
    k = turned(normed(heads("k"), weights.get("k_norm.weight")), rope, first)
    k, v = (y.repeat_interleave(HEADS // KV_HEADS, dim=1) for y in (k, heads("v")))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return out.transpose(1, 2).flatten(2) @ weights["o_proj.weight"].T


def in_torch(state, x, d_out, rope, first, dtype):
    """out, and the gradients of x and of every weight."""
    leaves = {name: torch.tensor(value, dtype=dtype, requires_grad=True)
              for name, value in (state | {"x": x}).items()}
    out = attention(leaves["x"], leaves, rope, first)
    (out * torch.tensor(d_out, dtype=dtype)).sum().backward()
    return {"out": out.detach().numpy()} | {name: leaf.grad.numpy() for name, leaf in leaves.items()}


OUR_NAMES = {f"{part}_proj.weight": f"{part}_proj_weight" for part in "qkv"}
OUR_NAMES |= {"o_proj.weight": "out_proj.weight"}


def ours(build, folder, state, x, d_out, rope, first):
    prefix = "model.layers.0.self_attn."
    stated = {"num_heads": HEADS, "qk_norm_eps": EPS}
    stated |= {f"rope_{name}": value for name, value in (rope or {}).items()}
    safetensors.numpy.save_file({prefix + name: value for name, value in state.items()},
                                folder / "module.safetensors",
                                {name: str(value) for name, value in stated.items()})
    metadata = {"class": "llama", "module": folder / "module.safetensors", "position": first}
    safetensors.numpy.save_file({"query": x, "d_out": d_out}, folder / "step.safetensors",
                                {name: str(value) for name, value in metadata.items()})
    command = [build / "tests/parity/module_gradients", folder / "step.safetensors",
               folder / "d.safetensors"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    found = safetensors.numpy.load_file(folder / "d.safetensors")
    names = {name: f"d/parameter/{OUR_NAMES.get(name, name)}" for name in state}
    names |= {"x": "d/query", "out": "out"}
    return {name: found[ours] for name, ours in names.items()}


SCALINGS = [{}, {"scaling": "linear", "factor": 4.0}, {"scaling": "ntk", "factor": 4.0},
            {"scaling": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
             "original_length": 64}]
ROPES = [None] + [
    {"pairs": pairs, "base": 500.0, "rotary_dim": dim} | scaling
    for pairs, dim, scaling in itertools.product(["halves", "interleaved"], [DIM, 10], SCALINGS)]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("rope", ROPES, ids=str)
def test_attention_as_llama_writes_it(build, tmp_path, rope, norm):
    rng = np.random.default_rng(7)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    state = {"q_proj.weight": draw(HEADS * DIM, WIDTH) / 3, "k_proj.weight": draw(KV_HEADS * DIM, WIDTH) / 3,
             "v_proj.weight": draw(KV_HEADS * DIM, WIDTH) / 3, "o_proj.weight": draw(WIDTH, HEADS * DIM) / 6}
    if norm:
        state |= {"q_norm.weight": 1 + draw(DIM) / 3, "k_norm.weight": 1 + draw(DIM) / 3}
    x, d_out = draw(BATCH, LENGTH, WIDTH), draw(BATCH, LENGTH, WIDTH)
    first = 0 if rope is None else 37
    truth = in_torch(state, x, d_out, rope, first, torch.float64)
    single = in_torch(state, x, d_out, rope, first, torch.float32)
    # The batch the other way round: sums over it in another order, lest one be exact by luck.
    turned_round = in_torch(state, x[::-1].copy(), d_out[::-1].copy(), rope, first, torch.float32)
    turned_round |= {name: turned_round[name][::-1] for name in ("out", "x")}
    for name, got in ours(build, tmp_path, state, x, d_out, rope, first).items():
        expect_as_good(f"rope: {name}", got, truth[name], [single[name], turned_round[name]])

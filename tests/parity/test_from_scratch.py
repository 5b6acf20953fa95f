"""The from-scratch class against the PyTorch code it follows, run as it stands in seed.txt."""

import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from polyhead import FromScratchMultiHeadAttention

import contract
from case import DTYPES, run
from error_rule import expect_as_good

NUM_CASES = 150
SEED_TEXT = (Path(__file__).parent / "seed.txt").read_text(encoding="utf-8")


def seed_class():
    blocks = re.findall(r"^```python\n(.*?)^```", SEED_TEXT, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1
    namespace = {}
    exec(compile(blocks[0], "seed.txt", "exec"), namespace)  # pylint: disable=exec-used
    return namespace["MultiHeadAttention"]


SeedClass = seed_class()


def split_module(embed_size, num_heads):
    return SeedClass(embed_size, num_heads)


def wide_module(embed_size, num_heads):
    """The variant with wide heads: projections to embed_size * num_heads, each head as wide as
    the embedding. Its forward is the class's: embed_size is read only where heads are joined."""
    module = SeedClass(embed_size * num_heads, num_heads)  # head_dim = embed_size
    module.q_linear, module.k_linear, module.v_linear = (
        torch.nn.Linear(embed_size, embed_size * num_heads) for _ in range(3))
    module.fc_out = torch.nn.Linear(embed_size * num_heads, embed_size)
    return module


def draw_mask(rng, batch, heads, q_len, kv_len):
    """Any of the shapes that broadcast onto [B, H, L, S], in any number type torch would take."""
    shapes = [(kv_len,), (q_len, 1), (q_len, kv_len), (heads, q_len, kv_len), (batch, 1, 1, kv_len),
              (1, heads, q_len, 1), (batch, heads, q_len, kv_len)]
    shape = shapes[rng.integers(len(shapes))]
    kind = rng.integers(5)
    hidden = rng.random(shape) < 0.3
    if kind == 0:
        return hidden
    if kind == 1:
        return hidden.astype(np.int64)
    if kind == 2:
        return (hidden * rng.standard_normal(shape)).astype(np.float32)  # fractions and negatives
    if kind == 3:
        return (rng.standard_normal(shape) * 1e-5).astype(np.float32)  # shifts scores by about 1
    return hidden.astype(np.float32)


def answer(module, inputs, mask, dtype):
    module = module.to(DTYPES[dtype])
    mask = None if mask is None else torch.from_numpy(mask)
    if mask is not None and mask.is_floating_point():
        mask = mask.to(DTYPES[dtype])
    with torch.no_grad():
        return module(*(torch.from_numpy(x).to(DTYPES[dtype]) for x in inputs), mask).numpy()


def formula(state, heads, inputs, mask, dtype, step=0):
    """The same in NumPy and any precision; `step` as in contract.product()."""
    names = ("q_linear", "k_linear", "v_linear")
    q, k, v = (contract.project(x, state[f"{n}.weight"], state[f"{n}.bias"], dtype, step)
               for n, x in zip(names, inputs))
    q, k, v = (x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2) for x in (q, k, v))
    scores = contract.product(q, k.swapaxes(-1, -2), step) / np.sqrt(dtype(q.shape[-1]))
    if mask is not None:
        scores = scores + mask.astype(dtype) * dtype(-1e5)
    weights = contract.softmax(scores, np.zeros(scores.shape, bool))
    joined = contract.product(weights, v, step).swapaxes(1, 2)
    joined = joined.reshape(*joined.shape[:2], -1)
    return contract.project(joined, state["fc_out.weight"], state["fc_out.bias"], dtype, step)


def command_answer(polyhead, module, heads, inputs, mask, folder):
    tensors = {name: p.detach().contiguous() for name, p in module.state_dict().items()}
    safetensors.torch.save_file(tensors, folder / "w.safetensors")
    flags = ["--weights", folder / "w.safetensors", "--num-heads", heads]
    names = ["query", "key", "value"] + ([] if mask is None else ["scratch-mask"])
    for name, array in zip(names, [*inputs, mask]):
        np.save(folder / f"{name}.npy", array)
        flags += [f"--{name}", folder / f"{name}.npy"]
    run(polyhead, "run", *flags, "--out", folder / "out.npy")
    return np.load(folder / "out.npy")


def expect_formula_is_the_seeds(module, state, heads, inputs, mask):
    """In float64, up to some orders of summation: who is more exact is not the question here."""
    naive = [formula(state, heads, inputs, mask, np.float64, step) for step in (1, -1)]
    expect_as_good("the class's code and its formula", answer(module, inputs, mask, "float64"),
                   formula(state, heads, inputs, mask, np.longdouble), naive, factor=16)


@pytest.mark.parametrize("make", [split_module, wide_module])
@pytest.mark.parametrize("seed", range(NUM_CASES // 2))
def test_random_configuration(polyhead, tmp_path, make, seed):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    heads = int(rng.choice([1, 2, 3, 5, 8]))
    embed = int(rng.choice([1, 2, 4, 8, 16])) * heads
    batch, q_len, kv_len = int(rng.integers(1, 5)), int(rng.integers(1, 40)), int(rng.integers(1, 40))
    dtype = "float64" if rng.random() < 0.3 else "float32"
    module = make(embed, heads).to(DTYPES[dtype])
    inputs = [rng.standard_normal((batch, n, embed)).astype(dtype) for n in (q_len, kv_len, kv_len)]
    mask = None if rng.random() < 0.2 else draw_mask(rng, batch, heads, q_len, kv_len)
    ours = command_answer(polyhead, module, heads, inputs, mask, tmp_path)
    state = {name: p.detach().numpy() for name, p in module.state_dict().items()}
    narrow = np.dtype(dtype).type
    precise = np.float64 if dtype == "float32" else np.longdouble
    truth = formula(state, heads, inputs, mask, precise)
    seeds = answer(module, inputs, mask, dtype)
    naive = [formula(state, heads, inputs, mask, narrow, step) for step in (1, -1, 0)]
    expect_formula_is_the_seeds(module, state, heads, inputs, mask)
    expect_as_good(f"from scratch, {dtype}", ours, truth, [seeds, *naive])
    width = "split" if make is split_module else "full"
    twin = FromScratchMultiHeadAttention(embed, heads, width, dtype=dtype)
    twin.load_state_dict(module.state_dict())  # torch's own tensors
    np.testing.assert_array_equal(twin(*inputs, mask), ours)


def test_the_seeds_assertion(polyhead, tmp_path):
    with pytest.raises(AssertionError) as refusal:
        SeedClass(64, 7)
    tensors = {n: p.detach() for n, p in SeedClass(64, 8).state_dict().items()}
    safetensors.torch.save_file(tensors, tmp_path / "w.safetensors")
    np.save(tmp_path / "q.npy", np.zeros((1, 3, 64), np.float32))
    with pytest.raises(AssertionError, match=str(refusal.value)):
        run(polyhead, "run", "--weights", tmp_path / "w.safetensors", "--num-heads", 7, "--query",
            tmp_path / "q.npy", "--out", tmp_path / "o.npy")

"""Every gradient of the C++ modules against torch's autograd: random configurations of all options."""

import numpy as np
import pytest
import safetensors.numpy
import torch

import contract_gradients
from case import DTYPES, NUM_CASES, draw, fill, run, torch_mask, torch_module
from error_rule import LessExact, expect_as_good
from test_from_scratch import draw_mask, split_module, wide_module
from test_multihead_attention import expect_same_as_torch

SEEDS = range(10_000, 10_000 + NUM_CASES)  # other cases than the forward's,
HEAD_DIMS = (1, 2, 3, 5, 8, 16, 20, 32)  # and smaller ones: naive gradients are slow
LENGTHS = (1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 65)
DRAWS = 5
OPTIONS = ("embed_dim", "num_heads", "kdim", "vdim", "bias", "add_bias_kv", "add_zero_attn",
           "batch_first", "is_causal", "causal_align", "need_weights")


def cotangents(case):
    """d_out [B, L, E] and d_weights as they are returned, [B, (H,) L, S'] or None."""
    rng = np.random.default_rng(case.seed + 1)
    d_out = rng.standard_normal((case.batch, case.q_len, case.embed_dim)).astype(case.dtype)
    if case.need_weights == "none":
        return d_out, None
    columns = case.kv_len + case.add_bias_kv + case.add_zero_attn
    heads = (case.num_heads,) if case.need_weights == "per-head" else ()
    return d_out, rng.standard_normal((case.batch, *heads, case.q_len, columns)).astype(case.dtype)


def in_layout(case, x):
    """A batch-first array as the caller has it."""
    if x is None or case.unbatched:
        return None if x is None else x[0]
    return x if case.batch_first else np.ascontiguousarray(x.swapaxes(0, 1))


def padding_of(case):
    padding = case.key_padding_mask
    return padding[0] if case.unbatched and padding is not None else padding


def formula(case, d_out, d_weights, dtype, step=0, lean=False):
    """contract_gradients in the caller's shapes."""
    if d_weights is None:
        share = np.zeros((1, 1, 1, 1))
    elif case.need_weights == "average":
        share = np.asarray(d_weights, dtype)[:, None] / dtype(case.num_heads)
    else:
        share = d_weights
    found = contract_gradients.gradients(case, (d_out, share), dtype, step, lean)
    if "key_padding_mask" in found and case.unbatched:
        found["key_padding_mask"] = found["key_padding_mask"][0]
    return {name: in_layout(case, x) if name in ("query", "key", "value") else x
            for name, x in found.items()}


class TorchStep:
    """One step of nn.MultiheadAttention; its leaves by the names of their gradients."""

    def __init__(self, case, dtype):
        self.case, self.dtype, self.leaves = case, DTYPES[dtype], {}
        self.module = torch_module(case, dtype)
        self.module.load_state_dict({n: torch.from_numpy(np.array(a)) for n, a in case.state.items()})
        self.leaves |= dict(self.module.named_parameters())

    def leaf(self, name, array):
        if array is None:
            return None
        tensor = torch.from_numpy(np.array(array))
        if array.dtype == bool:
            return tensor
        self.leaves[name] = tensor.to(self.dtype).requires_grad_()
        return self.leaves[name]

    def attn_mask(self):
        case = self.case
        if case.attn_mask is None or case.attn_mask.dtype == bool:
            mask = torch_mask(case)
            return None if mask is None else torch.from_numpy(np.array(mask))
        mask = self.leaf("attn_mask", case.attn_mask)
        if mask.ndim == 4:
            full = (case.batch, case.num_heads, case.q_len, case.kv_len)
            mask = mask.expand(full).reshape(-1, *full[2:])
        if case.is_causal:
            offset = case.kv_len - case.q_len if case.causal_align == "bottom-right" else 0
            future = ~np.tri(case.q_len, case.kv_len, offset, dtype=bool)
            mask = mask.masked_fill(torch.from_numpy(future), -torch.inf)
        return mask

    def run(self, d_out, d_weights):
        case = self.case
        arrays = dict(zip(("query", "key", "value"), case.inputs()))
        if case.self_attention:
            inputs = [self.leaf("query", arrays["query"])] * 3
        else:
            inputs = [self.leaf(name, array) for name, array in arrays.items()]
        out, weights = self.module(
            *inputs, attn_mask=self.attn_mask(),
            key_padding_mask=self.leaf("key_padding_mask", padding_of(case)),
            need_weights=case.need_weights != "none",
            average_attn_weights=case.need_weights != "per-head")
        tensor = lambda array: torch.from_numpy(np.array(array)).to(self.dtype)
        loss = (out * tensor(in_layout(case, d_out))).sum()
        if d_weights is not None:
            loss = loss + (weights * tensor(d_weights[0] if case.unbatched else d_weights)).sum()
        loss.backward()
        return {name: leaf.grad.numpy() for name, leaf in self.leaves.items()}


def our_gradients(build, folder, tensors, metadata):
    """The program's answer: gradients by name, parameters without their prefix."""
    tensors = {name: np.ascontiguousarray(x) for name, x in tensors.items() if x is not None}
    safetensors.numpy.save_file(tensors, folder / "step.safetensors",
                                {name: str(value) for name, value in metadata.items()})
    run(build / "tests/parity/module_gradients", folder / "step.safetensors", folder / "d.safetensors")
    found = safetensors.numpy.load_file(folder / "d.safetensors")
    return {name.removeprefix("d/").removeprefix("parameter/"): x for name, x in found.items()
            if name.startswith("d/")}


def our_answer(build, folder, case, d_out, d_weights):
    query, key, value = case.inputs()
    tensors = {"query": query, "attn_mask": case.attn_mask, "key_padding_mask": padding_of(case),
               "d_out": in_layout(case, d_out)}
    tensors |= {f"parameter/{name}": x for name, x in case.state.items()}
    if not case.self_attention:
        tensors |= {"key": key, "value": value}
    if d_weights is not None:
        tensors["d_weights"] = d_weights[0] if case.unbatched else d_weights
    metadata = {"class": "mha"} | {name: getattr(case, name) for name in OPTIONS}
    return our_gradients(build, folder, tensors, metadata)


def expect_gradients(build, folder, case):
    d_out, d_weights = cotangents(case)
    precise, narrow = np.float64 if case.dtype == "float32" else np.longdouble, np.dtype(case.dtype).type
    truth = formula(case, d_out, d_weights, precise)
    for name, gradient in TorchStep(case, "float64").run(d_out, d_weights).items():
        expect_same_as_torch(truth[name], gradient)
    ours = our_answer(build, folder, case, d_out, d_weights)
    assert ours.keys() == truth.keys()
    torchs = TorchStep(case, case.dtype).run(d_out, d_weights)
    naive = [formula(case, d_out, d_weights, narrow, step, lean)
             for step in (1, -1, 0) for lean in (False, True)]
    for name, gradient in ours.items():
        assert gradient.dtype == case.dtype and np.isfinite(gradient).all()
        kind = name if name in ("query", "key", "value") else "masks" if "mask" in name else "parameters"
        expect_as_good(f"gradient of {kind}, {case.dtype}", gradient, truth[name],
                       [torchs[name], *(each[name] for each in naive)])


@pytest.mark.parametrize("seed", SEEDS)
def test_random_configuration(build, tmp_path, seed):
    """Who has the larger error is a matter of luck in one draw of a hundred: with several numbers,
    one of a few elements carries the most. A defect shows in other draws too."""
    case = draw(seed, HEAD_DIMS, LENGTHS)
    print(case.describe())
    for attempt in range(DRAWS):
        try:
            return expect_gradients(build, tmp_path, case)
        except LessExact:
            if attempt + 1 == DRAWS:
                raise
        fill(case, np.random.default_rng((seed, attempt)))


def scratch_gradients(module, inputs, mask, d_out, dtype):
    """The from-scratch class's own, by autograd."""
    module = module.to(DTYPES[dtype])
    module.zero_grad()
    leaf = lambda x: torch.from_numpy(np.array(x)).to(DTYPES[dtype]).requires_grad_()
    leaves = dict(zip(("query", "key", "value"), map(leaf, inputs)))
    given = None if mask is None else torch.from_numpy(mask)
    if mask is not None and mask.dtype == np.float32:
        given = leaves["attn_mask"] = leaf(mask)
    out = module(*(leaves[name] for name in ("query", "key", "value")), given)
    (out * torch.from_numpy(d_out).to(DTYPES[dtype])).sum().backward()
    leaves |= dict(module.named_parameters())
    return {name: tensor.grad.numpy().copy() for name, tensor in leaves.items()}


def expect_scratch_gradients(build, tmp_path, make, seed, attempt):
    """The class's code in float64 is the truth of float32 modules. `seed` is the configuration and
    the mask, `attempt` the numbers."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(1000 * seed + attempt)
    heads = int(rng.choice([1, 2, 3, 5]))
    embed = int(rng.choice([2, 4, 8])) * heads
    batch, q_len, kv_len = (int(rng.integers(1, n)) for n in (4, 30, 30))
    module = make(embed, heads)
    state = {f"parameter/{name}": p.detach().numpy().copy() for name, p in module.state_dict().items()}
    mask = None if rng.random() < 0.2 else draw_mask(rng, batch, heads, q_len, kv_len)
    numbers = np.random.default_rng((seed, attempt))
    inputs = [numbers.standard_normal((batch, n, embed)).astype(np.float32)
              for n in (q_len, kv_len, kv_len)]
    d_out = numbers.standard_normal(inputs[0].shape).astype(np.float32)
    tensors = dict(zip(("query", "key", "value"), inputs)) | {"attn_mask": mask, "d_out": d_out}
    ours = our_gradients(build, tmp_path, tensors | state, {
        "class": "scratch", "embed_dim": embed, "num_heads": heads, "full": make is wide_module})
    truth = scratch_gradients(module, inputs, mask, d_out, "float64")
    others = [scratch_gradients(module, inputs, mask, d_out, "float32")]
    assert ours.keys() == truth.keys()
    for name, gradient in ours.items():
        expect_as_good("gradient, from scratch", gradient, truth[name].astype(np.longdouble),
                       [each[name] for each in others], factor=4)


@pytest.mark.parametrize("make", [split_module, wide_module])
@pytest.mark.parametrize("seed", range(40))
def test_from_scratch(build, tmp_path, make, seed):
    """Luck as above: torch is the only other here, and some gradients are nothing but rounding."""
    for attempt in range(DRAWS):
        try:
            return expect_scratch_gradients(build, tmp_path, make, seed, attempt)
        except LessExact:
            if attempt + 1 == DRAWS:
                raise

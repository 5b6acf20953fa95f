"""A configuration of case.py through nn.Modules: results and every gradient, by torch's module, by
ours, and by the formula written once more with torch's differentiable operations."""

import numpy as np
import polyhead.torch
import torch

from case import DTYPES


def rounded(case):
    """The case with every number as float32 has it: what is compared in two precisions begins with
    the same ones."""
    round_to = lambda x: x if x is None or x.dtype == bool else x.astype(np.float32)
    case.state = {name: round_to(x) for name, x in case.state.items()}
    same = case.self_attention
    case.query = round_to(case.query)
    case.key = case.query if same else round_to(case.key)
    case.value = case.query if same else round_to(case.value)
    case.attn_mask, case.key_padding_mask = map(round_to, (case.attn_mask, case.key_padding_mask))
    return case


def laid_out(tensor, rng):
    """The same numbers: in half of the cases with the dimensions in another order of memory, and
    with gaps."""
    if rng.random() < 0.5:
        return tensor.contiguous()
    order = rng.permutation(tensor.dim())
    sizes = [tensor.shape[i] for i in order]
    gap = int(rng.integers(1, 3))
    memory = tensor.new_zeros([*sizes, gap + 1])[..., gap]
    return memory.permute(*np.argsort(order).tolist()).copy_(tensor)


class Leaves:
    """The case's tensors in one dtype, gradients wanted of all that are floating."""

    def __init__(self, case, dtype):
        self.case, self.dtype = case, DTYPES[dtype]
        self.rng = np.random.default_rng(case.seed)
        inputs = [case.inputs()[0]] if case.self_attention else case.inputs()
        self.inputs = [self.leaf(x) for x in inputs]
        self.attn_mask = self.leaf(case.attn_mask)
        padding = case.key_padding_mask
        self.padding = self.leaf(padding[0] if case.unbatched and padding is not None else padding)

    def leaf(self, array):
        if array is None:
            return None
        tensor = laid_out(torch.from_numpy(np.array(array)), self.rng)
        return tensor if tensor.dtype == torch.bool else tensor.to(self.dtype).requires_grad_()

    def query_key_value(self):
        return self.inputs * 3 if self.case.self_attention else self.inputs

    def all(self, module):
        masks = [m for m in (self.attn_mask, self.padding) if m is not None and m.requires_grad]
        return [*self.inputs, *masks, *module.parameters()]


def module_of(kind, case, dtype):
    kdim, vdim = (None if d == case.embed_dim else d for d in (case.kdim, case.vdim))
    module = kind(
        case.embed_dim, case.num_heads, bias=case.bias, add_bias_kv=case.add_bias_kv,
        add_zero_attn=case.add_zero_attn, kdim=kdim, vdim=vdim, batch_first=case.batch_first,
        dtype=DTYPES[dtype])
    module.load_state_dict({n: torch.from_numpy(np.array(a)) for n, a in case.state.items()})
    rng = np.random.default_rng(case.seed)
    for parameter in module.parameters():
        parameter.data = laid_out(parameter.data, rng)
    return module


def future(case):
    offset = case.kv_len - case.q_len if case.causal_align == "bottom-right" else 0
    return torch.from_numpy(~np.tri(case.q_len, case.kv_len, offset, dtype=bool))


def full_mask(case, mask):
    """The attn_mask as torch takes it: [B * H, L, S] where it was 4-D, causality written out."""
    full = (case.batch, case.num_heads, case.q_len, case.kv_len)
    if mask is not None and mask.dim() == 4:
        mask = mask.expand(full).reshape(-1, *full[2:])
    if case.is_causal and mask is None:
        return future(case)
    if case.is_causal:
        hidden = future(case)
        mask = mask | hidden if mask.dtype == torch.bool else mask.masked_fill(hidden, -torch.inf)
    return mask


def torchs(case, module, leaves):
    return module(
        *leaves.query_key_value(), attn_mask=full_mask(case, leaves.attn_mask),
        key_padding_mask=leaves.padding, need_weights=case.need_weights != "none",
        average_attn_weights=case.need_weights != "per-head")


def ours(case, module, leaves):
    return module(
        *leaves.query_key_value(), attn_mask=leaves.attn_mask, key_padding_mask=leaves.padding,
        need_weights=case.need_weights != "none",
        average_attn_weights=case.need_weights != "per-head", is_causal=case.is_causal,
        causal_align=case.causal_align.replace("-", "_"))


def formula(case, module, leaves):
    """With rows that see nothing 0, as the contract says."""
    state = dict(module.named_parameters())
    packed = state.get("in_proj_weight")
    names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    weights = packed.chunk(3) if packed is not None else [state[name] for name in names]
    biases = state["in_proj_bias"].chunk(3) if case.bias else [None] * 3
    x = leaves.query_key_value()
    if case.unbatched:
        x = [one[None] for one in x]
    elif not case.batch_first:
        x = [one.transpose(0, 1) for one in x]
    q, k, v = map(torch.nn.functional.linear, x, weights, biases)
    if case.add_bias_kv:
        k, v = (torch.cat([y, state[name].expand(case.batch, 1, -1)], 1)
                for y, name in ((k, "bias_k"), (v, "bias_v")))
    if case.add_zero_attn:
        k, v = (torch.cat([y, torch.zeros_like(y[:, :1])], 1) for y in (k, v))
    q, k, v = (y.unflatten(2, (case.num_heads, -1)).transpose(1, 2) for y in (q, k, v))
    scores = q * q.shape[-1] ** -0.5 @ k.mT
    heads = safe_softmax(scores, added_mask(case, leaves, scores))
    out = (heads @ v).transpose(1, 2).flatten(2)
    out = torch.nn.functional.linear(out, state["out_proj.weight"], state.get("out_proj.bias"))
    heads = {"none": None, "average": heads.mean(1), "per-head": heads}[case.need_weights]
    if case.unbatched:
        return out[0], None if heads is None else heads[0]
    return out if case.batch_first else out.transpose(0, 1), heads


def added_mask(case, leaves, scores):
    total = torch.zeros(case.batch, case.num_heads, case.q_len, case.kv_len, dtype=scores.dtype)
    mask = full_mask(case, leaves.attn_mask)
    if mask is not None and mask.dim() == 3:
        mask = mask.unflatten(0, (case.batch, case.num_heads))
    padding = leaves.padding
    if padding is not None:
        padding = padding.reshape(case.batch, 1, 1, case.kv_len)
    for part in (padding, mask):
        if part is not None and part.dtype == torch.bool:
            total = total.masked_fill(part, -torch.inf)
        elif part is not None:
            total = total + part
    return torch.nn.functional.pad(total, (0, scores.shape[-1] - case.kv_len))


def safe_softmax(scores, mask):
    hidden = mask.isneginf()
    scores = (scores + mask.masked_fill(hidden, 0)).masked_fill(hidden, -torch.inf)
    empty = hidden.all(-1, keepdim=True)
    return torch.softmax(scores.masked_fill(empty, 0), -1).masked_fill(empty, 0)


def cotangents(case, results):
    """Random numbers that float32 has, too, in the shapes of out and weights."""
    rng = torch.Generator().manual_seed(case.seed)
    return [torch.randn(x.shape, generator=rng) for x in results]


def answers(case, module, leaves, run):
    """[out, weights if asked for, every gradient] as arrays, of a loss that sees both results."""
    results = [x for x in run(case, module, leaves) if x is not None]
    d_results = [d.to(x) for d, x in zip(cotangents(case, results), results)]
    gradients = torch.autograd.grad(results, leaves.all(module), d_results, allow_unused=True)
    zeros = [torch.zeros_like(x) for x in leaves.all(module)]
    gradients = [zero if g is None else g for g, zero in zip(gradients, zeros)]
    return [x.detach().numpy() for x in (*results, *gradients)]


def names_of(case, module, leaves):
    masks = [name for name, mask in (("attn_mask", leaves.attn_mask), ("padding", leaves.padding))
             if mask is not None and mask.requires_grad]
    names = ["out"] + (["weights"] if case.need_weights != "none" else [])
    inputs = ["query", "key", "value"][:len(leaves.inputs)]
    return names + [f"d_{name}" for name in (*inputs, *masks, *dict(module.named_parameters()))]


OURS, TORCHS = polyhead.torch.MultiheadAttention, torch.nn.MultiheadAttention

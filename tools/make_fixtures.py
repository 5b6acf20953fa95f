#!/usr/bin/env python3
"""Writes tests/data/module_fixtures.safetensors: float64 answers of torch 2.13 for both modules.

Each case has a line in __metadata__ "cases" ("self mha embed_dim=16 num_heads=4 ...") and tensors
named CASE/param/NAME (the state dict), CASE/in/NAME (the operands and masks), CASE/out, and, unless
a row is fully masked (torch gives NaN there), CASE/average and CASE/per_head: the weights.

Where torch has no such option (4-D masks, is_causal without a mask, bottom-right causality), it is
given the equivalent mask that it has. Usage: python tools/make_fixtures.py, with torch==2.13.0.
"""

import math
import pathlib
import zlib

import torch
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = ROOT / "tests" / "data" / "module_fixtures.safetensors"
DOUBLE = torch.float64


class Fixtures:
    def __init__(self):
        self.tensors = {}
        self.lines = {}

    def add(self, case, line, params, inputs, results):
        assert case not in self.lines, case
        self.lines[case] = line
        for group, named in (("param/", params), ("in/", inputs), ("", results)):
            for name, tensor in named.items():
                self.tensors[f"{case}/{group}{name}"] = tensor.detach().contiguous().clone()


def text(options):
    """key=value pairs; booleans as 0 and 1."""
    pairs = ((key, int(value) if isinstance(value, bool) else value) for key, value in options)
    return " ".join(f"{key}={value}" for key, value in pairs)


def causal_mask(q_len, kv_len, align):
    """True: hidden, as nn.MultiheadAttention reads it."""
    offset = kv_len - q_len if align == "bottom_right" else 0
    return torch.ones(q_len, kv_len).tril(offset) == 0


def as_float(mask):
    if mask.dtype != torch.bool:
        return mask.to(DOUBLE)
    return torch.zeros(mask.shape, dtype=DOUBLE).masked_fill(mask, -math.inf)


def torch_mask(masks, causal, batch, heads, q_len, kv_len):
    """One (batch * heads, q_len, kv_len) float mask that says what ours say together."""
    total = torch.zeros(batch, heads, q_len, kv_len, dtype=DOUBLE)
    attn = masks.get("attn_mask")
    if attn is not None:
        if attn.dim() == 3:
            attn = attn.view(batch, heads, q_len, kv_len)
        total = total + as_float(attn)
    padding = masks.get("key_padding_mask")
    if padding is not None:
        total = total + as_float(padding.view(batch, 1, 1, kv_len))
    if causal is not None:
        total = total + as_float(causal_mask(q_len, kv_len, causal))
    return total.view(batch * heads, q_len, kv_len)


def add_mha(fixtures, case, *, batch=2, q_len=5, kv_len=7, self_attention=False, unbatched=False,
            masks=None, causal=None, empty_rows=False, layout="batch_first", **config):
    """`masks` maps (batch, heads, q_len, kv_len) to attn_mask and key_padding_mask."""
    torch.manual_seed(zlib.crc32(case.encode()))
    config = {"embed_dim": 16, "num_heads": 4, **config}
    embed_dim, heads = config["embed_dim"], config["num_heads"]
    kv_len = q_len if self_attention else kv_len
    batch = 1 if unbatched else batch
    module = torch.nn.MultiheadAttention(**config, batch_first=True, dtype=DOUBLE)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.5)
    rows = lambda length, width: torch.randn(batch, length, width, dtype=DOUBLE)
    query = rows(q_len, embed_dim)
    key = query if self_attention else rows(kv_len, config.get("kdim", embed_dim))
    value = query if self_attention else rows(kv_len, config.get("vdim", embed_dim))
    given = masks(batch, heads, q_len, kv_len) if masks else {}
    whole = None
    if given or causal is not None:
        whole = torch_mask(given, causal, batch, heads, q_len, kv_len)

    def run(**options):
        return module(query, key, value, attn_mask=whole, **options)

    arrange = lambda x: x[0] if unbatched else (x.transpose(0, 1) if layout != "batch_first" else x)
    results = {"out": arrange(run(need_weights=False)[0])}
    if not empty_rows:
        drop = (lambda x: x[0]) if unbatched else (lambda x: x)
        results["average"] = drop(run()[1])
        results["per_head"] = drop(run(average_attn_weights=False)[1])
    inputs = {"query": arrange(query), "key": arrange(key), "value": arrange(value)}
    if unbatched and "key_padding_mask" in given:
        given["key_padding_mask"] = given["key_padding_mask"][0]
    options = {**config, "layout": layout, "is_causal": causal is not None}
    if causal is not None:
        options["align"] = causal
    fixtures.add(case, "mha " + text(options.items()), module.state_dict(), {**inputs, **given},
                 results)


def boolean(*shape):
    """The first and the last key stay visible in each row."""
    mask = torch.rand(shape) < 0.4
    mask[..., 0] = mask[..., -1] = False
    return mask


def number(*shape):
    return torch.randn(shape, dtype=DOUBLE)


def number_with_inf(*shape):
    return number(*shape).masked_fill(boolean(*shape), -math.inf)


def padding(batch, kv_len):
    """Item b loses its last b + 1 keys."""
    return torch.arange(kv_len)[None, :] >= kv_len - 1 - torch.arange(batch)[:, None]


def add_mha_configurations(f):
    both = lambda n, h, l, s: {"attn_mask": boolean(l, s), "key_padding_mask": padding(n, s)}
    extra = {"add_bias_kv": True, "add_zero_attn": True}
    add_mha(f, "default")
    add_mha(f, "self", self_attention=True)
    add_mha(f, "one_head", num_heads=1)
    add_mha(f, "width_one_heads", num_heads=16)
    add_mha(f, "no_bias", bias=False)
    add_mha(f, "bias_kv", add_bias_kv=True)
    add_mha(f, "zero_attn", add_zero_attn=True)
    add_mha(f, "bias_kv_zero_attn", masks=both, **extra)
    add_mha(f, "no_bias_bias_kv", bias=False, self_attention=True, add_bias_kv=True)
    add_mha(f, "kdim", kdim=12)
    add_mha(f, "vdim", vdim=20)
    add_mha(f, "kdim_vdim", kdim=12, vdim=20)
    add_mha(f, "kdim_vdim_everything", kdim=5, vdim=3, masks=both, causal="top_left", **extra)
    add_mha(f, "kdim_vdim_no_bias", kdim=5, vdim=3, bias=False)
    add_mha(f, "sequence_first", layout="sequence_first", masks=both)
    add_mha(f, "sequence_first_self", layout="sequence_first", self_attention=True)
    add_mha(f, "unbatched", unbatched=True)
    add_mha(f, "unbatched_sequence_first", unbatched=True, layout="sequence_first", masks=both)
    add_mha(f, "odd_sizes", embed_dim=21, num_heads=3, batch=3, q_len=9, kv_len=11, masks=both)
    add_mha(f, "long", embed_dim=24, num_heads=3, batch=1, q_len=33, kv_len=70)
    add_mha(f, "one_query", q_len=1)
    add_mha(f, "one_key", kv_len=1)


def add_mha_masks(f):
    attn = lambda make, *letters: lambda n, h, l, s: {
        "attn_mask": make(*(dict(N=n, H=h, L=l, S=s, NH=n * h)[x] if x != "1" else 1
                            for x in letters))}
    add_mha(f, "bool_2d", masks=attn(boolean, "L", "S"))
    add_mha(f, "float_2d", masks=attn(number_with_inf, "L", "S"))
    add_mha(f, "bool_3d", masks=attn(boolean, "NH", "L", "S"))
    add_mha(f, "float_3d", masks=attn(number, "NH", "L", "S"))
    add_mha(f, "unbatched_bool_3d", unbatched=True, masks=attn(boolean, "H", "L", "S"))
    for letters in ("NHLS", "N1LS", "1HLS", "N11S", "11L1", "1H1S", "1111"):
        add_mha(f, f"float_4d_{letters}", masks=attn(number, *letters))
    add_mha(f, "bool_4d_N1LS", masks=attn(boolean, *"N1LS"))
    add_mha(f, "bool_4d_NH1S", masks=attn(boolean, *"NH1S"))
    add_mha(f, "float32_mask", masks=lambda n, h, l, s: {"attn_mask": number(l, s).float()})
    for name, pad in (("bool", lambda n, s: padding(n, s)), ("float", number_with_inf)):
        add_mha(f, f"padding_{name}", masks=lambda n, h, l, s: {"key_padding_mask": pad(n, s)})
        for kind, make in (("bool", boolean), ("float", number_with_inf)):
            # The last key is padded: the mask of row l must leave a key that the padding leaves.
            def masks(n, h, l, s, pad=pad, make=make):
                mask = make(l, s)
                mask[:, 0] = False if mask.dtype == torch.bool else 0.5
                hidden = pad(n, s)
                hidden[:, 0] = False if hidden.dtype == torch.bool else 0.25
                return {"attn_mask": mask, "key_padding_mask": hidden}
            add_mha(f, f"padding_{name}_attn_{kind}", masks=masks)
    add_mha(f, "unbatched_padding", unbatched=True,
            masks=lambda n, h, l, s: {"key_padding_mask": padding(n, s)})


def add_mha_causal(f):
    extra = {"add_bias_kv": True, "add_zero_attn": True}
    pad = lambda n, h, l, s: {"key_padding_mask": padding(n, s)}
    first_visible = lambda n, h, l, s: {
        "attn_mask": boolean(n * h, l, s).index_fill_(2, torch.tensor([0]), False)}
    add_mha(f, "causal_self", self_attention=True, causal="top_left")
    add_mha(f, "causal_shorter", q_len=4, kv_len=7, causal="top_left")
    add_mha(f, "causal_longer", q_len=7, kv_len=4, causal="top_left")
    add_mha(f, "causal_bottom_right", q_len=4, kv_len=7, causal="bottom_right")
    add_mha(f, "causal_padding", self_attention=True, causal="top_left", masks=pad)
    add_mha(f, "causal_mask", self_attention=True, causal="top_left", masks=first_visible)
    add_mha(f, "causal_bias", self_attention=True, causal="top_left",
            masks=lambda n, h, l, s: {"attn_mask": number(l, s)})
    add_mha(f, "causal_extra", self_attention=True, causal="top_left", **extra)
    add_mha(f, "empty_causal", q_len=7, kv_len=4, causal="bottom_right", empty_rows=True)
    add_mha(f, "empty_padding", empty_rows=True, masks=lambda n, h, l, s: {
        "key_padding_mask": torch.tensor([[True] * s] + [[False] * s] * (n - 1))})
    add_mha(f, "empty_row", empty_rows=True, masks=lambda n, h, l, s: {
        "attn_mask": torch.arange(l)[:, None].expand(l, s) == 1})
    add_mha(f, "no_keys", kv_len=0, empty_rows=True)


class Scratch(torch.nn.Module):
    """Attention with four linear layers, each head `head_dim` wide, and a soft mask."""

    def __init__(self, embed_size, num_heads, head_dim):
        super().__init__()
        self.heads = num_heads
        width = num_heads * head_dim
        self.scale = 1 / math.sqrt(head_dim)
        for name in ("q_linear", "k_linear", "v_linear"):
            setattr(self, name, torch.nn.Linear(embed_size, width, dtype=DOUBLE))
        self.fc_out = torch.nn.Linear(width, embed_size, dtype=DOUBLE)

    def forward(self, q, k, v, mask):
        split = lambda x: x.unflatten(2, (self.heads, -1)).transpose(1, 2)
        query, key = split(self.q_linear(q)), split(self.k_linear(k))
        scores = torch.einsum("nhqd,nhkd->nhqk", query, key) * self.scale
        if mask is not None:
            scores = scores + (mask * -1e5).broadcast_to(scores.shape)
        weights = scores.softmax(-1)
        heads = torch.einsum("nhqk,nhkd->nhqd", weights, split(self.v_linear(v)))
        return self.fc_out(heads.transpose(1, 2).flatten(2)), weights


def add_scratch(f, case, *, embed_size=12, num_heads=3, full=False, self_attention=False,
                mask=None):
    torch.manual_seed(zlib.crc32(case.encode()))
    batch, q_len, kv_len = 2, 5, 5 if self_attention else 7
    module = Scratch(embed_size, num_heads, embed_size if full else embed_size // num_heads)
    rows = lambda length: torch.randn(batch, length, embed_size, dtype=DOUBLE)
    inputs = {"q": rows(q_len)}
    inputs["k"] = inputs["q"] if self_attention else rows(kv_len)
    inputs["v"] = inputs["q"] if self_attention else rows(kv_len)
    if mask is not None:
        inputs["mask"] = mask(batch, num_heads, q_len, kv_len)
    out, weights = module(inputs["q"], inputs["k"], inputs["v"], inputs.get("mask"))
    line = text({"embed_size": embed_size, "num_heads": num_heads, "full": full}.items())
    f.add(case, "scratch " + line, module.state_dict(), inputs,
          {"out": out, "average": weights.mean(1), "per_head": weights})


def add_scratch_cases(f):
    hide = lambda *shape: boolean(*shape).to(DOUBLE)
    for full in (False, True):
        add = lambda case, **options: add_scratch(
            f, f"scratch_{'full' if full else 'split'}_{case}", full=full, **options)
        add("plain")
        add("self", self_attention=True)
        add("one_head", num_heads=1)
        add("mask_k", mask=lambda n, h, l, s: hide(s))
        add("mask_q1", mask=lambda n, h, l, s: torch.rand(l, 1, dtype=DOUBLE))
        add("mask_qk", mask=lambda n, h, l, s: hide(l, s))
        add("mask_hqk", mask=lambda n, h, l, s: hide(h, l, s))
        add("mask_n11k", mask=lambda n, h, l, s: padding(n, s).to(DOUBLE).view(n, 1, 1, s))
        add("mask_nhqk", mask=lambda n, h, l, s: hide(n, h, l, s))
        add("mask_all_hidden", mask=lambda n, h, l, s: torch.ones(l, s, dtype=DOUBLE))
        add("mask_one_and_two", mask=lambda n, h, l, s: 1 + hide(l, s))
        add("mask_soft", mask=lambda n, h, l, s: 1e-5 * number(l, s))
        add("mask_bool", mask=lambda n, h, l, s: boolean(l, s))
        add("mask_int", mask=lambda n, h, l, s: boolean(l, s).to(torch.int64))
        add("mask_float32", mask=lambda n, h, l, s: hide(l, s).float())
    add_scratch(f, "scratch_full_indivisible", embed_size=5, num_heads=3, full=True)


def main():
    torch.set_num_threads(1)
    fixtures = Fixtures()
    add_mha_configurations(fixtures)
    add_mha_masks(fixtures)
    add_mha_causal(fixtures)
    add_scratch_cases(fixtures)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"torch {torch.__version__}"]
    lines += [f"{case} {line}" for case, line in fixtures.lines.items()]
    # One key: several would be written in an order that changes from run to run.
    save_file(fixtures.tensors, TARGET, {"cases": "\n".join(lines)})
    print(f"{TARGET.relative_to(ROOT)}: {len(fixtures.lines)} cases, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()

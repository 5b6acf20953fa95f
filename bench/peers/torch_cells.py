"""A cell in torch's hands: its tensors, and the calls that compute it."""

from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import linear, scaled_dot_product_attention

from decode_cells import DecodeInputs, InTurn
from serving import Variant


def tensor(array):
    """A copy in torch's own memory, which is aligned as torch likes it."""
    return torch.from_numpy(array).clone()


class Timed(Variant):
    """Keeps the last answer: torch returns new tensors."""

    def __init__(self, function, context, layout=lambda out: out):
        self.function = function
        self.answer = None
        self.layout = layout
        super().__init__(self.run_once, self.last_outputs, context)

    def run_once(self):
        self.answer = self.function()

    def last_outputs(self):
        out, weights = self.answer if isinstance(self.answer, tuple) else (self.answer, None)
        named = {"out": self.layout(out).detach().contiguous().numpy()}
        return named if weights is None else named | {"weights": weights.detach().numpy()}


@contextmanager
def way(fast_path=False, plain=False):
    torch.backends.mha.set_fastpath_enabled(fast_path)
    if not plain:
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        yield


class AttentionCell:
    """Its tensors in memory order, [B, H, n, D] or [B, n, H, D]."""

    def __init__(self, words):
        self.words = words
        self.heads_inner = words.layout == "BLHD"
        lengths = {"query": words.q_len, "key": words.kv_len, "value": words.kv_len}
        self.operands = {name: self.read(name, n) for name, n in lengths.items()}

    def read(self, name, n):
        words = self.words
        inner = (n, words.heads) if self.heads_inner else (words.heads, n)
        return tensor(words.read(f"{name}.f32", (words.batch, *inner, words.head_dim)))

    def heads_outer(self, x):
        return x.transpose(1, 2) if self.heads_inner else x

    def attend(self, *operands):
        """Each [B, H, n, D]"""
        return scaled_dot_product_attention(*operands, is_causal=self.words.mask == "causal")


def decode_calls(words):
    """{name: (call, its layout, whether by the plain formula)}, over the same caches."""
    cell = DecodeInputs(words)
    query = tensor(cell.query())
    grouped = query.view(cell.grouped_shape)
    caches = [(tensor(key), tensor(value)) for key, value in cell.caches()]

    def over(rows, **flags):
        return InTurn([lambda pair=pair: scaled_dot_product_attention(rows, *pair, **flags)
                        for pair in caches])
    as_heads = lambda out: out.reshape(cell.query_shape)
    return {"SDPA, enable_gqa": (over(query, enable_gqa=True), as_heads, False),
            "SDPA, a group as queries": (over(grouped), as_heads, False),
            "plain formula, a group as queries": (over(grouped), as_heads, True)}


class ModuleCell:
    def __init__(self, words):
        self.words = words
        self.mha = nn.MultiheadAttention(words.embed_dim, words.num_heads, batch_first=True,
                                         kdim=words.kdim, vdim=words.vdim).eval()
        self.mha.load_state_dict({name: tensor(words.read(f"{name}.f32", tuple(old.shape)))
                                  for name, old in self.mha.state_dict().items()})
        self.operands = self.read_operands()
        self.masks = self.read_masks()

    def read_operands(self):
        """The same object three times where the cell attends to itself, as the fast path wants."""
        words = self.words
        query = self.read("query", words.q_len, words.embed_dim)
        if words.inputs == "self":
            return query, query, query
        key = self.read("key", words.kv_len, words.kdim)
        return query, key, key if words.inputs == "memory" else self.read(
            "value", words.kv_len, words.vdim)

    def read(self, name, length, width):
        return tensor(self.words.read(f"{name}.f32", (self.words.batch, length, width)))

    def read_masks(self):
        words, square = self.words, (self.words.q_len, self.words.kv_len)
        if words.mask == "causal":
            hidden = torch.ones(square, dtype=torch.bool).triu(1)
            return {"attn_mask": hidden, "is_causal": True}
        if words.mask == "float":
            return {"attn_mask": tensor(words.read("mask.f32", square))}
        if words.mask == "bool":
            return {"attn_mask": tensor(words.read("mask.u8", square, bool))}
        if words.mask == "padding":
            shape = (words.batch, words.kv_len)
            return {"key_padding_mask": tensor(words.read("mask.u8", shape, bool))}
        return {}

    def as_written(self):
        masks = {k: v for k, v in self.masks.items() if k != "is_causal"}

        def call():
            out, weights = self.mha(*self.operands, **masks)
            return (out, weights) if self.words.weights == "average" else out
        return call

    def with_flags(self):
        flags = {"need_weights": self.words.weights != "none",
                 "average_attn_weights": self.words.weights != "per_head"}
        return lambda: self.mha(*self.operands, **self.masks, **flags)

    def projected(self):
        """q [B, L, E], k and v [B, S, E]"""
        mha, (query, key, value) = self.mha, self.operands
        if self.words.inputs == "self":
            return linear(query, mha.in_proj_weight, mha.in_proj_bias).chunk(3, dim=-1)
        width = self.words.embed_dim
        if self.words.inputs == "memory":
            both = linear(key, mha.in_proj_weight[width:], mha.in_proj_bias[width:])
            query = linear(query, mha.in_proj_weight[:width], mha.in_proj_bias[:width])
            return query, *both.chunk(2, dim=-1)
        weights = (mha.q_proj_weight, mha.k_proj_weight, mha.v_proj_weight)
        return [linear(*three) for three in zip(self.operands, weights,
                                                mha.in_proj_bias.chunk(3))]

    def by_hand(self):
        """The lines that people write in place of the module."""
        masks = self.masks
        flags = {"is_causal": True} if "is_causal" in masks else {}
        if "key_padding_mask" in masks:
            flags = {"attn_mask": ~masks["key_padding_mask"][:, None, None]}
        elif "attn_mask" in masks and not flags:
            mask = masks["attn_mask"]
            flags = {"attn_mask": ~mask if mask.dtype == torch.bool else mask}

        def call():
            heads = [x.unflatten(-1, (self.words.num_heads, -1)).transpose(1, 2)
                     for x in self.projected()]
            joined = scaled_dot_product_attention(*heads, **flags).transpose(1, 2).flatten(2)
            return linear(joined, self.mha.out_proj.weight, self.mha.out_proj.bias)
        return call

"""A module's cell as arrays: what every peer that builds a graph needs to know."""

import numpy as np


class ModuleInputs:
    def __init__(self, words):
        self.words = words
        embed = words.embed_dim
        if words.inputs == "separate":
            widths = (embed, words.kdim, words.vdim)
            self.weights = [words.read(f"{part}_proj_weight.f32", (embed, width))
                            for part, width in zip("qkv", widths)]
        else:
            self.weights = np.split(words.read("in_proj_weight.f32", (3 * embed, embed)), 3)
        self.biases = np.split(words.read("in_proj_bias.f32", (3 * embed,)), 3)
        self.out_weight = words.read("out_proj.weight.f32", (embed, embed))
        self.out_bias = words.read("out_proj.bias.f32", (embed,))
        self.operands = self.read_operands()
        self.read_masks()
        lengths = (words.batch, words.q_len, words.kv_len)
        self.out_shape = (*lengths[:2], embed)
        self.weights_shape = {"none": None, "average": lengths, "per_head": (
            words.batch, words.num_heads, *lengths[1:])}[words.weights]

    def read_operands(self):
        """Three (name, array); what is the same tensor has the same name."""
        words = self.words
        names = {"self": ("query",) * 3, "memory": ("query", "key", "key"),
                 "separate": ("query", "key", "value")}[words.inputs]
        sizes = {"query": (words.q_len, words.embed_dim), "key": (words.kv_len, words.kdim),
                 "value": (words.kv_len, words.vdim)}
        arrays = {name: words.read(f"{name}.f32", (words.batch, *sizes[name]))
                  for name in set(names)}
        return [(name, arrays[name]) for name in names]

    def read_masks(self):
        """At most one is given: causal; padding [B, S] and hidden [L, S], true = hidden; bias
        [L, S]."""
        words, square = self.words, (self.words.q_len, self.words.kv_len)
        self.causal = words.mask == "causal"
        self.padding = self.hidden = self.bias = None
        if words.mask == "padding":
            self.padding = words.read("mask.u8", (words.batch, words.kv_len), bool)
        elif words.mask == "bool":
            self.hidden = words.read("mask.u8", square, bool)
        elif words.mask == "float":
            self.bias = words.read("mask.f32", square)

    def added_bias(self):
        """Any mask as numbers to add to the scores, 4-D, or None."""
        if self.bias is not None:
            return self.bias[None, None]
        hidden = self.hidden
        if self.causal:
            hidden = ~np.tri(self.words.q_len, self.words.kv_len, dtype=bool)
        if hidden is None and self.padding is None:
            return None
        shaped = self.padding[:, None, None] if hidden is None else hidden[None, None]
        return np.where(shaped, np.float32(-np.inf), np.float32(0))

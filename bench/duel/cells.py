"""Cells of the forward pass: what is asked, in words that every worker understands, and the inputs."""

from dataclasses import dataclass

import numpy as np

SMALL_FLOPS = 2e8  # a call of about a millisecond or less
SEED = 7


def visible_pairs(mask, q_len, kv_len):
    """Of one sequence. Masks of arbitrary pairs lower the count by what they hide, too."""
    if mask in ("none", "float"):
        return q_len * kv_len
    if mask == "padding":
        return q_len * (kv_len - kv_len // 4)
    return int((~pair_mask(mask, q_len, kv_len)).sum())


def pair_mask(mask, q_len, kv_len):
    """[L, S], true = hidden."""
    if mask == "causal":
        return ~np.tri(q_len, kv_len, dtype=bool)
    if mask == "window":  # 64 positions to each side
        near = np.subtract.outer(np.arange(q_len), np.arange(kv_len))
        return np.abs(near) > 64
    hidden = np.random.default_rng(SEED).random((q_len, kv_len)) < 0.25
    hidden[:, 0] = False
    return hidden


@dataclass(frozen=True)
class Attention:
    """attention_forward and scaled_dot_product_attention, without a module around them."""
    shape: tuple  # B, H, L, D
    layout: str = "BHLD"  # or BLHD: the heads' rows interleaved, as a projection leaves them
    mask: str = "none"  # or causal
    kv_len: int = 0  # 0: L
    kind = "attention"
    training = False
    weights = "none"

    @property
    def keys(self):
        return self.kv_len or self.shape[2]

    @property
    def name(self):
        b, h, n, d = self.shape
        length = f"{n}→{self.kv_len}" if self.kv_len else n
        masked = "" if self.mask == "none" else f" {self.mask}"
        return f"{b}x{h}x{length}x{d}{masked}" + (", [B,L,H,D]" if self.layout == "BLHD" else "")

    @property
    def flops(self):
        """Of the visible pairs."""
        b, h, n, d = self.shape
        return 4.0 * b * h * d * visible_pairs(self.mask, n, self.keys)

    @property
    def group(self):
        if self.kv_len:
            return "cross"
        if self.mask != "none":
            return "masked"
        return "small" if self.flops < SMALL_FLOPS else "long"

    def words(self, folder):
        b, h, n, d = self.shape
        return {"batch": b, "heads": h, "q_len": n, "kv_len": self.keys, "head_dim": d,
                "layout": self.layout, "mask": self.mask, "folder": folder}

    def write_inputs(self, folder):
        rng = np.random.default_rng(SEED)
        b, h, _, d = self.shape
        for name, n in (("query", self.shape[2]), ("key", self.keys), ("value", self.keys)):
            memory = (b, n, h, d) if self.layout == "BLHD" else (b, h, n, d)
            rng.standard_normal(memory, dtype=np.float32).tofile(folder / f"{name}.f32")

    def output_shapes(self):
        """In memory order."""
        b, h, n, d = self.shape
        return {"out": (b, n, h, d) if self.layout == "BLHD" else (b, h, n, d)}

    def row_axis(self, _output):
        return 1 if self.layout == "BLHD" else 2


@dataclass(frozen=True)
class Module:
    """A whole nn.MultiheadAttention, batch first, with biases."""
    shape: tuple  # B, L, E, H
    mask: str = "none"  # causal, padding (the last quarter), float [L, S], bool or window [L, S]
    weights: str = "none"  # average, per_head
    kv_len: int = 0  # 0: self-attention
    kdim: int = 0  # with vdim: key and value are tensors of their own
    vdim: int = 0
    kind = "module"
    training = False

    @property
    def keys(self):
        return self.kv_len or self.shape[1]

    @property
    def inputs(self):
        if self.kdim:
            return "separate"
        return "memory" if self.kv_len else "self"

    @property
    def widths(self):
        """E, kdim, vdim"""
        embed = self.shape[2]
        return embed, self.kdim or embed, self.vdim or embed

    @property
    def name(self):
        b, n, e, h = self.shape
        length = f"{n}→{self.kv_len}" if self.kv_len else n
        parts = [f"{b}x{length}x{e}/{h}"]
        if self.kdim:
            parts.append(f"kdim {self.kdim}, vdim {self.vdim}")
        parts += [] if self.mask == "none" else [self.mask]
        parts += [] if self.weights == "none" else [f"weights {self.weights.replace('_', ' ')}"]
        return "module " + ", ".join(parts)

    @property
    def projection_flops(self):
        embed, kdim, vdim = self.widths
        return 2.0 * self.shape[0] * embed * (2 * self.shape[1] * embed + self.keys * (kdim + vdim))

    @property
    def attention_flops(self):
        b, n, e, _ = self.shape
        return 4.0 * b * e * visible_pairs(self.mask, n, self.keys)

    @property
    def flops(self):
        return self.projection_flops + self.attention_flops

    @property
    def group(self):
        if self.weights != "none":
            return "weights"
        if self.kv_len:
            return "cross"
        if self.mask != "none":
            return "masked"
        if self.flops < SMALL_FLOPS:
            return "small"
        heavy = self.projection_flops > 2 * self.attention_flops
        return "projection-heavy" if heavy else "attention-heavy"

    def words(self, folder):
        b, n, e, h = self.shape
        mask = "bool" if self.mask == "window" else self.mask
        return {"batch": b, "q_len": n, "kv_len": self.keys, "embed_dim": e, "num_heads": h,
                "kdim": self.widths[1], "vdim": self.widths[2], "inputs": self.inputs,
                "weights": self.weights, "mask": mask, "folder": folder}

    def parameter_shapes(self):
        embed, kdim, vdim = self.widths
        if self.kdim:
            yield from ((f"{part}_proj_weight", (embed, width))
                        for part, width in zip("qkv", (embed, kdim, vdim)))
        else:
            yield "in_proj_weight", (3 * embed, embed)
        yield from (("in_proj_bias", (3 * embed,)), ("out_proj.weight", (embed, embed)),
                    ("out_proj.bias", (embed,)))

    def write_inputs(self, folder):
        rng = np.random.default_rng(SEED)
        b, n, _, _ = self.shape
        names = {"self": 1, "memory": 2, "separate": 3}[self.inputs]
        for name, length, width in list(zip(("query", "key", "value"), (n, self.keys, self.keys),
                                            self.widths))[:names]:
            rng.standard_normal((b, length, width), np.float32).tofile(folder / f"{name}.f32")
        for name, shape in self.parameter_shapes():  # scores of about unit variance
            values = rng.standard_normal(shape, np.float32) * np.float32(shape[-1]**-0.5)
            values.tofile(folder / f"{name}.f32")
        if self.mask == "float":
            rng.standard_normal((n, self.keys), np.float32).tofile(folder / "mask.f32")
        elif self.mask == "padding":
            hidden = np.zeros((b, self.keys), bool)
            hidden[:, self.keys - self.keys // 4:] = True
            hidden.tofile(folder / "mask.u8")
        elif self.mask in ("bool", "window"):
            pair_mask(self.mask, n, self.keys).tofile(folder / "mask.u8")

    def output_shapes(self):
        b, n, e, h = self.shape
        weights = {"none": {}, "average": {"weights": (b, n, self.keys)},
                   "per_head": {"weights": (b, h, n, self.keys)}}
        return {"out": (b, n, e), **weights[self.weights]}

    def row_axis(self, output):
        return 2 if output == "weights" and self.weights == "per_head" else 1

"""Cells of a training step: forward, and backward to the gradients of all inputs and parameters."""

from dataclasses import dataclass

import numpy as np

from duel.cells import Attention, Module

LONG = 512  # queries: from here on the aims count
SEED = 11
# Of the forward's operations: a projection's two gradients cost as much as itself each; attention
# makes the scores again, and four more products of their size.
PROJECTION, ATTENTION = 3.0, 3.5


def write_normal(path, shape):
    np.random.default_rng(SEED).standard_normal(shape, np.float32).tofile(path)


@dataclass(frozen=True)
class TrainAttention(Attention):
    """With attention_backward: gradients of query, key and value from that of the output."""
    kind = "train-attention"
    training = True

    @property
    def name(self):
        return f"{super().name}, training"

    @property
    def flops(self):
        return ATTENTION * super().flops

    @property
    def group(self):
        if self.shape[2] < LONG:
            return "short"
        return "long" if self.mask == "none" else f"long {self.mask}"

    def write_inputs(self, folder):
        super().write_inputs(folder)
        write_normal(folder / "d_out.f32", self.output_shapes()["out"])

    def output_shapes(self):
        """In memory order."""
        b, h, _, d = self.shape
        keys = (b, self.keys, h, d) if self.layout == "BLHD" else (b, h, self.keys, d)
        out = super().output_shapes()["out"]
        return {"out": out, "d_query": out, "d_key": keys, "d_value": keys}


@dataclass(frozen=True)
class TrainModule(Module):
    """Self-attention; the gradients of its input and of all parameters, from that of the output
    and, where weights are returned, from theirs."""
    kind = "train-module"
    training = True

    def __post_init__(self):
        if self.kv_len or self.kdim or self.weights == "per_head":
            raise ValueError(f"{self.name}: in training, self-attention without weights per head")

    @property
    def name(self):
        return f"{super().name}, training"

    @property
    def flops(self):
        return PROJECTION * self.projection_flops + ATTENTION * self.attention_flops

    @property
    def group(self):
        if self.weights != "none":
            return "weights"
        return "plain" if self.mask == "none" else "masked"

    def write_inputs(self, folder):
        super().write_inputs(folder)
        for name, shape in super().output_shapes().items():
            write_normal(folder / f"d_{name}.f32", shape)

    def output_shapes(self):
        gradients = {"d_query": (*self.shape[:2], self.shape[2])} | {
            f"d_{name}": shape for name, shape in self.parameter_shapes()}
        return super().output_shapes() | gradients

    def row_axis(self, output):
        parameters = (f"d_{name}" for name, _ in self.parameter_shapes())
        return 0 if output in parameters else super().row_axis(output)

"""Cells of a decoder's step: the newest token of each sequence attends to all of it, itself included.
Keys and values come from memory: several caches take turns."""

from dataclasses import dataclass

import numpy as np

from duel.cells import SEED
from duel.truth import attend, read

BYTES_IN_TURN = 256 << 20  # of keys and values, more than a CPU's cache holds


@dataclass(frozen=True)
class Decode:
    shape: tuple  # B, H, D
    kv_heads: int
    kv_len: int
    kind = "decode"
    training = False

    @property
    def name(self):
        b, h, d = self.shape
        return f"decode {b}x{h}:{self.kv_heads}x{self.kv_len}x{d}"

    @property
    def flops(self):
        b, h, d = self.shape
        return 4.0 * b * h * d * self.kv_len

    @property
    def group(self):
        return "grouped heads" if self.kv_heads < self.shape[1] else "equal heads"

    @property
    def caches(self):
        b, _, d = self.shape
        return -(-BYTES_IN_TURN // (2 * 4 * b * self.kv_heads * self.kv_len * d))

    def words(self, folder):
        b, h, d = self.shape
        return {"batch": b, "heads": h, "kv_heads": self.kv_heads, "kv_len": self.kv_len,
                "head_dim": d, "caches": self.caches, "folder": folder}

    def tensor_shapes(self):
        b, h, d = self.shape
        keys = (b, self.kv_heads, self.kv_len, d)
        return {"query": (b, h, 1, d), "key": keys, "value": keys}

    def write_inputs(self, folder):
        rng = np.random.default_rng(SEED)
        for name, shape in self.tensor_shapes().items():
            rng.standard_normal(shape, dtype=np.float32).tofile(folder / f"{name}.f32")

    def output_shapes(self):
        return {"out": self.tensor_shapes()["query"]}

    def row_axis(self, _output):
        return 2


def decode(cell, folder, dtype, step):
    """{"out": [B, H, 1, D]}"""
    query, key, value = (read(folder, f"{name}.f32", shape).astype(dtype)
                         for name, shape in cell.tensor_shapes().items())
    group = cell.shape[1] // cell.kv_heads
    out, _ = attend(query * dtype(cell.shape[2]**-0.5), key.repeat(group, axis=1),
                    value.repeat(group, axis=1), None, None, step)
    return {"out": out}

"""The grid's cells: their inputs, their truth, and whether an answer may have its time counted."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.append(str(ROOT / "tests" / "parity"))
from contract import product  # noqa: E402
from error_rule import expect_as_good  # noqa: E402  the same rule as ./dev parity

ROWS = 256  # of the score matrix at a time, so that it stays in cache


@dataclass(frozen=True)
class Attention:
    """Self-attention through attention_forward and scaled_dot_product_attention."""
    shape: tuple  # B, H, L, D
    layout: str  # BHLD, or BLHD: the heads' rows interleaved, as a projection leaves them
    causal: bool

    @property
    def name(self):
        strided = ", [B,L,H,D]" if self.layout == "BLHD" else ""
        return "x".join(map(str, self.shape)) + (" causal" if self.causal else "") + strided

    @property
    def flops(self):
        """Of the visible pairs."""
        b, h, n, d = self.shape
        return 4.0 * b * h * d * (n * (n + 1) / 2 if self.causal else n * n)

    def command(self, folder):
        return ["attention", *self.shape, self.layout, int(self.causal), folder]

    def write_inputs(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(7)
        for name in ("query", "key", "value"):
            b, h, n, d = self.shape
            memory = (b, n, h, d) if self.layout == "BLHD" else (b, h, n, d)
            rng.standard_normal(memory, dtype=np.float32).tofile(folder / f"{name}.f32")

    def read(self, path):
        """[B, H, L, D]"""
        b, h, n, d = self.shape
        flat = np.fromfile(path, dtype=np.float32)
        if self.layout == "BLHD":
            return flat.reshape(b, n, h, d).transpose(0, 2, 1, 3)
        return flat.reshape(b, h, n, d)

    def answer(self, folder, dtype, step):
        """The formula: in float64 the truth; in float32 with step 1, each sum term by term, the
        yardstick of what a plain program gets."""
        query, key, value = (self.read(folder / f"{name}.f32").astype(dtype)
                             for name in ("query", "key", "value"))
        batch, heads, length, head_dim = self.shape
        out = np.empty(self.shape, dtype)
        for b, h, row in np.ndindex(batch, heads, -(-length // ROWS)):
            rows = slice(row * ROWS, min(length, (row + 1) * ROWS))
            scores = product(query[b, h, rows], key[b, h].T, step)  # [rows, L]
            scores *= dtype(head_dim**-0.5)
            if self.causal:
                scores[~np.tri(*scores.shape, rows.start, dtype=bool)] = -np.inf
            scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            total = scores.sum(axis=-1, keepdims=True)
            out[b, h, rows] = product(scores, value[b, h], step) / total
        return out


KINDS = {"attention": lambda entry: Attention(tuple(entry["shape"]), entry["layout"],
                                              entry["causal"])}


@dataclass
class Grid:
    threads: list
    isas: list
    cells: list


def load_grid(path):
    grid = json.loads(Path(path).read_text(encoding="utf-8"))
    return Grid(grid["threads"], grid["isas"], [KINDS[e["kind"]](e) for e in grid["cells"]])


class Judge:
    """Makes each cell's inputs and truth once, and compares every engine's answer with it."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.known = {}

    def inputs(self, cell):
        folder = self.folder / cell.name.replace(", ", "_").replace(" ", "_")
        if cell not in self.known:
            cell.write_inputs(folder)
            self.known[cell] = (cell.answer(folder, np.float64, 0),
                                cell.answer(folder, np.float32, 1))
        return folder

    def find_error(self, cell, answers):
        """Empty if each engine is as good as the other and the plain formula, else who is not."""
        truth, plain = self.known[cell]
        found = {name: cell.read(path) for name, path in answers.items()}
        for name, values in found.items():
            others = [v for other, v in found.items() if other != name]
            try:
                expect_as_good(name, values, truth, [*others, plain])
            except AssertionError as error:
                return str(error)
        return ""

    def worst_errors(self, cell, answers):
        truth = self.known[cell][0]
        return {name: float(np.abs(cell.read(path) - truth).max())
                for name, path in answers.items()}

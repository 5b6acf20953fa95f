"""What a cell's outputs are: in float64 the truth; in float32 with step 1, each sum term by term,
the yardstick of what a plain program gets. Long sequences are computed at some of their rows."""

import sys
from pathlib import Path

import numpy as np

from duel.cells import pair_mask

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.append(str(ROOT / "tests" / "parity"))
from contract import product as whole_product  # noqa: E402  the same as in ./dev parity

MOST_ROWS = 256  # of a sequence; evenly spread, the first and the last among them
CHUNK = 64  # rows at a time, so that a sum term by term stays in cache: some times faster


def checked_rows(q_len):
    if q_len <= MOST_ROWS:
        return np.arange(q_len)
    return np.unique(np.linspace(0, q_len - 1, MOST_ROWS).round().astype(int))


def read(folder, name, shape, dtype=np.float32):
    return np.fromfile(folder / name, dtype=dtype).reshape(shape)


def product(a, b, step):
    """a [m, k] . b [k, n]"""
    if step == 0:
        return whole_product(a, b)
    b = np.ascontiguousarray(b)
    return np.concatenate([whole_product(a[i:i + CHUNK], b, step) for i in range(0, len(a), CHUNK)])


def project(x, weight, bias, dtype, step):
    """x [B, n, in] -> [B, n, out]"""
    y = product(x.astype(dtype).reshape(-1, x.shape[-1]), weight.astype(dtype).T, step)
    return y.reshape(*x.shape[:2], -1) + bias.astype(dtype)


def attend(query, key, value, hidden, bias, step):
    """query [B, H, R, D] scaled, key and value [B, H, S, D], hidden and bias None or broadcast to
    [B, H, R, S] -> out [B, H, R, D], weights [B, H, R, S]"""
    out = np.empty(query.shape, query.dtype)
    weights = np.empty((*query.shape[:3], key.shape[2]), query.dtype)
    for b, h in np.ndindex(query.shape[:2]):
        scores = product(query[b, h], key[b, h].T, step)  # [R, S]
        if bias is not None:
            scores += bias
        if hidden is not None:
            scores[np.broadcast_to(hidden[b % len(hidden)], scores.shape)] = -np.inf
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        total = scores.sum(axis=-1, keepdims=True)
        out[b, h] = product(scores, value[b, h], step) / total
        weights[b, h] = scores / total
    return out, weights


def hidden_pairs(cell, folder, rows, q_len):
    """[B|1, R|1, S] or None"""
    if cell.mask in ("none", "float"):
        return None
    if cell.mask == "padding":
        return read(folder, "mask.u8", (-1, 1, cell.keys), bool)
    return pair_mask(cell.mask, q_len, cell.keys)[rows][None]


def answer(cell, folder, dtype, step):
    """{"out": .., "weights": ..} at the checked rows, axes in the cell's memory order."""
    return {"attention": attention, "module": module}[cell.kind](cell, folder, dtype, step)


def attention(cell, folder, dtype, step):
    b, h, q_len, d = cell.shape
    rows = checked_rows(q_len)
    swap = cell.layout == "BLHD"
    operands = []
    for name, n in (("query", q_len), ("key", cell.keys), ("value", cell.keys)):
        x = read(folder, f"{name}.f32", (b, n, h, d) if swap else (b, h, n, d)).astype(dtype)
        operands.append(x.swapaxes(1, 2) if swap else x)
    query, key, value = operands
    out, _ = attend(query[:, :, rows] * dtype(d**-0.5), key, value,
                    hidden_pairs(cell, folder, rows, q_len), None, step)
    return {"out": out.swapaxes(1, 2) if swap else out}


def module(cell, folder, dtype, step):
    b, q_len, embed, heads = cell.shape
    rows = checked_rows(q_len)
    state = {name: read(folder, f"{name}.f32", shape) for name, shape in cell.parameter_shapes()}
    if cell.kdim:
        parts = [state[f"{part}_proj_weight"] for part in "qkv"]
    else:
        parts = np.split(state["in_proj_weight"], 3)
    query = read(folder, "query.f32", (b, q_len, embed))
    names = {"self": ("query", "query"), "memory": ("key", "key"), "separate": ("key", "value")}
    key, value = (read(folder, f"{name}.f32", (b, cell.keys, width))
                  for name, width in zip(names[cell.inputs], cell.widths[1:]))
    biases = np.split(state["in_proj_bias"], 3)
    q, k, v = (project(x, weight, bias, dtype, step)
               .reshape(b, -1, heads, embed // heads).swapaxes(1, 2)
               for x, weight, bias in zip((query[:, rows], key, value), parts, biases))
    bias = None
    if cell.mask == "float":
        bias = read(folder, "mask.f32", (q_len, cell.keys))[rows].astype(dtype)
    out, weights = attend(q * dtype((embed // heads)**-0.5), k, v,
                          hidden_pairs(cell, folder, rows, q_len), bias, step)
    joined = out.swapaxes(1, 2).reshape(b, len(rows), embed)
    out_weight, out_bias = state["out_proj.weight"], state["out_proj.bias"]
    outputs = {"out": project(joined, out_weight, out_bias, dtype, step)}
    if cell.weights != "none":
        outputs["weights"] = weights.mean(axis=1) if cell.weights == "average" else weights
    return outputs

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


def hidden_of(hidden, b):
    """[R|1, S] of one sequence, or None"""
    return None if hidden is None else hidden[b % len(hidden)]


def exp_scores(query, key, hidden, bias, step):
    """[R, S], the largest of each row 1; query [R, D] scaled, key [S, D]"""
    scores = product(query, key.T, step)
    if bias is not None:
        scores += bias
    if hidden is not None:
        scores[np.broadcast_to(hidden, scores.shape)] = -np.inf
    scores -= scores.max(axis=-1, keepdims=True)
    return np.exp(scores, out=scores)


def attend(query, key, value, hidden, bias, step):
    """query [B, H, R, D] scaled, key and value [B, H, S, D], hidden and bias None or broadcast to
    [B, H, R, S] -> out [B, H, R, D], weights [B, H, R, S]"""
    out = np.empty(query.shape, query.dtype)
    weights = np.empty((*query.shape[:3], key.shape[2]), query.dtype)
    for b, h in np.ndindex(query.shape[:2]):
        exps = exp_scores(query[b, h], key[b, h], hidden_of(hidden, b), bias, step)
        total = exps.sum(axis=-1, keepdims=True)
        out[b, h] = product(exps, value[b, h], step) / total
        weights[b, h] = exps / total
    return out, weights


def hidden_pairs(cell, folder, rows, q_len):
    """[B|1, R|1, S] or None"""
    if cell.mask in ("none", "float"):
        return None
    if cell.mask == "padding":
        return read(folder, "mask.u8", (-1, 1, cell.keys), bool)
    return pair_mask(cell.mask, q_len, cell.keys)[rows][None]


def attention_operands(cell, folder, dtype, names=("query", "key", "value")):
    """Each [B, H, n, D]; d_out is as long as the query."""
    b, h, q_len, d = cell.shape
    for name in names:
        n = cell.keys if name in ("key", "value") else q_len
        shape = (b, n, h, d) if cell.layout == "BLHD" else (b, h, n, d)
        yield in_order(cell, read(folder, f"{name}.f32", shape).astype(dtype))


def in_order(cell, x):
    """From memory order to [B, H, n, D], or back."""
    return x.swapaxes(1, 2) if cell.layout == "BLHD" else x


def attention(cell, folder, dtype, step):
    """{"out": ..} at the checked rows, axes in the cell's memory order, as below."""
    _, _, q_len, d = cell.shape
    rows = checked_rows(q_len)
    query, key, value = attention_operands(cell, folder, dtype)
    out, _ = attend(query[:, :, rows] * dtype(d**-0.5), key, value,
                    hidden_pairs(cell, folder, rows, q_len), None, step)
    return {"out": in_order(cell, out)}


def parameters(cell, folder):
    return {name: read(folder, f"{name}.f32", shape) for name, shape in cell.parameter_shapes()}


def split_heads(x, heads):
    """[B, n, E] -> [B, H, n, D]"""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def added_mask(cell, folder, rows, dtype):
    """[R, S] or None"""
    if cell.mask != "float":
        return None
    return read(folder, "mask.f32", (cell.shape[1], cell.keys))[rows].astype(dtype)


def module(cell, folder, dtype, step):
    b, q_len, embed, heads = cell.shape
    rows = checked_rows(q_len)
    state = parameters(cell, folder)
    if cell.kdim:
        parts = [state[f"{part}_proj_weight"] for part in "qkv"]
    else:
        parts = np.split(state["in_proj_weight"], 3)
    query = read(folder, "query.f32", (b, q_len, embed))
    names = {"self": ("query", "query"), "memory": ("key", "key"), "separate": ("key", "value")}
    key, value = (read(folder, f"{name}.f32", (b, cell.keys, width))
                  for name, width in zip(names[cell.inputs], cell.widths[1:]))
    biases = np.split(state["in_proj_bias"], 3)
    q, k, v = (split_heads(project(x, weight, bias, dtype, step), heads)
               for x, weight, bias in zip((query[:, rows], key, value), parts, biases))
    out, weights = attend(q * dtype((embed // heads)**-0.5), k, v,
                          hidden_pairs(cell, folder, rows, q_len),
                          added_mask(cell, folder, rows, dtype), step)
    joined = out.swapaxes(1, 2).reshape(b, len(rows), embed)
    out_weight, out_bias = state["out_proj.weight"], state["out_proj.bias"]
    outputs = {"out": project(joined, out_weight, out_bias, dtype, step)}
    if cell.weights != "none":
        outputs["weights"] = weights.mean(axis=1) if cell.weights == "average" else weights
    return outputs

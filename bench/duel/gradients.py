"""What a training cell's outputs are, as truth.py has it for the forward pass, in the same dtypes.
A gradient sums over a whole sequence, so all of it is computed; with step 1, those sums that end in
a checked row of an output are made term by term."""

import numpy as np

from duel.truth import (added_mask, attention_operands, checked_rows, exp_scores, hidden_of,
                        hidden_pairs, in_order, parameters, product, project, read, split_heads)


def scores_gradient(query, key, value, masks, d_out, d_weights):
    """Of one head -> weights [L, S], d_scores [L, S]; query [L, D] scaled; d_weights [L, S] or 0"""
    weights = exp_scores(query, key, *masks, 0)
    weights /= weights.sum(axis=-1, keepdims=True)
    d_scores = d_out @ value.T + d_weights
    d_scores -= (weights * d_scores).sum(axis=-1, keepdims=True)
    d_scores *= weights
    return weights, d_scores


def attention(cell, folder, dtype, step):
    q_len, scale = cell.shape[2], dtype(cell.shape[3]**-0.5)
    names = "query", "key", "value", "d_out"
    query, key, value, d_out = attention_operands(cell, folder, dtype, names)
    hidden = hidden_pairs(cell, folder, np.arange(q_len), q_len)
    rows, key_rows = checked_rows(q_len), checked_rows(cell.keys)
    found = {name: [] for name in cell.output_shapes()}
    for b, h in np.ndindex(query.shape[:2]):
        q, k, v, d_o = (x[b, h] for x in (query * scale, key, value, d_out))
        weights, d_scores = scores_gradient(q, k, v, (hidden_of(hidden, b), None), d_o, 0)
        found["out"].append(product(weights[rows], v, step))
        found["d_query"].append(product(d_scores[rows], k, step) * scale)
        found["d_key"].append(product(d_scores.T[key_rows], q, step))
        found["d_value"].append(product(weights.T[key_rows], d_o, step))
    return {name: in_order(cell, np.stack(heads).reshape(*query.shape[:2], -1, query.shape[3]))
            for name, heads in found.items()}


def averaged_d_weights(cell, folder, dtype):
    """[B, L, S]; zeros where the loss does not see the weights"""
    b, q_len, _, _ = cell.shape
    if cell.weights == "none":
        return np.zeros((b, 1, 1), dtype)
    return read(folder, "d_weights.f32", (b, q_len, cell.keys)).astype(dtype)


def through_heads(cell, folder, packed, d_joined):
    """packed [B, L, 3E], d_joined [B, L, E] -> joined [B, L, E], averaged weights [B, L, S],
    d_packed [B, L, 3E]"""
    batch, q_len, _, heads = cell.shape
    dtype, everything = packed.dtype.type, np.arange(q_len)
    hidden = hidden_pairs(cell, folder, everything, q_len)
    bias = added_mask(cell, folder, everything, dtype)
    d_weights = averaged_d_weights(cell, folder, dtype) / heads
    query, key, value = (split_heads(x, heads) for x in np.split(packed, 3, axis=-1))
    scale, d_heads = dtype(query.shape[-1]**-0.5), split_heads(d_joined, heads)
    joined, gradients = np.empty_like(query), np.empty((3, *query.shape), dtype)
    averaged = np.zeros((batch, q_len, cell.keys), dtype)
    for b, h in np.ndindex(batch, heads):
        q, k, v, d_out = query[b, h] * scale, key[b, h], value[b, h], d_heads[b, h]
        weights, d_scores = scores_gradient(q, k, v, (hidden_of(hidden, b), bias), d_out,
                                            d_weights[b])
        averaged[b] += weights / heads
        joined[b, h] = weights @ v
        gradients[:, b, h] = d_scores @ k * scale, d_scores.T @ q, weights.T @ d_out
    return join_heads(joined), averaged, np.concatenate([*map(join_heads, gradients)], axis=-1)


def join_heads(x):
    """[B, H, n, D] -> [B, n, E]"""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


def linear_gradient(x, d_y, step):
    """Of the checked rows of weight [N, K] and bias [N]; x [B, L, K], d_y [B, L, N]"""
    x, d_y = (a.reshape(-1, a.shape[-1]) for a in (x, d_y))
    rows = checked_rows(d_y.shape[-1])
    return product(d_y.T[rows], x, step), d_y.sum(axis=0)[rows]


def module(cell, folder, dtype, step):
    b, q_len, embed, _ = cell.shape
    rows = checked_rows(q_len)
    state = {name: x.astype(dtype) for name, x in parameters(cell, folder).items()}
    x, d_out = (read(folder, name, (b, q_len, embed)).astype(dtype)
                for name in ("query.f32", "d_out.f32"))
    packed = project(x, state["in_proj_weight"], state["in_proj_bias"], dtype, 0)
    joined, weights, d_packed = through_heads(cell, folder, packed, d_out @ state["out_proj.weight"])
    out = project(joined[:, rows], state["out_proj.weight"], state["out_proj.bias"], dtype, step)
    d_query = product(d_packed[:, rows].reshape(-1, 3 * embed), state["in_proj_weight"], step)
    found = {"out": out, "d_query": d_query.reshape(out.shape)}
    if cell.weights != "none":
        found["weights"] = weights[:, rows]
    for name, (inner, d_outer) in {"in_proj_": (x, d_packed), "out_proj.": (joined, d_out)}.items():
        found[f"d_{name}weight"], found[f"d_{name}bias"] = linear_gradient(inner, d_outer, step)
    return found

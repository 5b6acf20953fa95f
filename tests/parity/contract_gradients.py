"""What a training step computes, in NumPy and any precision, as contract.py does the forward: the
truth of float64 modules (in long double), and the naive competitors.

Every gradient is named after what it is the gradient of, parameters as in the state dict.

There are two naive competitors. One keeps the weights of the forward, [B, H, L, S] numbers. The lean
one keeps what an attention in O(L D) memory can, torch's own and ours among them: the log of each
row's sum, and the output, so that p = exp(s - lse) and sum_j p_j d_p_j = d_out . out. In a row where
one weight is nearly 1 its roundings no longer cancel.
"""

import numpy as np

from contract import append_rows, hidden_and_bias, product, projections, softmax


def summed_onto(x, shape):
    """x [B, H, L, S] summed over what `shape` (of 4) broadcasts over."""
    axes = tuple(i for i, size in enumerate(shape) if size == 1)
    return x.sum(axis=axes, keepdims=True).reshape(shape)


def by_head(x, num_heads):
    """[B, len, E] -> [B, H, len, D]"""
    return x.reshape(*x.shape[:2], num_heads, -1).swapaxes(1, 2)


def joined(x):
    """[B, H, len, D] -> [B, len, E]"""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


def rows(x):
    """[B, len, E] -> [B * len, E]"""
    return x.reshape(-1, x.shape[-1])


def linear_gradients(d_y, x, weight, step):
    """(d_x, d_weight, d_bias) of y = x . weight^T + bias."""
    ones = np.ones((1, rows(d_y).shape[0]), d_y.dtype)
    return (product(d_y, weight, step), product(rows(d_y).T, rows(x), step),
            product(ones, rows(d_y), step)[0])


def lean_weights(scores, hidden):
    """exp(scores - lse), lse rounded as it is stored."""
    scores = np.where(hidden, -np.inf, scores)
    top = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    top = np.where(np.isneginf(top), 0, top)
    total = np.exp(scores - top).sum(axis=-1, keepdims=True)
    lse = top + np.log(np.where(total == 0, 1, total))
    return np.exp(scores - lse)


def attention_gradients(heads, d_heads, d_weights, hidden_bias, step, lean):
    """(d_q, d_k, d_v, d_scores), and the heads' output, of heads = (q, k, v), [B, H, len, D]."""
    q, k, v = heads
    hidden, bias = hidden_bias
    scale = 1 / np.sqrt(np.asarray(q.shape[-1], q.dtype))
    scores = product(q * scale, k.swapaxes(-1, -2), step) + bias
    weights = softmax(scores, hidden)
    out = product(weights, v, step)
    d_p = product(d_heads, v.swapaxes(-1, -2), step) + d_weights
    if lean:
        weights = lean_weights(scores, hidden)
        delta = (d_heads * out).sum(axis=-1, keepdims=True)
        delta = delta + (weights * d_weights).sum(axis=-1, keepdims=True)
    else:
        delta = (weights * d_p).sum(axis=-1, keepdims=True)
    d_scores = np.where(hidden, 0, weights * (d_p - delta))
    d_q = product(d_scores, k, step) * scale
    d_k = product(d_scores.swapaxes(-1, -2), q, step) * scale
    d_v = product(weights.swapaxes(-1, -2), d_heads, step)
    return d_q, d_k, d_v, d_scores, out


def gradients(case, cotangents, dtype, step=0, lean=False):
    """cotangents: d_out [B, L, E], d_weights [B, H, L, S'], a head's share if they are averaged."""
    as_dtype = lambda x: np.asarray(x, dtype)
    d_out, d_weights = map(as_dtype, cotangents)
    state = {name: as_dtype(array) for name, array in case.state.items()}
    inputs = [as_dtype(x) for x in case.batch_first_inputs()]
    q, k, v = projections(case, dtype, step)
    hidden, bias = hidden_and_bias(case, dtype)
    for has_row, names in ((case.add_bias_kv, ("bias_k", "bias_v")), (case.add_zero_attn, (None, None))):
        if has_row:
            k, v = append_rows(k, state.get(names[0])), append_rows(v, state.get(names[1]))
            hidden, bias = (np.pad(x, [(0, 0)] * 3 + [(0, 1)]) for x in (hidden, bias))
    d_joined = product(d_out, state["out_proj.weight"], step)
    *d_heads, d_scores, heads = attention_gradients(
        [by_head(x, case.num_heads) for x in (q, k, v)], by_head(d_joined, case.num_heads), d_weights,
        (hidden, bias), step, lean)
    d_q, d_k, d_v = map(joined, d_heads)
    result = mask_gradients(case, d_scores[..., :case.kv_len])
    if case.add_bias_kv:
        result["bias_k"], result["bias_v"] = (x[:, case.kv_len].sum(axis=0)[None, None] for x in (d_k, d_v))
    _, result["out_proj.weight"], result["out_proj.bias"] = linear_gradients(
        d_out, joined(heads), state["out_proj.weight"], step)
    d_projected = [d_q, d_k[:, :case.kv_len], d_v[:, :case.kv_len]]
    result |= projection_gradients(case, state, inputs, d_projected, step)
    is_parameter = lambda name: "proj" in name
    return {name: x for name, x in result.items() if name in state or not is_parameter(name)}


def mask_gradients(case, d_scores):
    result = {}
    if case.attn_mask is not None and not case.attn_mask.dtype == bool:
        four = (1, 1, *case.attn_mask.shape) if case.attn_mask.ndim == 2 else case.attn_mask_4d().shape
        result["attn_mask"] = summed_onto(d_scores, four).reshape(case.attn_mask.shape)
    if case.key_padding_mask is not None and not case.key_padding_mask.dtype == bool:
        four = case.key_padding_mask_4d().shape
        result["key_padding_mask"] = summed_onto(d_scores, four).reshape(case.key_padding_mask.shape)
    return result


def projection_gradients(case, state, inputs, d_projected, step):
    """Of the inputs and the in-projections; one input that stands for three receives the sum."""
    packed = "in_proj_weight" in state
    weights = (np.split(state["in_proj_weight"], 3) if packed
               else [state[f"{name}_proj_weight"] for name in "qkv"])
    d_inputs, d_weights, d_biases = zip(*(linear_gradients(d_y, x, w, step)
                                          for d_y, x, w in zip(d_projected, inputs, weights)))
    if case.self_attention:
        result = {"query": sum(d_inputs)}
    else:
        result = dict(zip(("query", "key", "value"), d_inputs))
    result["in_proj_bias"] = np.concatenate(d_biases)
    if packed:
        return result | {"in_proj_weight": np.concatenate(d_weights)}
    return result | {f"{name}_proj_weight": d for name, d in zip("qkv", d_weights)}

"""What the module computes, written once more in NumPy, in whatever precision is asked for.

It settles what torch leaves open or gets wrong (rows whose every key is masked, causality beside
other masks), is the truth for float64 modules (run in long double), and the naive competitor for
float32 ones. Where torch has an answer, the tests hold this formula against torch's.
"""

import numpy as np


def hidden_and_bias(case, dtype):
    """(hidden, bias), both [B, H, L, S]: a pair is masked if hidden, or if its bias is -inf."""
    shape = (case.batch, case.num_heads, case.q_len, case.kv_len)
    hidden, bias = np.zeros(shape, bool), np.zeros(shape, dtype)
    for mask in (case.attn_mask_4d(), case.key_padding_mask_4d()):
        if mask is not None and mask.dtype == bool:
            hidden = hidden | mask
        elif mask is not None:
            bias = bias + mask.astype(dtype)
    if case.is_causal:
        offset = case.kv_len - case.q_len if case.causal_align == "bottom-right" else 0
        hidden = hidden | ~np.tri(case.q_len, case.kv_len, offset, dtype=bool)
    return hidden | np.isneginf(bias), bias


def product(a, b, step=0):
    """a [..., m, k] . b [..., k, n]. With step 1 or -1 the naive way: one sum per element, term by
    term, forwards or backwards; with 0 as NumPy likes it."""
    if step == 0:
        return a @ b
    total = np.zeros(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]) + (a.shape[-2], b.shape[-1]),
                     np.result_type(a, b))
    for k in range(a.shape[-1])[::step]:
        total += a[..., :, k:k + 1] * b[..., k:k + 1, :]
    return total


def project(x, weight, bias, dtype, step=0):
    y = product(x.astype(dtype), weight.astype(dtype).T, step)  # [B, len, E]
    return y if bias is None else y + bias.astype(dtype)


def projections(case, dtype, step):
    """q [B, L, E], k and v [B, S, E] of batch-first inputs."""
    state = case.state
    if "in_proj_weight" in state:
        weights = np.split(state["in_proj_weight"], 3)
    else:
        weights = [state[f"{name}_proj_weight"] for name in "qkv"]
    biases = np.split(state["in_proj_bias"], 3) if "in_proj_bias" in state else [None] * 3
    return [project(x, w, b, dtype, step) for x, w, b in zip(case.batch_first_inputs(), weights, biases)]


def append_rows(x, row):
    """x [B, S, E] with one more position: `row` [1, 1, E], or zeros."""
    extra = np.zeros_like(x[:, :1]) if row is None else np.broadcast_to(row, x[:, :1].shape)
    return np.concatenate([x, extra.astype(x.dtype)], axis=1)


def softmax(scores, hidden):
    """Over the last axis; a row without a visible key is all zeros."""
    scores = np.where(hidden, -np.inf, scores)
    top = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    shifted = scores - np.where(np.isneginf(top), 0, top)
    exps = np.exp(shifted)
    total = exps.sum(axis=-1, keepdims=True)
    return exps / np.where(total == 0, 1, total)


def attention(query, key, value, visible=True, bias=0.0, scale=None, softcap=0.0, sinks=None,
              dtype=np.float64, step=0):
    """The op alone: (out, weights per head); `visible` and `bias` broadcast onto the scores."""
    query, key, value = (np.asarray(x, dtype) for x in (query, key, value))
    scale = np.asarray(query.shape[-1], dtype) ** -0.5 if scale is None else np.asarray(scale, dtype)
    scores = product(query * scale, key.swapaxes(-1, -2), step)
    if softcap:
        scores = np.asarray(softcap, dtype) * np.tanh(scores / np.asarray(softcap, dtype))
    scores = scores + np.asarray(bias, dtype)
    hidden = ~np.broadcast_to(visible, scores.shape) | np.isneginf(scores)
    if sinks is None:
        weights = softmax(scores, hidden)
    else:
        column = np.broadcast_to(np.asarray(sinks, dtype)[:, None, None], (*scores.shape[:-1], 1))
        seen = np.zeros_like(column, bool)
        weights = softmax(np.concatenate([scores, column], -1),
                          np.concatenate([hidden, seen], -1))[..., :-1]
    return product(weights, value, step), weights


def forward(case, dtype, step=0):
    """(out [B, L, E], weights [B, H, L, S']); `step` as in product()."""
    q, k, v = projections(case, dtype, step)
    hidden, bias = hidden_and_bias(case, dtype)
    for has_row, k_row, v_row in ((case.add_bias_kv, case.state.get("bias_k"), case.state.get("bias_v")),
                                  (case.add_zero_attn, None, None)):
        if has_row:
            k, v = append_rows(k, k_row), append_rows(v, v_row)
            hidden = np.pad(hidden, [(0, 0)] * 3 + [(0, 1)])
            bias = np.pad(bias, [(0, 0)] * 3 + [(0, 1)])
    heads = [x.reshape(*x.shape[:2], case.num_heads, -1).swapaxes(1, 2) for x in (q, k, v)]
    q, k, v = heads  # [B, H, len, D]
    out, weights = attention(q, k, v, ~hidden, bias, dtype=dtype, step=step)
    joined = out.swapaxes(1, 2).reshape(case.batch, case.q_len, -1)
    state = case.state
    out = project(joined, state["out_proj.weight"], state.get("out_proj.bias"), dtype, step)
    return out, weights

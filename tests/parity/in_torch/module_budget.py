"""The error budget of one training step of torch.nn.MultiheadAttention on a configuration of
case.py whose numbers are float32; names as torch_case.names_of has them."""

import contract_gradients as steps
import numpy as np
from contract import hidden_and_bias

from budget import (attention, attention_gradients, dot, exact, join, split, summed, summed_onto)
from error_rule import unit_roundoff


def transposed(x):
    return x.map(np.transpose)


def rows(x):
    return x.map(steps.rows)


class ModuleBudget:

    def __init__(self, case, d_out, d_weights):
        self.case, self.u = case, unit_roundoff(np.float32)
        self.state = {name: exact(x) for name, x in case.state.items()}
        self.inputs = [exact(x) for x in case.batch_first_inputs()]
        self.d_out = exact(self.batch_first(d_out))
        self.d_weights = self.share_of_a_head(d_weights)

    def batch_first(self, x):
        x = x[None] if self.case.unbatched else x
        return x if self.case.batch_first or self.case.unbatched else x.swapaxes(0, 1)

    def in_layout(self, x):
        if self.case.unbatched:
            return x.map(lambda y: y[0])
        return x if self.case.batch_first else x.map(lambda y: y.swapaxes(0, 1))

    def by_head(self, x):
        return x.map(lambda y: steps.by_head(y, self.case.num_heads))

    def share_of_a_head(self, d_weights):
        if d_weights is None:
            return np.zeros((1, 1, 1, 1))
        d_weights = np.asarray(d_weights, np.float64)
        d_weights = d_weights[None] if self.case.unbatched else d_weights
        is_average = self.case.need_weights == "average"
        return d_weights[:, None] / self.case.num_heads if is_average else d_weights

    def projections(self):
        """(weight, bias or None) of q, k, v."""
        case, state = self.case, self.state
        if "in_proj_weight" in state:
            weights = split(state["in_proj_weight"], [case.embed_dim] * 3, 0)
        else:
            weights = [state[f"{name}_proj_weight"] for name in "qkv"]
        if not case.bias:
            return [(weight, None) for weight in weights]
        return list(zip(weights, split(state["in_proj_bias"], [case.embed_dim] * 3, 0)))

    def linear(self, x, weight, bias):
        """x [B, len, in]; the bias is one more term."""
        if bias is not None:
            x = join([x, exact(np.ones_like(x.value[..., :1]))], -1)
            weight = join([weight, bias.map(lambda y: y[:, None])], 1)
        return dot(x, transposed(weight), self.u)

    def appended(self, x, name):
        """x [B, S, E] with the rows that the options add."""
        nothing = np.zeros_like(x.value[:, :1])
        parts = [x]
        if self.case.add_bias_kv:
            parts.append(exact(nothing + self.state[name].value))
        if self.case.add_zero_attn:
            parts.append(exact(nothing))
        return join(parts, 1)

    def bias(self):
        """Of the scores, [B, H, L, S']; -inf hides."""
        hidden, bias = hidden_and_bias(self.case, np.float64)
        more = self.case.add_bias_kv + self.case.add_zero_attn
        return np.pad(np.where(hidden, -np.inf, bias), [(0, 0)] * 3 + [(0, more)])

    def run(self):
        """{name: Rounded}"""
        case = self.case
        scale = case.head_dim**-0.5
        q, k, v = (self.linear(x, *parameters)
                   for x, parameters in zip(self.inputs, self.projections()))
        heads = [self.by_head(x) for x in
                 (q, self.appended(k, "bias_k"), self.appended(v, "bias_v"))]
        out, weights = attention(heads, self.bias(), scale, self.u)
        joined = out.map(steps.joined)
        out_weight, out_bias = self.state["out_proj.weight"], self.state.get("out_proj.bias")
        result = {"out": self.in_layout(self.linear(joined, out_weight, out_bias))}
        if case.need_weights != "none":
            result["weights"] = self.as_asked(weights)
        *d_heads, d_scores = attention_gradients(
            heads, weights, self.by_head(dot(self.d_out, out_weight, self.u)),
            self.d_weights, scale, self.u)
        d_q, d_k, d_v = (x.map(steps.joined) for x in d_heads)
        if case.add_bias_kv:
            for name, d in (("bias_k", d_k), ("bias_v", d_v)):
                row = d.map(lambda y: y[:, case.kv_len:case.kv_len + 1])
                result[f"d_{name}"] = summed(row, [0], self.u)
        d_k, d_v = (x.map(lambda y: y[:, :case.kv_len]) for x in (d_k, d_v))
        result["d_out_proj.weight"], result["d_out_proj.bias"] = self.of_parameters(self.d_out, joined)
        result |= self.of_masks(d_scores) | self.of_projections([d_q, d_k, d_v])
        return {name: x for name, x in result.items() if case.bias or "proj" not in name or
                "bias" not in name}

    def as_asked(self, weights):
        if self.case.need_weights == "average":
            weights = summed(weights, [1], self.u).map(lambda y: y[:, 0] / self.case.num_heads)
        return weights.map(lambda y: y[0]) if self.case.unbatched else weights

    def of_parameters(self, d_y, x):
        """(d_weight, d_bias) of y = x . weight^T + bias"""
        d = transposed(rows(d_y))
        ones = exact(np.ones((d.value.shape[1], 1)))
        d_bias = dot(d, ones, self.u, independent=True).map(lambda y: y[:, 0])
        return dot(d, rows(x), self.u, independent=True), d_bias

    def of_masks(self, d_scores):
        case = self.case
        real = d_scores.map(lambda y: y[..., :case.kv_len])
        result = {}
        if case.attn_mask is not None and case.attn_mask.dtype != bool:
            shape = case.attn_mask_4d().shape
            result["d_attn_mask"] = summed_onto(real, shape, self.u).map(
                lambda y: y.reshape(case.attn_mask.shape))
        padding = case.key_padding_mask
        if padding is not None and padding.dtype != bool:
            result["d_padding"] = summed_onto(real, case.key_padding_mask_4d().shape, self.u).map(
                lambda y: y.reshape(padding[0].shape if case.unbatched else padding.shape))
        return result

    def of_projections(self, d_projected):
        """Of the inputs and the in-projections; one input that stands for three gets one sum."""
        weights, biases = zip(*(self.of_parameters(d, x) for d, x in zip(d_projected, self.inputs)))
        matrices = [weight for weight, _ in self.projections()]
        if self.case.self_attention:
            d_inputs = {"query": dot(join(d_projected, 2), join(matrices, 0), self.u)}
        else:
            d_inputs = {name: dot(d, matrix, self.u) for name, d, matrix in
                        zip(("query", "key", "value"), d_projected, matrices)}
        result = {f"d_{name}": self.in_layout(x) for name, x in d_inputs.items()}
        result["d_in_proj_bias"] = join(biases, 0)
        if "in_proj_weight" in self.state:
            return result | {"d_in_proj_weight": join(weights, 0)}
        return result | {f"d_{name}_proj_weight": x for name, x in zip("qkv", weights)}

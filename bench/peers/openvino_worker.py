"""OpenVINO's side: its own operation set, with fixed and with unknown shapes, which it runs by
different kernels; scaled_dot_product_attention or the plain formula, projections in one product or
in three."""

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from cell_inputs import ModuleInputs
from decode_cells import DecodeInputs, variant_in_turn
from serving import NO_GRADIENTS, NotOffered, Server, Variant, wanted_threads, zeros

CORE = ov.Core()
CONFIG = {
    "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1",
    "INFERENCE_NUM_THREADS": str(wanted_threads()),
    "ENABLE_CPU_PINNING": "NO",  # the referee has pinned the process
}


class Graph:
    """`dynamic`: batch and lengths are not known before the call."""

    def __init__(self, dynamic):
        self.dynamic = dynamic
        self.inputs = {}  # name -> (parameter, array)

    def read(self, name, array, free=2):
        """`free`: so many leading sizes may change."""
        if name not in self.inputs:
            sizes = [-1] * free + list(array.shape[free:]) if self.dynamic else array.shape
            parameter = ops.parameter(ov.PartialShape(list(sizes)), array.dtype, name=name)
            self.inputs[name] = parameter, array
        return self.inputs[name][0]

    def variant(self, results):
        """`results`: name -> (node, shape)"""
        parameters = [parameter for parameter, _ in self.inputs.values()]
        model = ov.Model([node for node, _ in results.values()], parameters, "cell")
        request = CORE.compile_model(model, "CPU", CONFIG).create_infer_request()
        outputs = {name: zeros(shape) for name, (_, shape) in results.items()}
        for index, (_, array) in enumerate(self.inputs.values()):
            request.set_input_tensor(index, ov.Tensor(array, shared_memory=True))
        for index, array in enumerate(outputs.values()):
            request.set_output_tensor(index, ov.Tensor(array, shared_memory=True))
        kept = self.inputs, outputs  # the request points into them and does not own them

        def run(_kept=kept):
            request.infer()
        return Variant(run, lambda: outputs)


def order(x, axes):
    return ops.transpose(x, np.array(axes, np.int64))


def linear(x, weight, bias):
    """weight [out, in], as the state dict has it."""
    return ops.add(ops.matmul(x, ops.constant(weight), False, True), ops.constant(bias))


class ModuleGraph(Graph):
    def __init__(self, cell, dynamic, one_product):
        super().__init__(dynamic)
        self.cell = cell
        self.one_product = one_product
        self.head_dim = cell.words.embed_dim // cell.words.num_heads

    def heads(self):
        """Each [B, H, n, D]"""
        cell = self.cell
        operands = [self.read(name, array) for name, array in cell.operands]
        split = np.array([0, 0, cell.words.num_heads, self.head_dim], np.int64)
        if self.one_product:
            packed = linear(operands[0], np.concatenate(cell.weights), np.concatenate(cell.biases))
            projected = ops.split(packed, np.int64(2), 3).outputs()
        else:
            projected = [linear(*three) for three in zip(operands, cell.weights, cell.biases)]
        return [order(ops.reshape(x, split, True), (0, 2, 1, 3)) for x in projected]

    def mask(self):
        """What is added to the scores, 4-D, or None; a causal one only where asked for."""
        cell = self.cell
        if cell.padding is not None or cell.hidden is not None or cell.bias is not None:
            return self.read("mask", cell.added_bias(), 4)
        return None

    def finish(self, heads, weights=None):
        cell = self.cell
        joined = ops.reshape(order(heads, (0, 2, 1, 3)),
                             np.array([0, 0, cell.words.embed_dim], np.int64), True)
        results = {"out": (linear(joined, cell.out_weight, cell.out_bias), cell.out_shape)}
        if weights is not None:
            if cell.words.weights == "average":
                weights = ops.reduce_mean(weights, np.array([1], np.int64))
            results["weights"] = (weights, cell.weights_shape)
        return self.variant(results)

    def fused(self):
        mask = self.mask()
        return self.finish(ops.scaled_dot_product_attention(
            *self.heads(), *([] if mask is None else [mask]), causal=self.cell.causal))

    def plain(self):
        query, key, value = self.heads()
        scaled = ops.multiply(query, ops.constant(np.float32(self.head_dim**-0.5)))
        scores = ops.matmul(scaled, key, False, True)
        added = self.cell.added_bias()
        if added is not None:
            scores = ops.add(scores, self.read("mask", added, 4))
        weights = ops.softmax(scores, -1)
        heads = ops.matmul(weights, value, False, False)
        return self.finish(heads, weights if self.cell.words.weights != "none" else None)


def shapes_text(dynamic):
    return "dynamic shapes" if dynamic else "static shapes"


def module_variants(words):
    cell = ModuleInputs(words)
    formulas = {"MatMul, Softmax, MatMul": ModuleGraph.plain}
    if words.weights == "none":
        formulas["SDPA"] = ModuleGraph.fused
    variants = {}
    for one_product in (False, True) if words.inputs == "self" else (False,):
        for name, formula in formulas.items():
            for dynamic in (False, True):
                products = ", one projection" if one_product else ""
                variants[f"{name}, {shapes_text(dynamic)}{products}"] = formula(
                    ModuleGraph(cell, dynamic, one_product))
    return variants


def attention_variant(words, dynamic):
    graph = Graph(dynamic)
    inner = words.layout == "BLHD"
    operands = []
    for name, n in (("query", words.q_len), ("key", words.kv_len), ("value", words.kv_len)):
        sizes = (words.batch, n, words.heads, words.head_dim)
        if not inner:
            sizes = (sizes[0], sizes[2], n, sizes[3])
        # Dynamic: batch and length.
        x = graph.read(name, words.read(f"{name}.f32", sizes), 2 if inner else 3)
        operands.append(order(x, (0, 2, 1, 3)) if inner else x)
    out = ops.scaled_dot_product_attention(*operands, causal=words.mask == "causal")
    out = order(out, (0, 2, 1, 3)) if inner else out
    return graph.variant({"out": (out, graph.inputs["query"][1].shape)})


def attention_variants(words):
    return {f"SDPA, {shapes_text(dynamic)}": attention_variant(words, dynamic)
            for dynamic in (False, True)}


def decode_variant(cell, caches, dynamic):
    """Heads that share keys as queries of one head."""
    query = cell.query().reshape(cell.grouped_shape)
    variants = []
    for key, value in caches:
        graph = Graph(dynamic)
        operands = [graph.read(name, array, 3)
                    for name, array in (("query", query), ("key", key), ("value", value))]
        out = ops.scaled_dot_product_attention(*operands, causal=False)
        variants.append(graph.variant({"out": (out, cell.grouped_shape)}))
    return variant_in_turn(variants)


def decode_variants(words):
    cell = DecodeInputs(words)
    caches = cell.caches()
    return {f"SDPA, a group as queries, {shapes_text(dynamic)}": decode_variant(
        cell, caches, dynamic) for dynamic in (False, True)}


def if_it_builds(maker):
    def variants(words):
        try:
            return maker(words)
        except RuntimeError as error:
            raise NotOffered(str(error).splitlines()[0]) from error
    return variants


MAKERS = {"attention": if_it_builds(attention_variants), "module": if_it_builds(module_variants),
          "decode": if_it_builds(decode_variants)}

if __name__ == "__main__":
    version = ov.get_version().split("-")[0]
    Server(f"openvino {version}", MAKERS, NO_GRADIENTS,
           {"isa": "its own choice", "threads": wanted_threads()}).serve()

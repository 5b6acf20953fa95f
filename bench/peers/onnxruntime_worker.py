"""ONNX Runtime's side: its contributed operators, the ONNX domain's Attention, a plain graph."""

import numpy as np
import onnxruntime as ort

from cell_inputs import ModuleInputs
from decode_cells import DecodeInputs, InTurn, variant_in_turn
from onnx_graphs import CONTRIB, Graph, ModuleGraph
from serving import NO_GRADIENTS, NotOffered, Server, Variant, wanted_threads, zeros


def session_of(model):
    options = ort.SessionOptions()
    options.intra_op_num_threads = wanted_threads()
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def variant_of(graph, named):
    """`named`: the graph's outputs -> (name, shape). Inputs and outputs stay where they are."""
    session = session_of(graph.model({output: shape for output, (_, shape) in named.items()}))
    binding = session.io_binding()
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in graph.inputs.values()]
    for name, value in zip(graph.inputs, values):
        binding.bind_ortvalue_input(name, value)
    outputs = {}
    for output, (name, shape) in named.items():
        outputs[name] = zeros(shape)
        binding.bind_output(output, "cpu", 0, outputs[name].dtype, shape,
                            outputs[name].ctypes.data)
    kept = (values, session)  # the binding points into them

    def run(session=session, _kept=kept):
        session.run_with_iobinding(binding)
    return Variant(run, lambda: outputs)


def offered(builders):
    """Those that this version takes; why not, if there are none."""
    variants, reasons = {}, []
    for name, build in builders.items():
        try:
            variants[name] = build()
            variants[name].run()
        except Exception as error:  # pylint: disable=broad-except
            variants.pop(name, None)
            reasons.append(f"{name}: {str(error).splitlines()[0]}")
    if not variants:
        raise NotOffered("; ".join(reasons))
    return variants


def module_variants(words):
    cell = ModuleInputs(words)

    def build(method):
        graph = ModuleGraph(cell)
        return variant_of(graph, getattr(graph, method)())

    methods = {"Attention-23": "attention_23", "MatMul, Softmax, MatMul": "plain"}
    if words.weights == "none":
        methods["contrib MultiHeadAttention"] = "contrib_mha"
        if words.inputs == "self":
            methods["contrib Attention"] = "contrib_attention"
    return offered({name: lambda method=method: build(method)
                    for name, method in methods.items()})


def operands_of(graph, words):
    """query, key, value in the cell's memory order"""
    def shape(n):
        if words.layout == "BLHD":
            return words.batch, n, words.heads, words.head_dim
        return words.batch, words.heads, n, words.head_dim
    lengths = {"query": words.q_len, "key": words.kv_len, "value": words.kv_len}
    return [graph.read(name, words.read(f"{name}.f32", shape(n))) for name, n in lengths.items()]


def attention_23(words):
    """4-D where the heads are outside, 3-D where they are inside."""
    graph = Graph()
    operands = operands_of(graph, words)
    out_shape = graph.inputs["query"].shape
    if words.layout == "BLHD":
        flatten_heads(graph)
        counts = {"q_num_heads": words.heads, "kv_num_heads": words.heads}
        out_shape = graph.inputs["query"].shape
    else:
        counts = {}
    out = graph.node("Attention", operands, is_causal=int(words.mask == "causal"), **counts)
    return variant_of(graph, {out: ("out", out_shape)})


def contrib_mha(words):
    graph = Graph()
    operands = operands_of(graph, words)
    flatten_heads(graph)
    out = graph.node("MultiHeadAttention", operands, domain=CONTRIB, num_heads=words.heads,
                     unidirectional=int(words.mask == "causal"))
    return variant_of(graph, {out: ("out", graph.inputs["query"].shape)})


def flatten_heads(graph):
    """[B, n, H, D] -> [B, n, H*D], the same memory"""
    graph.inputs = {name: array.reshape(*array.shape[:2], -1)
                    for name, array in graph.inputs.items()}


def attention_variants(words):
    builders = {"Attention-23": lambda: attention_23(words)}
    if words.layout == "BLHD":  # the contributed one takes queries in no other order
        builders["contrib MultiHeadAttention"] = lambda: contrib_mha(words)
    return offered(builders)


def group_query_attention(cell, caches):
    """Its caches are its own outputs: the newest token is written into them."""
    words, (b, kv_heads, kv_len, d) = cell.words, cell.keys_shape
    newest = [caches[0][n][:, :, -1:].reshape(b, 1, kv_heads * d) for n in (0, 1)]
    graph = Graph()
    inputs = [graph.read("query", cell.query().reshape(b, 1, -1)), graph.read("key", newest[0]),
              graph.read("value", newest[1]), graph.read("past_key", caches[0][0]),
              graph.read("past_value", caches[0][1]),
              graph.read("last", np.full(b, kv_len - 1, np.int32)),
              graph.read("total", np.array([kv_len], np.int32))]
    out, *present = graph.node("GroupQueryAttention", inputs, domain=CONTRIB, outputs=3,
                               num_heads=words.heads, kv_num_heads=kv_heads)
    out_shape = graph.inputs["query"].shape
    session = session_of(graph.model({out: out_shape, present[0]: cell.keys_shape,
                                      present[1]: cell.keys_shape}))
    result, bindings, kept = zeros(out_shape), [], []
    for pair in caches:
        binding = session.io_binding()
        values = {name: ort.OrtValue.ortvalue_from_numpy(array)
                  for name, array in graph.inputs.items() if not name.startswith("past")}
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for name, output, array in zip(("past_key", "past_value"), present, pair):
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            binding.bind_output(output, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        binding.bind_output(out, "cpu", 0, result.dtype, out_shape, result.ctypes.data)
        bindings.append(binding)
        kept.append((values, pair))

    def run(step=InTurn([lambda binding=binding: session.run_with_iobinding(binding)
                          for binding in bindings]), _kept=kept):
        step()
    return Variant(run, lambda: {"out": result.reshape(cell.query_shape)})


def decode_attention_23(cell, caches):
    variants = []
    for pair in caches:
        graph = Graph()
        operands = [graph.read(name, array)
                    for name, array in zip(("query", "key", "value"), (cell.query(), *pair))]
        out = graph.node("Attention", operands)
        variants.append(variant_of(graph, {out: ("out", cell.query_shape)}))
    return variant_in_turn(variants)


def decode_variants(words):
    cell = DecodeInputs(words)
    caches = cell.caches()
    return offered({"contrib GroupQueryAttention": lambda: group_query_attention(cell, caches),
                    "Attention-23": lambda: decode_attention_23(cell, caches)})


MAKERS = {"attention": attention_variants, "module": module_variants, "decode": decode_variants}

if __name__ == "__main__":
    Server(f"onnxruntime {ort.__version__}", MAKERS, NO_GRADIENTS,
           {"isa": "its own choice", "threads": wanted_threads()}).serve()

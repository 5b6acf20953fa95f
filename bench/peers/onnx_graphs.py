"""Models of one cell, in ONNX: the ways that ONNX Runtime has to compute attention.

A Graph collects nodes and says what it reads; weights are constants of the graph, so that the
runtime may pack them. Inputs, masks among them, are given at each call.
"""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

CONTRIB = "com.microsoft"
OPSETS = [("", 23), (CONTRIB, 1)]
IR_VERSION = 11
TYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(bool): TensorProto.BOOL,
         np.dtype(np.int32): TensorProto.INT32}


class Graph:
    def __init__(self):
        self.nodes, self.constants = [], []
        self.inputs = {}  # name -> array

    def node(self, op, inputs, domain="", outputs=1, **attributes):
        """The name of its first output, or all names if there are more."""
        names = [f"{op}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, array):
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def read(self, name, array):
        self.inputs[name] = array
        return name

    def linear(self, x, weight, bias=None):
        """weight [out, in], as the state dict has it."""
        y = self.node("MatMul", [x, self.constant(weight.T)])
        return y if bias is None else self.node("Add", [y, self.constant(bias)])

    def model(self, outputs):
        """`outputs`: name in the graph -> shape."""
        inputs = [helper.make_tensor_value_info(name, TYPES[array.dtype], array.shape)
                  for name, array in self.inputs.items()]
        wanted = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                  for name, shape in outputs.items()]
        graph = helper.make_graph(self.nodes, "cell", inputs, wanted, self.constants)
        opsets = [helper.make_opsetid(*one) for one in OPSETS]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def as_bias(hidden):
    """0 where visible, minus infinity where hidden."""
    return np.where(hidden, np.float32(-np.inf), np.float32(0))


class ModuleGraph(Graph):
    """`cell`: cell_inputs.ModuleInputs."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell
        self.operands = [self.read(name, array) for name, array in cell.operands]

    def finish(self, joined, weights=None):
        """(outputs by their names in the graph, names by which the referee knows them)"""
        cell = self.cell
        out = self.linear(joined, cell.out_weight, cell.out_bias)
        named = {out: ("out", cell.out_shape)}
        if weights is not None:
            if cell.words.weights == "average":
                axes = self.constant(np.array([1], np.int64))
                weights = self.node("ReduceMean", [weights, axes], keepdims=0)
            named[weights] = ("weights", cell.weights_shape)
        return named

    def contrib_mha(self):
        """com.microsoft MultiHeadAttention; the biases of the projections are its own input."""
        cell = self.cell
        projected = [self.linear(x, w) for x, w in zip(self.operands, cell.weights)]
        padding = bias = ""
        if cell.padding is not None:
            padding = self.read("visible", (~cell.padding).astype(np.int32))
        if cell.bias is not None or cell.hidden is not None:
            added = cell.bias if cell.bias is not None else as_bias(cell.hidden)
            bias = self.read("bias", added[None, None])
        joined = self.node("MultiHeadAttention",
                           [*projected, self.constant(np.concatenate(cell.biases)), padding, bias],
                           domain=CONTRIB, num_heads=cell.words.num_heads,
                           unidirectional=int(cell.causal))
        return self.finish(joined)

    def contrib_attention(self):
        """com.microsoft Attention, which projects with one product."""
        cell = self.cell
        visible = bias = ""
        if cell.padding is not None:
            visible = self.read("visible", (~cell.padding).astype(np.int32))
        if cell.bias is not None or cell.hidden is not None:
            added = cell.bias if cell.bias is not None else as_bias(cell.hidden)
            bias = self.read("bias", added[None, None])
        packed = np.concatenate([w.T for w in cell.weights], axis=1)
        inputs = [self.operands[0], self.constant(packed),
                  self.constant(np.concatenate(cell.biases)), visible, "", bias]
        joined = self.node("Attention", inputs, domain=CONTRIB, num_heads=cell.words.num_heads,
                           unidirectional=int(cell.causal))
        return self.finish(joined)

    def attention_23(self):
        """The ONNX domain's own Attention; its scores after softmax are the weights."""
        cell = self.cell
        projected = [self.linear(*three)
                     for three in zip(self.operands, cell.weights, cell.biases)]
        mask = self.mask_23()
        wants = cell.words.weights != "none"
        found = self.node("Attention", [*projected, *([mask] if mask else [])],
                          outputs=4 if wants else 1, is_causal=int(cell.causal),
                          q_num_heads=cell.words.num_heads, kv_num_heads=cell.words.num_heads,
                          **({"qk_matmul_output_mode": 3} if wants else {}))
        return self.finish(found[0], found[3]) if wants else self.finish(found)

    def mask_23(self):
        """Boolean ones say what is visible."""
        cell = self.cell
        if cell.padding is not None:
            shape = (cell.words.batch, 1, cell.words.q_len, cell.words.kv_len)
            visible = np.broadcast_to(~cell.padding[:, None, None], shape)
            return self.read("mask", np.ascontiguousarray(visible))
        if cell.hidden is not None:
            return self.read("mask", ~cell.hidden)
        return None if cell.bias is None else self.read("mask", cell.bias)

    def plain(self):
        """MatMul, Softmax, MatMul."""
        cell = self.cell
        head_dim = cell.words.embed_dim // cell.words.num_heads
        split = self.constant(np.array([0, 0, cell.words.num_heads, head_dim], np.int64))
        orders = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        heads = []
        for x, weight, bias, order in zip(self.operands, cell.weights, cell.biases, orders):
            y = self.node("Reshape", [self.linear(x, weight, bias), split])
            heads.append(self.node("Transpose", [y], perm=order))
        scale = self.constant(np.float32(head_dim**-0.5))
        scores = self.node("MatMul", [self.node("Mul", [heads[0], scale]), heads[1]])
        if (added := cell.added_bias()) is not None:
            scores = self.node("Add", [scores, self.read("bias", added)])
        weights = self.node("Softmax", [scores], axis=-1)
        out = self.node("Transpose", [self.node("MatMul", [weights, heads[2]])],
                        perm=[0, 2, 1, 3])
        shape = self.constant(np.array([0, 0, cell.words.embed_dim], np.int64))
        joined = self.node("Reshape", [out, shape])
        return self.finish(joined, weights if cell.words.weights != "none" else None)

"""A graph of ONNX, node by node."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from polyhead import __version__

Sizes = tuple["str | int", ...]  # a name where any size is right


class Graph:
    """Nodes in the order in which they are added; a tensor is known by its name."""

    def __init__(self) -> None:
        self._nodes: list[NodeProto] = []
        self._tensors: dict[str, TensorProto] = {}
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []

    def input(self, name: str, sizes: Sizes, kind: int = TensorProto.FLOAT) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, kind, sizes))
        return name

    def output(self, name: str, source: str, sizes: Sizes) -> None:
        self._nodes.append(helper.make_node("Identity", [source], [name], name))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes))

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        return self.add_many(kind, inputs, (True,), **attributes)[0]

    def add_many(self, kind: str, inputs: tuple[str, ...], wanted: tuple[bool, ...],
                 **attributes: Any) -> list[str]:
        """The names of the outputs, "" for those that are not wanted."""
        name = f"{kind}_{len(self._nodes)}"
        names = [f"{name}_{i}" if i else name for i in range(len(wanted))]
        outputs = [each if wants else "" for each, wants in zip(names, wanted)]
        self._nodes.append(helper.make_node(kind, inputs, outputs, name, **attributes))
        return outputs

    def constant(self, name: str, value: Any) -> str:
        """An initializer, of int64 if it is a list; of one name there is one value."""
        if name not in self._tensors:
            array = np.array(value, np.int64 if isinstance(value, list) else None, order="C")
            self._tensors[name] = numpy_helper.from_array(array, name)
        return name

    def size(self, name: str, dim: int) -> str:
        """[1], of a dimension."""
        return self.add("Shape", name, start=dim, end=dim + 1)

    def indices(self, size: str) -> str:
        """0, 1, .. to before `size` [1]."""
        first, step = self.constant("first", np.int64(0)), self.constant("step", np.int64(1))
        return self.add("Range", first, self.add("Squeeze", size), step)

    def column(self, name: str) -> str:
        """[n, 1] of [n]"""
        return self.add("Unsqueeze", name, self.constant("column_axis", [1]))

    def model(self, name: str, opset: int) -> onnx.ModelProto:
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs,
                                  list(self._tensors.values()))
        return helper.make_model_gen_version(
            graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="polyhead",
            producer_version=__version__)

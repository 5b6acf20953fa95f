"""Backend: models and single nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper
from onnx.backend import base
from onnx.external_data_helper import uses_external_data

from polyhead._arguments import refuse_masked, type_name
from polyhead.onnx._attention import VERSIONS, Array, AttentionNode

_Compute = Callable[[Sequence["Array | None"]], "list[Array]"]


class Backend(base.Backend):
    """An onnx.backend.base.Backend for models and nodes of the operator Attention.

    float32 and float64 are computed in; float16 and bfloat16 by conversion to float32. Besides
    Attention a graph may have Constant and Identity. What does not fit is a ValueError; what the
    checker of onnx refuses, its own onnx.checker.ValidationError.
    """

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether prepare takes this model."""
        try:
            cls.prepare(model, device, **kwargs)
        except (ValueError, TypeError, onnx.checker.ValidationError):
            return False
        return True

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> PreparedModel:
        """The model, ready to run any number of times."""
        _check_call("prepare", model, ModelProto, device, kwargs)
        onnx.checker.check_model(model)
        return PreparedModel(model)

    # over-budget: the base class fixes the names.
    @classmethod
    def run_node(cls, node: NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None,
                 **kwargs: Any) -> tuple[Any, ...]:
        """The outputs that `node` names, from the inputs that it names, in this order; of opset
        opset_version=, by default the newest."""
        opset = kwargs.pop("opset_version", onnx.defs.onnx_opset_version())
        _check_call("run_node", node, NodeProto, device, kwargs)
        super().run_node(node, inputs, device, outputs_info, opset_version=opset)
        compute = _compute_of(node, opset)
        names = [name for name in node.input if name]
        arrays = iter(_in_order("run_node", inputs, names))
        results = compute([_plain("run_node", name, next(arrays)) if name else None
                           for name in node.input])
        return _results_of([name for name in node.output if name])(*results)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Of the CPU alone."""
        return isinstance(device, str) and device.partition(":")[0] == "CPU"


class _Step(NamedTuple):
    compute: _Compute
    inputs: Sequence[str]  # "" where none is given
    outputs: Sequence[str]


class PreparedModel(base.BackendRep):
    """What Backend.prepare returns."""

    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        if model.functions or graph.sparse_initializer:
            raise ValueError("Backend.prepare: model: has functions or sparse initializers; need none")
        opset = next((each.version for each in model.opset_import if each.domain in _DOMAINS), 0)
        self._steps = [_Step(_compute_of(node, opset), list(node.input),
                             [name for name in node.output if name]) for node in graph.node]
        self._constants = {tensor.name: _array_of(tensor) for tensor in graph.initializer}
        self._inputs = {info.name: _Declared(info) for info in graph.input}
        self._outputs = [info.name for info in graph.output]
        self._results = _results_of(self._outputs)

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The graph's outputs. inputs: arrays in the order of the graph's inputs,
        without those that have an initializer, or a dict by name, which may replace these."""
        if kwargs:
            raise ValueError(f"run: {next(iter(kwargs))}: got an option; need none")
        if isinstance(inputs, Mapping):
            given = inputs
        else:
            names = [name for name in self._inputs if name not in self._constants]
            given = dict(zip(names, _in_order("run", inputs, names)))
        values = dict(self._constants)
        for name, value in given.items():
            if name not in self._inputs:
                raise ValueError(f"run: {name}: is no input of the graph; need {list(self._inputs)}")
            values[name] = self._inputs[name].check(_plain("run", name, value))
        for name in self._inputs:
            if name not in values:
                raise ValueError(f"run: {name}: is missing; need it")
        for step in self._steps:
            results = step.compute([values[name] if name else None for name in step.inputs])
            values.update(zip(step.outputs, results))
        return self._results(*[values[name] for name in self._outputs])


_DOMAINS = ("", "ai.onnx")
_KNOWN = set(onnx.helper.get_all_tensor_dtypes()) - {TensorProto.STRING}


def _compute_of(node: NodeProto, opset: int) -> _Compute:
    """What a node computes; ValueError for nodes of other operators."""
    kind = node.op_type if node.domain in _DOMAINS else f"{node.domain}.{node.op_type}"
    if kind == "Identity":
        return lambda inputs: [np.array(inputs[0])]
    if kind == "Constant":
        constant = _constant_of(node)
        constant.setflags(write=False)
        return lambda inputs: [constant]
    if kind != "Attention":
        raise ValueError(f"Backend: node {node.name!r}: is {kind}; need Attention, Constant or "
                         "Identity")
    version = onnx.defs.get_schema("Attention", opset, "").since_version
    if version not in VERSIONS:
        raise ValueError(f"Backend: node {node.name!r}: is Attention of opset {version}; need one of "
                         f"{', '.join(map(str, VERSIONS))}")
    return AttentionNode(node, version)


_OF_CONSTANTS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64,
                 "value_ints": np.int64}


def _constant_of(node: NodeProto) -> Array:
    values = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    name = "".join(values)
    if name == "value":
        return _array_of(values[name])
    if name not in _OF_CONSTANTS:
        raise ValueError(f"Backend: node {node.name!r}: is a Constant of {', '.join(values) or 'nothing'}; "
                         f"need value, {' or '.join(_OF_CONSTANTS)}")
    return np.array(values[name], _OF_CONSTANTS[name])


def _array_of(tensor: TensorProto) -> Array:
    if uses_external_data(tensor):
        raise ValueError(f"Backend: {tensor.name}: its data is in another file; need a model that "
                         "onnx.load has loaded, with its data")
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"Backend: {tensor.name}: cannot be read ({error}); need a tensor whose data "
                         "fits its type and shape") from None


def _check_call(function: str, proto: Any, kind: type, device: Any, options: Any) -> None:
    if not isinstance(proto, kind):
        raise TypeError(f"Backend.{function}: got {type_name(proto)}; need an onnx.{kind.__name__}")
    if not Backend.supports_device(device):
        raise ValueError(f"Backend.{function}: device: got {device!r}; need 'CPU'")
    if options:
        raise ValueError(f"Backend.{function}: {next(iter(options))}: is no option of this backend; "
                         "need none")


def _results_of(names: Sequence[str]) -> Callable[..., tuple[Any, ...]]:
    """A tuple whose parts have names, too."""
    kind: Callable[..., tuple[Any, ...]] = base.namedtupledict("Outputs", list(names))
    return kind


def _in_order(function: str, inputs: Any, names: Sequence[str]) -> Sequence[Any]:
    """The inputs, one for each name."""
    if not isinstance(inputs, Sequence) or isinstance(inputs, (str, bytes)):
        raise TypeError(f"{function}: inputs: got {type_name(inputs)}; need a list of arrays")
    if len(inputs) != len(names):
        raise ValueError(f"{function}: inputs: got {len(inputs)}; need {len(names)}: "
                         f"{', '.join(map(str, names))}")
    return inputs


def _plain(function: str, name: str, value: Any) -> Array:
    """A numpy array, made of what has __dlpack__ if need be."""
    if type(value) is np.ndarray:
        return value
    refuse_masked(function, (name,), (value,))
    if isinstance(value, (np.ndarray, np.generic)):
        return np.asarray(value)
    try:
        return np.from_dlpack(value)
    except Exception as error:  # another library's, of any type
        raise TypeError(f"{function}: {name}: got {type_name(value)}; need a numpy array, or an object "
                        f"with __dlpack__ in the CPU's memory ({error})") from None


class _Declared:
    """What the graph says of an input."""

    def __init__(self, info: ValueInfoProto) -> None:
        tensor = info.type.tensor_type
        if tensor.elem_type not in _KNOWN:  # as of what is no tensor
            raise ValueError(f"Backend: input {info.name}: is no tensor of numbers; need one")
        self._name = info.name
        self._dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        self._sizes: list[int | None] | None = None  # None: any
        if tensor.HasField("shape"):
            self._sizes = [dim.dim_value if dim.HasField("dim_value") else None
                           for dim in tensor.shape.dim]

    def check(self, array: Array) -> Array:
        if array.dtype != self._dtype:
            raise ValueError(f"run: {self._name}: dtype is {array.dtype}; need {self._dtype}")
        sizes = self._sizes
        if sizes is not None and (len(sizes) != array.ndim or any(
                size is not None and size != got for size, got in zip(sizes, array.shape))):
            need = ", ".join("any" if size is None else str(size) for size in sizes)
            raise ValueError(f"run: {self._name}: shape is {list(array.shape)}; need [{need}]")
        return array

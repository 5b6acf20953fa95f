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
        results = compute([next(arrays) if name else None for name in node.input])
        return _named([name for name in node.output if name], results)

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
        self._inputs = {info.name: info for info in graph.input}
        self._outputs = [info.name for info in graph.output]

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The graph's outputs. inputs: arrays in the order of the graph's inputs,
        without those that have an initializer, or a dict by name, which may replace these."""
        if kwargs:
            raise ValueError(f"run: {next(iter(kwargs))}: got an option; need none")
        values: dict[str, Any] = dict(self._constants)
        if isinstance(inputs, Mapping):
            for name in inputs:
                if name not in self._inputs:
                    raise ValueError(f"run: {name}: is no input of the graph; need "
                                     f"{list(self._inputs)}")
            values.update(inputs)
            for name in self._inputs:
                if name not in values:
                    raise ValueError(f"run: {name}: is missing; need it")
        else:
            names = [name for name in self._inputs if name not in values]
            values.update(zip(names, _in_order("run", inputs, names)))
        for name, info in self._inputs.items():
            values[name] = _checked(_plain(f"run: {name}", values[name]), info)
        for step in self._steps:
            results = step.compute([values[name] if name else None for name in step.inputs])
            values.update(zip(step.outputs, results))
        return _named(self._outputs, [values[name] for name in self._outputs])


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


def _in_order(function: str, inputs: Any, names: Sequence[str]) -> list[Array]:
    """One array for each name."""
    if not isinstance(inputs, Sequence) or isinstance(inputs, (str, bytes)):
        raise TypeError(f"{function}: inputs: got {type_name(inputs)}; need a list of arrays")
    if len(inputs) != len(names):
        raise ValueError(f"{function}: inputs: got {len(inputs)}; need {len(names)}: "
                         f"{', '.join(map(str, names))}")
    return [_plain(f"{function}: {name}", array) for name, array in zip(names, inputs)]


def _plain(argument: str, value: Any) -> Array:
    """A numpy array, made of what has __dlpack__ if need be."""
    function, _, name = argument.partition(": ")
    refuse_masked(function, (name,), (value,))
    if isinstance(value, (np.ndarray, np.generic)):
        return np.asarray(value)
    try:
        return np.from_dlpack(value)
    except Exception as error:  # another library's, of any type
        raise TypeError(f"{argument}: got {type_name(value)}; need a numpy array, or an object with "
                        f"__dlpack__ in the CPU's memory ({error})") from None


def _checked(array: Array, info: ValueInfoProto) -> Array:
    """An input, once it is known to be what the graph declares."""
    declared = info.type.tensor_type
    if declared.elem_type not in _KNOWN:  # as of what is no tensor
        raise ValueError(f"run: {info.name}: is no tensor of numbers in the graph; need one")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(declared.elem_type)
    if array.dtype != dtype:
        raise ValueError(f"run: {info.name}: dtype is {array.dtype}; need {dtype}")
    if declared.HasField("shape"):
        sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in declared.shape.dim]
        if len(sizes) != array.ndim or any(
                size not in (None, got) for size, got in zip(sizes, array.shape)):
            need = ", ".join("any" if size is None else str(size) for size in sizes)
            raise ValueError(f"run: {info.name}: shape is {list(array.shape)}; need [{need}]")
    return array


def _named(names: Sequence[str], values: Sequence[Any]) -> tuple[Any, ...]:
    """By position and by name."""
    result: tuple[Any, ...] = base.namedtupledict("Outputs", list(names))(*values)
    return result

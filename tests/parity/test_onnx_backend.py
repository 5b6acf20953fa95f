"""polyhead.onnx.Backend: the cases that onnx generates for Attention, random configurations against
its reference, models, and what is refused."""

import copy
import inspect
import re
import subprocess
import sys
import warnings
from pathlib import Path
from unittest import mock

import ml_dtypes
import numpy as np
import onnx
import polyhead
import polyhead.onnx
import pytest
from onnx import TensorProto, helper
from onnx.backend.test.case.node import collect_testcases, function_testcase_helper
from onnx.backend.test.runner import Runner
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops import op_attention

from contract import product
from error_rule import expect_as_good

Backend = polyhead.onnx.Backend
ROOT = Path(__file__).resolve().parents[2]
with warnings.catch_warnings():  # of the cases of other operators
    warnings.simplefilter("ignore")
    CASES = {case.name: case for case in collect_testcases("Attention") if "_expanded" not in case.name}
NUM_CASES = 300


def as_array(value):
    return onnx.numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def opset_of(model):
    return next(each.version for each in model.opset_import if each.domain == "")


def test_number_of_cases():
    assert len(CASES) == 93
    assert {opset_of(case.model) for case in CASES.values()} == {23, 24, 25}


@pytest.mark.parametrize("name", CASES)
def test_case_of_onnx(name):
    """By prepare and by run_node, compared as onnx's own runner does."""
    case = CASES[name]
    node, = case.model.graph.node
    for inputs, outputs in case.data_sets:
        inputs, outputs = [list(map(as_array, values)) for values in (inputs, outputs)]
        found = Backend.prepare(case.model).run(inputs)
        Runner.assert_similar_outputs(outputs, found, case.rtol, case.atol)
        again = Backend.run_node(node, inputs, opset_version=opset_of(case.model))
        for one, other in zip(found, again, strict=True):
            np.testing.assert_array_equal(one, other)
    assert Backend.is_compatible(case.model)


class Drawn:
    """A node and its inputs, in float64."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        pick = lambda *choices: choices[rng.integers(len(choices))]
        self.version = pick(23, 24, 25)
        self.attributes = {"is_causal": pick(0, 1), "softcap": pick(0.0, 0.0, 0.5, 3.0)}
        kv_heads, group = pick(1, 2, 3), pick(1, 1, 2, 4)
        batch, heads = pick(1, 2, 3), kv_heads * group
        q_len, kv_len, past_len = pick(1, 2, 5, 17), pick(1, 3, 8, 33), pick(0, 0, 1, 4, 9)
        dim, v_dim = pick(1, 3, 8, 16), pick(1, 4, 8)
        if pick(True, False):
            self.attributes["scale"] = pick(0.0625, 0.5625)  # the reference takes its root in float32
        if self.version == 25 and pick(True, False):
            self.attributes["left_window_size"] = pick(-1, 0, 2, 5)
            self.attributes["right_window_size"] = pick(-1, 0, 1, 4)
        normal = lambda *shape: rng.standard_normal(shape)
        self.inputs = {"Q": normal(batch, heads, q_len, dim), "K": normal(batch, kv_heads, kv_len, dim),
                       "V": normal(batch, kv_heads, kv_len, v_dim)}
        if pick(True, False):
            self.attributes |= {"q_num_heads": heads, "kv_num_heads": kv_heads}
            for name, x in self.inputs.items():
                self.inputs[name] = x.swapaxes(1, 2).reshape(batch, x.shape[2], -1)
        self.outputs = ["Y"]
        if self.version > 23 and past_len == 0 and pick(True, False):
            self.inputs["nonpad_kv_seqlen"] = rng.integers(0, kv_len + 1, batch)
        elif past_len > 0:
            self.inputs |= {"past_key": normal(batch, kv_heads, past_len, dim),
                            "past_value": normal(batch, kv_heads, past_len, v_dim)}
        if "nonpad_kv_seqlen" not in self.inputs and pick(True, False):
            self.outputs += ["present_key", "present_value"]
        total = kv_len + past_len
        kind = pick("none", "bool", "float")
        if kind != "none":
            shape = [size if pick(True, True, False) else 1 for size in (batch, heads, q_len)]
            # Shorter masks are padded, from opset 24 on.
            shape.append(max(1, total - pick(0, 0, 0, 2)) if self.version > 23 else total)
            shape = shape[pick(0, 1, 2, 3):]
            visible = rng.random(shape) < 0.7
            mask = visible if kind == "bool" else np.where(visible, normal(*shape), -np.inf)
            self.inputs["attn_mask"] = mask
        if pick(True, False):
            self.outputs += [""] * (3 - len(self.outputs)) + ["qk_matmul_output"]
            self.attributes["qk_matmul_output_mode"] = pick(0, 1, 2, 3)

    def node(self, attributes=None):
        names = ["Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen"]
        names = [name if name in self.inputs else "" for name in names]
        while not names[-1]:
            names.pop()
        attributes = self.attributes if attributes is None else attributes
        return helper.make_node("Attention", names, self.outputs, **attributes)

    def of(self, dtype):
        """The inputs of the node, in its order."""
        return {name: self.inputs[name].astype(dtype) if self.inputs[name].dtype == np.float64
                else self.inputs[name] for name in self.node().input if name}

    def ours(self, dtype):
        return Backend.run_node(self.node(), list(self.of(dtype).values()), opset_version=self.version)

    def reference(self, dtype, step=0):
        """Of onnx, with the sums of products in the order that `step` says. Two slips of onnx 1.23.2
        are gone round: see test_where_the_reference_differs_from_the_specification."""
        inputs, attributes = self.of(dtype), dict(self.attributes)
        if "attn_mask" in inputs:
            mask = np.atleast_2d(inputs["attn_mask"])
            q_len = inputs["Q"].shape[-2]
            inputs["attn_mask"] = np.broadcast_to(mask, (*mask.shape[:-2], q_len, mask.shape[-1]))
        raw = {}
        with mock.patch.object(op_attention, "numpy_matmul", lambda a, b: product(a, b, step)):
            if attributes.get("qk_matmul_output_mode") == 0 and attributes["softcap"]:
                raw = evaluated([self.node(attributes | {"softcap": 0.0})], self.version, inputs)
            found = evaluated([self.node(attributes)], self.version, inputs)
        if raw:
            found["qk_matmul_output"] = raw["qk_matmul_output"]
        return found


def evaluated(nodes, version, inputs, names=None):
    """By onnx's ReferenceEvaluator: {name: output}, by default of the last node's"""
    info = lambda name: helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None)
    names = names or [name for name in nodes[-1].output if name]
    graph = helper.make_graph(nodes, "g", list(map(info, inputs)), list(map(info, names)))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
    return dict(zip(names, ReferenceEvaluator(model).run(None, inputs), strict=True))


@pytest.mark.parametrize("seed", range(NUM_CASES))
def test_random_configuration(seed):
    case = Drawn(seed)
    truth = case.reference(np.float64)
    naive = [case.reference(np.float32, step) for step in (1, -1, 0)]
    found = case.ours(np.float32)
    for name, want in truth.items():
        got = found[name]
        assert got.dtype == np.float32 and got.shape == want.shape, name
        hidden = np.isneginf(want)
        np.testing.assert_array_equal(np.isneginf(got), hidden)
        others = [np.where(hidden, 0, other[name]) for other in naive]
        expect_as_good(f"onnx: {name}", np.where(hidden, 0, got), np.where(hidden, 0, want), others)
    in_double = case.ours(np.float64)
    for name, want in truth.items():
        assert in_double[name].dtype == np.float64
        np.testing.assert_allclose(in_double[name], want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("seed", range(40))
def test_narrow_types_are_those_of_float32_rounded(dtype, seed):
    case = Drawn(seed)
    found = case.ours(dtype)
    for name in case.inputs:  # what was rounded once
        if case.inputs[name].dtype == np.float64:
            case.inputs[name] = case.inputs[name].astype(dtype).astype(np.float64)
    for got, want in zip(found, case.ours(np.float32), strict=True):
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, want.astype(dtype))


@pytest.mark.parametrize("changed", [
    {"softcap": 0.5}, {"is_causal": 1}, {"is_causal": 1, "rank": 1}, {"is_causal": 1, "softcap": 0.5}])
def test_where_the_reference_differs_from_the_specification(changed):
    """onnx 1.23.2's reference applies softcap to the raw scores of mode 0, and takes the number of
    queries of a causal call from its mask. The function that the operator is defined by does not, and
    we do as it does."""
    attributes = {name: value for name, value in changed.items() if name != "rank"}
    inputs = {"Q": rand(2, 4, 3, 16), "K": rand(2, 2, 5, 16), "V": rand(2, 2, 5, 8),
              "attn_mask": np.array([[1, 0, 1, 1, 1]], bool)}
    if "rank" in changed:
        inputs["attn_mask"] = inputs["attn_mask"][0]
    node = helper.make_node("Attention", list(inputs), ["Y", "", "", "scores"], **attributes)
    types = [info(name, x.shape, helper.np_dtype_to_tensor_dtype(x.dtype)).type
             for name, x in inputs.items()]
    opsets = [helper.make_opsetid("", 25)]
    (nodes, _), = function_testcase_helper(copy.deepcopy(node), types, "f", opsets)[0]
    want = evaluated(nodes, 25, inputs, ["Y", "scores"])
    found = Backend.run_node(node, list(inputs.values()), opset_version=25)
    for name in want:
        np.testing.assert_allclose(found[name], want[name], rtol=1e-5, atol=1e-6)
    try:
        slipped = evaluated([node], 25, inputs)
    except ValueError:  # it wants two dimensions
        assert "rank" in changed
        return
    assert any(slipped[name].shape != want[name].shape
               or np.abs(slipped[name] - want[name]).max() > 1e-2 for name in want)


def test_every_option_is_drawn():
    cases = [Drawn(seed) for seed in range(NUM_CASES)]
    for name, values in {"is_causal": (0, 1), "qk_matmul_output_mode": (0, 1, 2, 3),
                         "left_window_size": (-1, 0, 2, 5), "right_window_size": (-1, 0, 1, 4)}.items():
        for value in values:
            assert sum(case.attributes.get(name) == value for case in cases) >= 5, (name, value)
    for name in ("attn_mask", "past_key", "nonpad_kv_seqlen"):
        assert sum(name in case.inputs for case in cases) >= 20, name


def rand(*shape, dtype=np.float32):
    return np.random.default_rng(len(shape)).random(shape).astype(dtype)


X = rand(2, 4, 3, 8)


def run(inputs, outputs=("Y",), version=25, **attributes):
    """One node on a dict of inputs."""
    names = ["Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen"]
    present = [name if name in inputs else "" for name in names]
    while present and not present[-1]:
        present.pop()
    node = helper.make_node("Attention", present, outputs, **attributes)
    return Backend.run_node(node, [inputs[name] for name in present if name], opset_version=version)


QKV = {"Q": X, "K": X, "V": X}
LENGTHS = np.array([3, 2])


def test_what_the_operator_does_is_what_the_op_does():
    """The same bits, whatever the wrapping."""
    sdpa = polyhead.scaled_dot_product_attention
    past = {"past_key": rand(2, 4, 5, 8), "past_value": rand(2, 4, 5, 8)}
    keys, values = (np.concatenate((part, X), 2) for part in past.values())
    want = sdpa(X, keys, values, is_causal=True, query_offset=5, softcap=2.0)
    np.testing.assert_array_equal(run(QKV | past, is_causal=1, softcap=2.0)[0], want)
    want = sdpa(X, X, X, is_causal=True, key_lengths=LENGTHS, causal_align="bottom_right")
    found = run(QKV | {"nonpad_kv_seqlen": LENGTHS}, is_causal=1)[0]
    np.testing.assert_array_equal(found, want)
    flat = {name: x.swapaxes(1, 2).reshape(2, 3, 32) for name, x in QKV.items()}
    found = run(flat, q_num_heads=4, kv_num_heads=4)[0]
    np.testing.assert_array_equal(found.reshape(2, 3, 4, 8).swapaxes(1, 2), sdpa(X, X, X))


def test_a_hidden_key_reaches_nothing():
    poisoned = X.copy()
    poisoned[:, :, 2] = np.nan
    mask = np.array([True, True, False])
    found = run({"Q": X, "K": poisoned, "V": poisoned, "attn_mask": mask})[0]
    want = run({"Q": X, "K": X, "V": X, "attn_mask": mask})[0]
    np.testing.assert_array_equal(found, want)
    empty = run(QKV | {"attn_mask": np.zeros((1, 3), bool)}, ("Y", "", "", "p"), qk_matmul_output_mode=3)
    assert not empty["Y"].any() and not empty["p"].any()


@pytest.mark.parametrize("lengths", [(0, 3), (2, 0), (0, 0)])
def test_empty_inputs(lengths):
    q_len, kv_len = lengths
    query, key = X[:, :, :q_len], X[:, :, :kv_len]
    for mode in range(4):
        found = run({"Q": query, "K": key, "V": key}, ("Y", "k", "v", "s"), qk_matmul_output_mode=mode)
        assert found["Y"].shape == query.shape and not found["Y"][:, :, :q_len and not kv_len].any()
        assert found["k"].shape == key.shape and found["s"].shape == (2, 4, q_len, kv_len)
    nothing = {name: x[:0].swapaxes(1, 2).reshape(0, 3, 32) for name, x in QKV.items()}
    assert run(nothing, q_num_heads=4, kv_num_heads=4)[0].shape == (0, 3, 32)


def test_outputs_are_not_the_inputs():
    found = run(QKV, ("Y", "k", "v"))
    assert not any(np.shares_memory(X, output) for output in found)


def test_a_mask_of_one_column():
    """Opset 23 broadcasts it, later ones pad it."""
    mask = np.ones((3, 1), bool)
    np.testing.assert_array_equal(run(QKV | {"attn_mask": mask}, version=23)[0], run(QKV)[0])
    np.testing.assert_array_equal(run(QKV | {"attn_mask": mask}, version=24)[0],
                                  np.broadcast_to(X[:, :, :1], X.shape))


def test_softmax_precision():
    """More than asked for is right; double is computed in double."""
    in_double = run({name: x.astype(np.float64) for name, x in QKV.items()})[0]
    for precision, want in ((None, run(QKV)[0]), (TensorProto.FLOAT16, run(QKV)[0]),
                            (TensorProto.DOUBLE, in_double.astype(np.float32))):
        attributes = {} if precision is None else {"softmax_precision": precision}
        np.testing.assert_array_equal(run(QKV, **attributes)[0], want)


@pytest.mark.parametrize("value_type, mask_type", [
    (np.float16, np.float32), (ml_dtypes.bfloat16, np.float16), (np.float64, np.float32),
    (np.float32, np.float64)])
def test_types_of_values_and_masks_may_differ(value_type, mask_type):
    mask = rand(3, 3).astype(mask_type)
    value, past = X.astype(value_type), {"past_key": X[:, :, :0], "past_value": X[:, :, :0]}
    past["past_value"] = past["past_value"].astype(value_type)
    out, keys, values = run({"Q": X, "K": X, "V": value, "attn_mask": mask} | past, ("Y", "k", "v"))
    assert (out.dtype, keys.dtype, values.dtype) == (np.float32, np.float32, value_type)
    wide = np.float64 if value_type == np.float64 else np.float32
    want = polyhead.scaled_dot_product_attention(
        X.astype(wide), X.astype(wide), value.astype(wide),
        mask if mask_type == np.float64 else mask.astype(np.float32))
    np.testing.assert_array_equal(out, want.astype(np.float32))


def info(name, shape=("B", "H", "L", "D"), dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def model_of(nodes, inputs, outputs, constants=(), opset=25):
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in dict(constants).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def two_layers():
    nodes = [
        helper.make_node("Constant", [], ["mask"], value=onnx.numpy_helper.from_array(
            np.array([True, True, False]))),
        helper.make_node("Attention", ["x", "x", "x", "mask"], ["h"]),
        helper.make_node("Identity", ["h"], ["copy"]),
        helper.make_node("Attention", ["copy", "cache", "cache"], ["y", "", "", "p"],
                         qk_matmul_output_mode=3)]
    inputs = [info("x", ("B", 4, "L", 8)), info("cache")]
    return model_of(nodes, inputs, [info("y"), info("p")], {"cache": rand(2, 4, 3, 8)})


def test_model_of_several_nodes():
    model = two_layers()
    found = Backend.prepare(model).run([X])
    want = ReferenceEvaluator(model).run(None, {"x": X})
    for got, other in zip(found, want, strict=True):
        np.testing.assert_allclose(got, other, rtol=1e-5)
    np.testing.assert_array_equal(found.y, Backend.run_model(model, {"x": X})["y"])
    other = Backend.prepare(model).run({"x": X, "cache": X + 1})
    assert (other.y != found.y).any()


BAD_NODES = [
    (dict(inputs={"Q": X[0], "K": X, "V": X}, q_num_heads=1, kv_num_heads=1), "K: shape is .*need 3 dim"),
    (dict(inputs={"Q": X[0, 0], "K": X, "V": X}), "Q: shape is .*need 3 or 4 dimensions"),
    (dict(inputs={"Q": X[0], "K": X[0], "V": X[0]}), "kv_num_heads: one is missing"),
    (dict(inputs={name: x[0] for name, x in QKV.items()}, q_num_heads=3, kv_num_heads=3), "3 heads divide"),
    (dict(q_num_heads=4, kv_num_heads=4), "need neither, with 4-D"),
    (dict(version=24, q_num_heads=2, kv_num_heads=4), "need 2 heads, as the attribute says"),
    (dict(inputs=QKV | {"K": X[:1]}), r"K: shape is \[1, 4, 3, 8\]; need batch 2"),
    (dict(inputs=QKV | {"K": X[..., :4]}), "need batch 2 and head size 8"),
    (dict(inputs=QKV | {"V": X[:, :, :2]}), r"V: shape is .*need \[2, 4, 3, ..\], as K"),
    (dict(inputs={"Q": X, "K": X[:, :3], "V": X[:, :3]}), "K: 3 heads; need a divisor of the 4"),
    (dict(inputs=QKV | {"K": X.astype(np.float64)}), "K: dtype is float64; need float32, as Q has"),
    (dict(inputs=QKV | {"Q": X.astype(np.int32)}), "Q: dtype is int32; need float32"),
    (dict(inputs=QKV | {"Q": X.astype(">f4")}), "Q: dtype is >f4; need float32"),
    (dict(inputs=QKV | {"attn_mask": np.ones((3, 3), np.int64)}), "attn_mask: dtype is int64; need bool"),
    (dict(inputs=QKV | {"attn_mask": np.ones((3, 4), bool)}), r"broadcasts onto \[2, 4, 3, 3\]"),
    (dict(inputs=QKV | {"attn_mask": np.ones((3, 1, 1, 3), bool)}), r"broadcasts onto \[2, 4, 3, 3\]"),
    (dict(inputs=QKV | {"attn_mask": np.ones((1,) * 5, bool)}), "need 1 to 4 dimensions"),
    (dict(inputs=QKV | {"attn_mask": np.array(True)}), "need 1 to 4 dimensions"),
    (dict(inputs=QKV | {"attn_mask": np.ones((3, 2), bool)}, version=23), "broadcasts onto"),
    (dict(inputs=QKV | {"past_key": X}), "past_key, past_value: got one of them"),
    (dict(inputs=QKV | {"past_key": X, "past_value": X[:1]}), r"past_value: shape is \[1, 4, 3, 8\]"),
    (dict(inputs=QKV | {"past_key": X, "past_value": X[:, :, :2]}), "need length 3, as past_key"),
    (dict(inputs=QKV | {"past_key": X, "past_value": X, "nonpad_kv_seqlen": LENGTHS}), "one or the other"),
    (dict(inputs=QKV | {"nonpad_kv_seqlen": LENGTHS}, outputs=("Y", "k", "v")), "one or the other"),
    (dict(inputs=QKV | {"nonpad_kv_seqlen": LENGTHS[:1]}), r"shape is \[1\]; need \[2\]"),
    (dict(inputs=QKV | {"nonpad_kv_seqlen": LENGTHS.astype(np.int32)}), "dtype is int32; need int64"),
    (dict(inputs=QKV | {"nonpad_kv_seqlen": np.array([3, 4])}),
     "Attention: nonpad_kv_seqlen: got 4; need 0 to 3, the keys there are"),
    (dict(inputs=QKV | {"nonpad_kv_seqlen": np.array([3, -1])}),
     "Attention: nonpad_kv_seqlen: got -1; need 0 to 3"),
    (dict(outputs=("Y", "k")), "one of them is wanted"),
    (dict(is_causal=2), "is_causal: got 2; need one of 0, 1"),
    (dict(qk_matmul_output_mode=4), "qk_matmul_output_mode: got 4; need one of 0, 1, 2, 3"),
    (dict(softmax_precision=7), "softmax_precision: got 7; need one of 1, 10, 11, 16"),
    (dict(left_window_size=-2), "left_window_size: got -2"),
    (dict(q_num_heads=0), "q_num_heads: got 0; need 1 or more"),
    (dict(scale=-1.0), "scale: got -1.0; need a number of 0 or more"),
    (dict(scale=float("nan")), "scale: got nan"),
    (dict(softcap=float("inf")), "softcap: got inf")]


@pytest.mark.parametrize("call, words", BAD_NODES, ids=[words for _, words in BAD_NODES])
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        run(**{"inputs": QKV} | call)
    assert "\n" not in str(caught.value)


def test_what_the_checker_refuses():
    for version, attributes in ((25, {"what": 1}), (24, {"left_window_size": 1}), (25, {"scale": 1}),
                                (22, {})):
        with pytest.raises(onnx.checker.ValidationError):
            run(QKV, version=version, **attributes)
    for missing in "QKV":
        with pytest.raises(onnx.checker.ValidationError, match="input"):
            run({name: x for name, x in QKV.items() if name != missing})
    with pytest.raises(onnx.checker.ValidationError, match="input"):
        run(QKV | {"nonpad_kv_seqlen": LENGTHS}, version=23)


def bad_models():
    x, y = info("x"), info("y")
    add = helper.make_node("Add", ["x", "x"], ["y"], name="sum")
    node = helper.make_node("Attention", ["x", "x", "x"], ["y"])
    yield model_of([add], [x], [y]), "node 'sum': is Add; need Attention, Constant or Identity"
    foreign = helper.make_node("Attention", ["x", "x", "x"], ["y"], domain="com.microsoft")
    model = model_of([foreign], [x], [y])
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    yield model, "is com.microsoft.Attention"
    word = helper.make_node("Constant", [], ["z"], value_string="z")
    yield model_of([word, node], [x], [y]), "is a Constant of value_string"
    yield model_of([helper.make_node("Constant", [], ["z"]), node], [x], [y]), "is a Constant of nothing"
    odd = model_of([node], [x], [y], {"x": X})
    odd.graph.initializer[0].dims[0] = 1
    yield odd, "x: cannot be read (cannot reshape array of size 192 into shape (1,4,3,8))"
    unknown = model_of([node], [x], [y], {"x": X})
    unknown.graph.initializer[0].data_type = 99
    yield unknown, "x: cannot be read (99)"
    local = model_of([node], [x], [y])
    local.functions.append(helper.make_function(
        "own", "f", ["a"], ["b"], [helper.make_node("Identity", ["a"], ["b"])],
        [helper.make_opsetid("", 25)]))
    local.opset_import.append(helper.make_opsetid("own", 1))
    yield local, "has functions or sparse initializers"


BAD_MODELS = list(bad_models())


@pytest.mark.parametrize("model, words", BAD_MODELS, ids=[words for _, words in BAD_MODELS])
def test_models_that_are_refused(model, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        Backend.prepare(model)
    assert not Backend.is_compatible(model)


def test_a_model_without_its_data_is_refused(tmp_path, monkeypatch):
    """Whatever file of the working folder it names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(X.tobytes())
    model = model_of([helper.make_node("Attention", ["x", "x", "x"], ["y"])], [info("x")], [info("y")],
                     {"x": X})
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    with pytest.raises(ValueError, match="x: its data is in another file; need a model that onnx.load"):
        Backend.prepare(model)


def test_calls_that_are_refused():
    rep = Backend.prepare(two_layers())
    wrong = X.astype(np.float64)
    for inputs, error, words in (
            ([], ValueError, "inputs: got 0; need 1: x"), ([X, X], ValueError, "got 2; need 1: x"),
            (X, TypeError, "inputs: got numpy.ndarray; need a list"), ({}, ValueError, "x: is missing"),
            ({"z": X}, ValueError, "z: is no input"), ([wrong], ValueError, "x: dtype is float64; need float32"),
            ([X[0]], ValueError, r"x: shape is \[4, 3, 8\]; need \[any, 4, any, 8\]"),
            ([X[:, :1]], ValueError, r"need \[any, 4, any, 8\]"), (["x"], TypeError, "x: got str; need a numpy"),
            ([np.ma.masked_array(X)], TypeError, "x: got a numpy.ma.MaskedArray")):
        with pytest.raises(error, match=words):
            rep.run(inputs)
    odd = two_layers()
    odd.graph.input[0].type.tensor_type.elem_type = 99
    with pytest.raises(ValueError, match="input x: is no tensor of numbers"):
        Backend.prepare(odd)
    with pytest.raises(TypeError, match=r"prepare: got str; need an onnx.ModelProto"):
        Backend.prepare("model.onnx")
    with pytest.raises(TypeError, match=r"run_node: got onnx.* need an onnx.NodeProto"):
        Backend.run_node(two_layers(), [X])
    with pytest.raises(ValueError, match="device: got 'CUDA'; need 'CPU'"):
        Backend.prepare(two_layers(), "CUDA")
    with pytest.raises(ValueError, match="fast: is no option"):
        Backend.prepare(two_layers(), fast=True)
    assert not Backend.is_compatible(two_layers(), "CUDA")
    assert [Backend.supports_device(device) for device in ("CPU", "CPU:0", "CUDA", "CUDA:1", "")] \
        == [True, True, False, False, False]


def test_without_onnx():
    """The module says what it needs; polyhead itself does not look for it."""
    hide = "import sys; sys.modules['onnx'] = None; import polyhead; import polyhead.onnx"
    done = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and 'need it: pip install "polyhead[onnx]"' in done.stderr
    show = "import sys, polyhead; print('onnx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_types(tmp_path):
    """Beside onnx's own types."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", "--strict", "--allow-any-generics",
         "--no-error-summary", "--cache-dir", tmp_path, "-p", "polyhead.onnx"],
        cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", polyhead.onnx.__all__)
def test_docstrings(name):
    thing = getattr(polyhead.onnx, name)
    assert inspect.getdoc(thing)
    for method in getattr(thing, "__dict__", {}):
        if not method.startswith("_"):
            assert inspect.getdoc(getattr(thing, method)), f"{name}.{method}"


def test_page(tmp_path, monkeypatch):
    """The blocks of the page are one program."""
    text = (ROOT / "docs/onnx.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert blocks
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(blocks), "docs/onnx.md", "exec"), {})  # pylint: disable=exec-used

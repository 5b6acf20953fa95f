"""polyhead.onnx.export: what ONNX Runtime computes of the model is what the module does."""

import os

import numpy as np
import onnx
import onnxruntime
import polyhead
import polyhead.onnx
import polyhead.torch
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from error_rule import expect_as_good

NUM_CASES = 200
onnxruntime.set_default_logger_severity(3)


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def module_of(seed=0, dtype="float32", **options):
    """With parameters that are not those of the start, of which biases are zeros."""
    module = polyhead.MultiheadAttention(**options, dtype=dtype, seed=seed)
    rng = np.random.default_rng(seed)
    module.load_state_dict({
        name: (value + rng.standard_normal(value.shape) / 5).astype(np.float32)
        for name, value in module.state_dict().items()})
    return module


class Drawn:
    """Options of a module, of export, and inputs in float64."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        pick = lambda *choices: choices[rng.integers(len(choices))]
        chance = lambda p: rng.random() < p
        heads, head_dim = pick(1, 2, 3, 4), pick(2, 4, 8, 16)
        self.options = {"embed_dim": heads * head_dim, "num_heads": heads, "bias": chance(0.7),
                        "batch_first": chance(0.6)}
        if chance(0.4):
            self.options |= {"kdim": pick(1, 7, 24), "vdim": pick(3, 12, 33)}
        if chance(0.4):
            self.options |= {"head_dim": pick(2, 6, 8), "embed_dim": pick(10, 24)}
            self.options["num_kv_heads"] = pick(1, heads)
        if chance(0.3):
            self.options |= {"qk_norm": True, "qk_norm_eps": pick(1e-6, 1e-2)}
        if chance(0.5):
            scaling = pick({}, {"scaling": "linear", "factor": 4.0}, {"scaling": "ntk", "factor": 4.0},
                           {"scaling": "llama3", "factor": 8.0, "original_length": 64})
            rope = {"pairs": pick("halves", "interleaved"), "base": pick(100.0, 10000.0)} | scaling
            self.options["rope"] = rope if chance(0.5) else rope | {"rotary_dim": 2}
        self.options |= {"add_bias_kv": chance(0.2), "add_zero_attn": chance(0.2)}
        batch, q_len, kv_len = pick(1, 2, 3), pick(1, 2, 5, 17), pick(1, 3, 8, 33)
        self.export = {"is_causal": chance(0.4), "weights": pick(None, None, "average", "per_head"),
                       "attn_mask": pick(None, None, "bool", "float"),
                       "key_padding_mask": pick(None, None, "bool", "float")}
        own = polyhead.MultiheadAttention(**self.options)
        self.inputs = {"query": rng.standard_normal((batch, q_len, own.embed_dim)),
                       "key": rng.standard_normal((batch, kv_len, own.kdim)),
                       "value": rng.standard_normal((batch, kv_len, own.vdim))}
        if not own.batch_first:
            self.inputs = {name: x.swapaxes(0, 1).copy() for name, x in self.inputs.items()}
        for name, shape in (("attn_mask", (q_len, kv_len)), ("key_padding_mask", (batch, kv_len))):
            hidden = rng.random(shape) < 0.3
            if self.export[name] == "bool":
                self.inputs[name] = hidden
            elif self.export[name] == "float":
                self.inputs[name] = np.where(hidden, -np.inf, rng.standard_normal(shape))

    def inputs_in(self, dtype):
        return {name: x if x.dtype == bool else x.astype(dtype) for name, x in self.inputs.items()}

    def answer(self, module):
        """Of the module itself: [out, weights if they are asked for]"""
        weights = self.export["weights"]
        out, found = module(**self.inputs_in(module.dtype), need_weights=weights is not None,
                            average_attn_weights=weights == "average", is_causal=self.export["is_causal"])
        return [out] if found is None else [out, found]


@pytest.mark.parametrize("seed", range(NUM_CASES))
def test_random_module(tmp_path, seed):
    case, path = Drawn(seed), tmp_path / "attention.onnx"
    module = module_of(seed, **case.options)
    double = module_of(seed, "float64", **case.options)
    # The float32 numbers, and what they are without rounding.
    case.inputs = {name: x if x.dtype == bool else x.astype(np.float32).astype(np.float64)
                   for name, x in case.inputs.items()}
    polyhead.onnx.export(module, path, **case.export)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node].count("Attention") == 1
    found = session(path).run(None, case.inputs_in(np.float32))
    naive = ReferenceEvaluator(model).run(None, case.inputs_in(np.float32))
    for i, (name, truth, ours) in enumerate(
            zip(("out", "weights"), case.answer(double), case.answer(module))):
        assert found[i].dtype == np.float32
        expect_as_good(f"exported: {name}", found[i], truth, [ours, naive[i]])
    assert len(found) == len(case.answer(module))


def test_every_option_is_drawn():
    cases = [Drawn(seed) for seed in range(NUM_CASES)]
    for name in ("kdim", "num_kv_heads", "qk_norm", "rope", "add_bias_kv", "add_zero_attn"):
        assert sum(bool(case.options.get(name)) for case in cases) >= 20, name
    for name, values in {"is_causal": (True, False), "weights": (None, "average", "per_head"),
                         "attn_mask": (None, "bool", "float"),
                         "key_padding_mask": (None, "bool", "float")}.items():
        for value in values:
            assert sum(case.export[name] == value for case in cases) >= 20, (name, value)
    ropes = [case.options["rope"] for case in cases if "rope" in case.options]
    for scaling in (None, "linear", "ntk", "llama3"):
        assert sum(rope.get("scaling") == scaling for rope in ropes) >= 5, scaling
    masks = ("attn_mask", "key_padding_mask")
    both = [case for case in cases if None not in (case.export[name] for name in masks)]
    assert len(both) >= 10
    assert sum(case.export["is_causal"] and case.options["add_zero_attn"] for case in cases) >= 5


def test_one_model_for_all_sizes(tmp_path):
    module, path = module_of(embed_dim=16, num_heads=2, batch_first=True), tmp_path / "attention.onnx"
    polyhead.onnx.export(module, path, key_padding_mask="bool")
    runs = session(path)
    rng = np.random.default_rng(0)
    for batch, q_len, kv_len in ((1, 1, 1), (3, 5, 2), (2, 1, 40), (2, 40, 40)):
        x, y = (rng.standard_normal((batch, n, 16)).astype(np.float32) for n in (q_len, kv_len))
        hidden = np.zeros((batch, kv_len), bool)
        hidden[0] = True  # nothing to be seen there
        out, = runs.run(None, {"query": x, "key": y, "value": y, "key_padding_mask": hidden})
        ours, _ = module(x, y, y, key_padding_mask=hidden, need_weights=False)
        np.testing.assert_allclose(out, ours, rtol=1e-4, atol=1e-5)
        bias = module.state_dict()["out_proj.bias"]
        np.testing.assert_array_equal(out[0], np.broadcast_to(bias, out[0].shape))


@pytest.mark.parametrize("weights", ["average", "per_head"])
@pytest.mark.parametrize("extra", [False, True])
def test_declared_sizes_of_the_weights(tmp_path, capfd, weights, extra):
    file = tmp_path / "weights.onnx"
    module = polyhead.MultiheadAttention(16, 4, batch_first=True, add_bias_kv=extra, num_kv_heads=2)
    polyhead.onnx.export(module, file, weights=weights)
    model = session(file)
    shape = ["batch", 4, "q_len", "kv_len + 1" if extra else "kv_len"]
    assert model.get_outputs()[1].shape == shape[:1] + shape[1 if weights == "per_head" else 2:]
    x = np.ones((2, 5, 16), np.float32)
    for q_len in (1, 5):
        model.run(None, {"query": x[:, :q_len], "key": x, "value": x})
    assert "Expected shape" not in capfd.readouterr().err


def test_far_positions(tmp_path):
    """Where angles in float32 would have lost four digits."""
    options = {"embed_dim": 8, "num_heads": 1, "batch_first": True, "rope": {"pairs": "halves"}}
    module, double = module_of(**options), module_of(dtype="float64", **options)
    polyhead.onnx.export(module, tmp_path / "rope.onnx", is_causal=True)
    x = np.random.default_rng(0).standard_normal((1, 4000, 8)).astype(np.float32)
    out, = session(tmp_path / "rope.onnx").run(None, dict.fromkeys(("query", "key", "value"), x))
    ours, _ = module(x, x, x, is_causal=True, need_weights=False)
    x = x.astype(np.float64)
    truth, _ = double(x, x, x, is_causal=True, need_weights=False)
    expect_as_good("exported: far positions", out[:, -9:], truth[:, -9:], [ours[:, -9:]])


@pytest.mark.parametrize("kind", [torch.nn.MultiheadAttention, polyhead.torch.MultiheadAttention])
@pytest.mark.parametrize("options", [{}, {"batch_first": True, "bias": False}, {"kdim": 5, "vdim": 6},
                                     {"add_bias_kv": True, "add_zero_attn": True}])
def test_modules_of_torch(tmp_path, kind, options):
    torch.manual_seed(0)
    module = kind(16, 2, **options).eval()
    polyhead.onnx.export(module, tmp_path / "torch.onnx", attn_mask="bool", weights="average")
    inputs = {name: torch.randn(4, 4, width) for name, width in
              (("query", 16), ("key", module.kdim), ("value", module.vdim))}
    inputs["attn_mask"] = torch.ones(4, 4, dtype=torch.bool).triu(1)
    found = session(tmp_path / "torch.onnx").run(None, {name: x.numpy() for name, x in inputs.items()})
    for got, want in zip(found, module(**inputs), strict=True):
        torch.testing.assert_close(torch.from_numpy(got), want)


def test_what_torchs_class_has_not(tmp_path):
    torch.manual_seed(0)
    module = polyhead.torch.MultiheadAttention(
        16, 4, batch_first=True, num_kv_heads=2, qk_norm=True, rope={"pairs": "halves"})
    polyhead.onnx.export(module, tmp_path / "grouped.onnx")
    x = torch.randn(2, 5, 16)
    inputs = dict.fromkeys(("query", "key", "value"), x.numpy())
    found = session(tmp_path / "grouped.onnx").run(None, inputs)[0]
    torch.testing.assert_close(torch.from_numpy(found), module(x, x, x)[0].detach())


class Grown(torch.nn.MultiheadAttention):
    """With a forward of its own, for all one knows."""


def test_what_is_refused(tmp_path):
    file = tmp_path / "refused.onnx"
    mha = polyhead.MultiheadAttention
    plain = mha(8, 2)
    low_rank = polyhead.torch.MultiheadAttention(8, 2)
    low_rank.out_proj = torch.nn.Sequential(torch.nn.Linear(8, 2), torch.nn.Linear(2, 8))
    for module, options, error, words in (
            (3, {}, TypeError, "export: module: got int; need a MultiheadAttention of"),
            (polyhead.FromScratchMultiHeadAttention(8, 2), {}, TypeError, "got polyhead.*FromScratch"),
            (Grown(8, 2), {}, TypeError, "got test_onnx_export.Grown"),
            (torch.nn.MultiheadAttention(8, 2).half(), {}, ValueError, "dtype is float16; need float32"),
            (low_rank, {}, ValueError, r"unexpected \['out_proj.0.weight'"),
            (mha(8, 2, dtype="float64"), {}, ValueError, "dtype is float64; need float32"),
            (plain, {"attn_mask": "int"}, ValueError,
             "attn_mask: got 'int'; need None, 'bool' or 'float'"),
            (plain, {"key_padding_mask": np.ones((1, 3), bool)}, TypeError,
             "key_padding_mask: got numpy.ndarray; need None, 'bool' or 'float'"),
            (plain, {"weights": "all"}, ValueError,
             "weights: got 'all'; need None, 'average' or 'per_head'"),
            (plain, {"is_causal": 1}, TypeError, "is_causal: got int; need True or False")):
        with pytest.raises(error, match=words):
            polyhead.onnx.export(module, file, **options)
    with pytest.raises(TypeError, match="path: got int; need a path"):
        polyhead.onnx.export(plain, 3)
    assert not file.exists()


def test_the_file_is_whole_or_not_there(tmp_path, monkeypatch):
    module = polyhead.MultiheadAttention(8, 2)
    missing = tmp_path / "no folder" / "attention.onnx"
    with pytest.raises(FileNotFoundError) as refusal:
        polyhead.onnx.export(module, missing)
    assert str(refusal.value) == f"export: {missing}: cannot write: No such file or directory"
    with pytest.raises(FileNotFoundError, match="export: : cannot write: the path is empty"):
        polyhead.onnx.export(module, "")
    with pytest.raises(ValueError, match="need a path without null characters"):
        polyhead.onnx.export(module, "a\0b")

    def no_space(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(OSError, match="no space left"):
        polyhead.onnx.export(module, tmp_path / "attention.onnx")
    assert not list(tmp_path.iterdir())

"""The two module classes: parameters, files, options, errors. Parity with torch: tests/parity."""

import copy
import pickle
import sys
import threading
import time

import contract
import numpy as np
import polyhead
import pytest
from error_rule import expect_as_good
from formula import expect_same_bits

Mha = polyhead.MultiheadAttention
Scratch = polyhead.FromScratchMultiHeadAttention
OPTIONS = [
    {}, {"bias": False}, {"add_bias_kv": True, "add_zero_attn": True}, {"kdim": 5, "vdim": 7},
    {"dtype": "float64"}, {"batch_first": True, "dropout": 0.5}]


def inputs_of(module, seed=0, batch=2, q_len=4, kv_len=6):
    rng = np.random.default_rng(seed)
    sizes = [(q_len, module.embed_dim), (kv_len, module.kdim), (kv_len, module.vdim)]
    arrays = [rng.standard_normal((batch, *size)).astype(module.dtype) for size in sizes]
    return arrays if module.batch_first else [x.swapaxes(0, 1) for x in arrays]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_numbers(options):
    module = Mha(16, 4, seed=3, **options)
    query, key, value = inputs_of(module)
    out, weights = module(query, key, value, average_attn_weights=False)

    class Case:
        batch, q_len, kv_len, num_heads, head_dim = 2, 4, 6, 4, 4
        add_bias_kv, add_zero_attn = module.add_bias_kv, module.add_zero_attn
        state, is_causal = module.state_dict(), False
        attn_mask_4d = key_padding_mask_4d = staticmethod(lambda: None)
        batch_first_inputs = staticmethod(
            lambda: [x if module.batch_first else x.swapaxes(0, 1) for x in (query, key, value)])

    precise = np.float64 if module.dtype == "float32" else np.longdouble
    truth = contract.forward(Case, precise)
    naive = [contract.forward(Case, np.dtype(module.dtype), step) for step in (1, -1, 0)]
    out = out if module.batch_first else out.swapaxes(0, 1)
    for index, (what, ours) in enumerate((("module out", out), ("module weights", weights))):
        expect_as_good(what, ours, truth[index], [n[index] for n in naive])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_copies_and_pickles(options):
    module = Mha(16, 4, seed=3, **options)
    inputs = inputs_of(module)
    expected, _ = module(*inputs)
    for twin in (copy.deepcopy(module), copy.copy(module), pickle.loads(pickle.dumps(module))):
        assert repr(twin) == repr(module)
        expect_same_bits(twin(*inputs)[0], expected)
    twin.load_state_dict({n: np.zeros_like(p) for n, p in twin.state_dict().items()})
    expect_same_bits(module(*inputs)[0], expected)  # a copy has parameters of its own

def turns_of_another_thread(call):
    """How often it ran during the call. It is never made way for; it must be let."""
    turns, done = [], threading.Event()

    def take_turns():
        while not done.is_set():
            turns.append(None)
            time.sleep(1e-4)

    other = threading.Thread(target=take_turns)
    other.start()
    before, seconds = len(turns), sys.getswitchinterval()
    sys.setswitchinterval(100)
    call()
    found = len(turns) - before
    sys.setswitchinterval(seconds)
    done.set()
    other.join()
    return found


def test_other_threads_run_while_files_are_read_and_written(tmp_path):
    path = tmp_path / "mha.safetensors"
    module = Mha(512, 8)
    assert turns_of_another_thread(lambda: module.save_safetensors(path)) > 0
    assert turns_of_another_thread(lambda: Mha.from_safetensors(path, num_heads=8)) > 0



@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_files(options, tmp_path):
    module = Mha(16, 4, seed=3, **options)
    module.save_safetensors(tmp_path / "mha.safetensors", prefix="layer.")
    loaded = Mha.from_safetensors(tmp_path / "mha.safetensors", "layer.")
    assert repr(loaded) == repr(module)
    expect_same_bits(loaded(*inputs_of(module))[0], module(*inputs_of(module))[0])
    assert repr(Mha.from_safetensors(str(tmp_path / "mha.safetensors"), num_heads=4)).startswith(
        "MultiheadAttention(embed_dim=16, num_heads=4")


def test_files_say_how_a_module_is_called(tmp_path):
    path = tmp_path / "mha.safetensors"
    module = Mha(16, 4, seed=3, batch_first=True, add_zero_attn=True, dropout=0.25)
    module.save_safetensors(path)
    assert repr(Mha.from_safetensors(path)) == repr(module)
    other = Mha.from_safetensors(path, batch_first=False, dropout=0.0, add_zero_attn=False)
    assert (other.batch_first, other.dropout, other.add_zero_attn) == (False, 0.0, False)
    with pytest.raises(ValueError, match="^from_safetensors: .*: num_heads: got 2; must be 4"):
        Mha.from_safetensors(path, num_heads=2)


def test_what_a_file_does_not_say_must_be_said(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "layout.safetensors"
    state = {name: np.array(x) for name, x in Mha(8, 2).state_dict().items()}
    numpy.save_file(state, path, {"num_heads": "2"})  # as files of 0.2.0 are
    with pytest.raises(ValueError, match="^from_safetensors: batch_first: not given, and not in the "
                                         "file's __metadata__; must be True or False$"):
        Mha.from_safetensors(path)
    loaded = Mha.from_safetensors(path, batch_first=True)
    assert repr(loaded) == repr(Mha(8, 2, batch_first=True))
    numpy.save_file(state, path)
    with pytest.raises(ValueError, match="^from_safetensors: .*: num_heads: not given"):
        Mha.from_safetensors(path, batch_first=True)


def test_names_of_other_models(tmp_path):
    module = Mha(8, 2, seed=1)
    state = module.state_dict()
    renamed = Mha.from_safetensors
    path = tmp_path / "own_names.safetensors"
    module.save_safetensors(path, prefix="x.")
    names = {f"x.{name}": name for name in state}
    expect_same_bits(renamed(path, num_heads=2, names=names).state_dict()["out_proj.bias"],
                     state["out_proj.bias"])
    with pytest.raises(ValueError, match="names: got 'gpt'; need a dict, 'bert', 'vit' or 'llama'"):
        renamed(path, num_heads=2, names="gpt")


def test_state_dict_is_torchs():
    names = lambda **options: list(Mha(8, 2, **options).state_dict())
    assert names() == ["in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"]
    assert names(bias=False) == ["in_proj_weight", "out_proj.weight"]
    assert names(kdim=3, add_bias_kv=True) == [
        "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias", "bias_k", "bias_v",
        "out_proj.weight", "out_proj.bias"]
    assert list(Scratch(8, 2).state_dict()) == [
        f"{layer}.{kind}" for layer in ("q_linear", "k_linear", "v_linear", "fc_out")
        for kind in ("weight", "bias")]


def test_parameters_are_seen_but_not_written():
    module = Mha(8, 2)
    weight = module.state_dict()["in_proj_weight"]
    with pytest.raises(ValueError, match="read-only"):
        weight[0, 0] = 1
    module.load_state_dict({**module.state_dict(), "in_proj_weight": np.full((24, 8), 3.0)})
    assert (weight == 3).all() and weight.dtype == np.float32
    del module
    assert (weight == 3).all()  # keeps the memory alive


def test_load_state_dict_is_all_or_nothing():
    module = Mha(8, 2)
    before = {name: value.copy() for name, value in module.state_dict().items()}
    zeros = {name: np.zeros_like(value) for name, value in before.items()}
    wrong = [({**zeros, "out_proj.bias": np.zeros(9)}, r"out_proj.bias: shape is \[9\]; need \[8\]"),
             ({**zeros, "extra": np.zeros(1)}, r"unexpected \['extra'\]"),
             ({k: v for k, v in zeros.items() if k != "in_proj_bias"}, r"missing \['in_proj_bias'\]")]
    for state, words in wrong:
        with pytest.raises(ValueError, match=words):
            module.load_state_dict(state)
        for name, value in module.state_dict().items():
            expect_same_bits(value, before[name])
    module.load_state_dict({"out_proj.bias": np.ones(8), "extra": np.ones(1)}, strict=False)
    assert (module.state_dict()["out_proj.bias"] == 1).all()


def test_layouts_masks_and_weights():
    module = Mha(16, 4, seed=5)
    query, key, value = inputs_of(module)
    first = Mha(16, 4, batch_first=True, seed=5)
    flipped = [x.swapaxes(0, 1) for x in (query, key, value)]
    padding = np.zeros((2, 6), bool)
    padding[:, 4:] = True
    mask = np.triu(np.ones((4, 6), bool), 2)
    out, weights = module(query, key, value, padding, attn_mask=mask)
    out_first, weights_first = first(*flipped, key_padding_mask=padding, attn_mask=mask)
    expect_same_bits(out_first, np.ascontiguousarray(out.swapaxes(0, 1)))
    expect_same_bits(weights_first, weights)
    assert weights.shape == (2, 4, 6) and not weights[:, :, 4:].any()
    per_head = module(query, key, value, padding, attn_mask=mask, average_attn_weights=False)[1]
    assert per_head.shape == (2, 4, 4, 6)
    alone, none = module(query[:, 0], key[:, 0], value[:, 0], padding[0], False, mask)
    assert none is None
    expect_same_bits(alone, np.ascontiguousarray(out[:, 0]))
    assert module(query[:, 0], key[:, 0], value[:, 0])[1].shape == (4, 6)
    causal = module(query, key, value, is_causal=True, causal_align="bottom_right")[1]
    assert (causal[:, 0, 3:] == 0).all() and (causal[:, 0, :3] > 0).all()
    nowhere = np.ones((4, 6), bool)
    bias = np.broadcast_to(module.state_dict()["out_proj.bias"], out.shape)
    expect_same_bits(module(query, key, value, attn_mask=nowhere)[0], np.ascontiguousarray(bias))
    assert np.isnan(module(query, key, value, attn_mask=nowhere, empty_rows="nan")[0]).all()


@pytest.mark.parametrize("make, error, words", [
    (lambda: Mha(10, 3), ValueError, "num_heads: got 3; must be a divisor of embed_dim 10"),
    (lambda: Mha(0, 1), ValueError, "embed_dim: got 0"),
    (lambda: Mha(8.0, 2), TypeError, "embed_dim: got float; need an int"),
    (lambda: Mha(8, 2, kdim=0), ValueError, "kdim: got 0; need at least 1, or None"),
    (lambda: Mha(8, 2, dropout=1.5), ValueError, "dropout: got 1.5"),
    (lambda: Mha(8, 2, device="cuda"), ValueError, "device: got 'cuda'; need None or 'cpu'"),
    (lambda: Mha(8, 2, dtype="float16"), ValueError, "dtype: got 'float16'; need 'float32' or"),
    (lambda: Mha(8, 2).nothing, AttributeError, "no attribute 'nothing'"),
    (lambda: Scratch(10, 3), ValueError, "Embedding size needs to be divisible by num_heads"),
    (lambda: Scratch(8, 2, "wide"), ValueError, "head_width: got 'wide'; need 'split' or 'full'"),
    (lambda: Mha.from_safetensors("nowhere"), OSError, "nowhere: cannot open"),
    (lambda: Mha(8, 2).save_safetensors("no/such/folder/x"), OSError, "no/such/folder"),
    (lambda: Mha(8, 2).load_state_dict({"in_proj_weight": [1.0]}, strict=False), TypeError,
     "in_proj_weight: got list"),
    (lambda: Mha(1 << 21, 1), MemoryError, "sizes: take more memory than there is"),
], ids=range(14))
def test_refused_modules(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_refused_calls():
    module = Mha(8, 2)
    x = np.zeros((3, 2, 8), "float32")
    for call, error, words in (
            (lambda: module(x.astype("float64"), x, x), ValueError, "query: dtype is float64"),
            (lambda: module(x[..., :4], x, x), ValueError, "query: embed dim is 4 in .3, 2, 4.; must be 8"),
            (lambda: module(x[None], x, x), ValueError, "query: shape is .1, 3, 2, 8."),
            (lambda: module(x, x[0], x), ValueError, "key: shape is .2, 8."),
            (lambda: module("x", x, x), TypeError, "query: got str"),
            (lambda: module(x, x, x, attn_mask=np.zeros((1, 3), bool)), ValueError,
             "attn_mask: shape is .1, 3."),
            (lambda: module(x, x, x, x), ValueError, "key_padding_mask"),
            (lambda: module(x, x, x, causal_align="up"), ValueError, "causal_align: got 'up'")):
        with pytest.raises(error, match=words):
            call()


@pytest.mark.parametrize("head_width", ["split", "full"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_from_scratch(head_width, dtype, tmp_path):
    module = Scratch(8, 2, head_width, dtype=dtype, seed=2)
    rng = np.random.default_rng(0)
    q, k = (rng.standard_normal((2, n, 8)).astype(dtype) for n in (3, 5))
    mask = np.zeros((1, 1, 1, 5), "int32")
    mask[..., 3:] = 1
    out = module(q, k, k, mask)
    assert out.shape == (2, 3, 8) and out.dtype == dtype
    expect_same_bits(module(q, k, k, mask.astype(bool)), out)
    seen = module(q, k[:, :3], k[:, :3])  # the hidden keys weigh nothing
    assert np.abs(out - seen).max() < 100 * np.finfo(dtype).eps
    module.save_safetensors(tmp_path / "scratch.safetensors")
    loaded = Scratch.from_safetensors(tmp_path / "scratch.safetensors")
    for twin in (loaded, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert repr(twin) == repr(module)
        expect_same_bits(twin(q, k, k, mask), out)

"""Arguments of a wrong type, of every public function and constructor: one line that says which, what
it was, and what is needed."""

import copy
import pathlib
import pickle

import numpy as np
import polyhead
import pytest

MHA, Scratch = polyhead.MultiheadAttention, polyhead.FromScratchMultiHeadAttention
X = np.zeros((1, 2, 3, 8), "float32")
WEIGHTS = np.full((1, 2, 3, 3), 1 / 3, "float32")
INTS = ["x", None, 8.0, [8]]
NUMBERS = ["x", None, [0.5], X]
FLAGS = ["x", None, 1, 0.0, np.True_]
WORDS = [None, 1, b"x", True]
WINDOWS = [3, "x", (1,), (1, 2, 3), (1.5, 2), ("x", None)]
PATHS = [None, 3, {}]


def without_none(values):
    return [value for value in values if value is not None]


OF_ATTENTION = {
    "dropout_p": NUMBERS, "is_causal": FLAGS[:-1], "scale": without_none(NUMBERS), "enable_gqa": FLAGS,
    "causal_align": WORDS, "weights": without_none(WORDS), "empty_rows": WORDS,
    "seed": without_none(INTS), "attn_mask": [[1.0], 3, "x", True], "window": WINDOWS,
    "query_offset": without_none(INTS), "softcap": NUMBERS, "score_mod": [3, "x", X], "segments": [3, X, (X,), ("x", X)],
    **dict.fromkeys(("key_lengths", "alibi_slopes", "sinks"), [[1.0], 3, "x", True])}
OF_PACKED = {
    name: OF_ATTENTION[name] for name in (
        "dropout_p", "is_causal", "scale", "causal_align", "empty_rows", "seed", "window",
        "query_offset", "softcap", "score_mod", "key_lengths", "alibi_slopes", "sinks")
} | {"cu_seqlens_q": [None, [0, 2], 3], "cu_seqlens_k": [[0, 2], 3]}
OF_MODULE = {
    "embed_dim": INTS, "num_heads": INTS, "dropout": NUMBERS, "bias": FLAGS, "add_bias_kv": FLAGS,
    "add_zero_attn": FLAGS, "kdim": without_none(INTS), "vdim": without_none(INTS),
    "batch_first": FLAGS, "dtype": [1, object()], "seed": INTS}
OF_SCRATCH = {"embed_size": INTS, "num_heads": INTS, "head_width": WORDS, "dtype": [1],
              "seed": INTS}
OF_FORWARD = {
    **dict.fromkeys(("query", "key", "value"), [None, [1.0], 3, "x"]),
    **dict.fromkeys(("key_padding_mask", "attn_mask"), [[True], 3, "x"]),
    "is_causal": FLAGS[:-1], "causal_align": WORDS, "empty_rows": WORDS}
OF_CACHE = {
    "batch": INTS, "num_kv_heads": INTS, "head_dim": INTS, "v_head_dim": without_none(INTS),
    "dtype": [1], "page_len": INTS, "num_pages": INTS, "window": without_none(INTS)}
OF_APPEND = {**dict.fromkeys(("key", "value"), [None, [1.0], 3, "x"]), "lengths": [[1], 3, "x"],
             "sequence": without_none(INTS)}
OF_ATTEND = {"query": OF_FORWARD["query"]} | {
    name: OF_ATTENTION[name] for name in (
        "attn_mask", "is_causal", "scale", "window", "query_offset", "segments", "softcap", "alibi_slopes",
        "sinks",
        "weights", "empty_rows", "score_mod")} | {"cu_seqlens_q": [[0, 2], 3]}
OF_FILE = {
    "path": PATHS, "prefix": [None, 3], "num_heads": ["x", 1.5],
    "batch_first": without_none(FLAGS), "add_zero_attn": without_none(FLAGS),
    "dropout": without_none(NUMBERS), "names": [3, [], {1: 2}, {"a": 1}]}
OF_REPORT = {
    "layers": [None, 3, "x", [WEIGHTS], {1: WEIGHTS}, {"a": None}],
    "tokens": [3, "abc", ["abc"], [[1, 2, 3]], [None]], "key_tokens": [3, [[1]]],
    "title": [None, 3], "subtitle": [None, 3], "guide": [None, 3, "abc", [3]]}


def attend(**changed):
    return polyhead.scaled_dot_product_attention(**{"query": X, "key": X, "value": X} | changed)


def attend_packed(**changed):
    x, bounds = X[0], np.array([0, 1, 2])  # two tokens of three heads
    return polyhead.packed_attention(
        **{"query": x, "key": x, "value": x, "cu_seqlens_q": bounds} | changed)


def new_cache(**changed):
    return polyhead.KvCache(**{"num_kv_heads": 2, "head_dim": 8, "num_pages": 1} | changed)


def append(**changed):
    return new_cache().append(**{"key": X, "value": X} | changed)


def forward_wide(**changed):
    wide = X[0].astype("float64")
    return module(dtype="float64").forward(**{"query": wide, "key": wide, "value": wide} | changed)


def attend_cache(**changed):
    return new_cache().attend(**{"query": X} | changed)


def cut(**changed):
    return new_cache().truncate(**{"sequence": 0, "length": 0} | changed)


def module(**changed):
    return MHA(**{"embed_dim": 8, "num_heads": 2} | changed)


def scratch(**changed):
    return Scratch(**{"embed_size": 8, "num_heads": 2} | changed)


def forward(**changed):
    return module().forward(**{"query": X[0], "key": X[0], "value": X[0]} | changed)


def scratch_forward(**changed):
    return scratch().forward(**{"q": X[0], "k": X[0], "v": X[0]} | changed)


def load(**changed):
    return MHA.from_safetensors(**{"path": "x.safetensors"} | changed)


def load_scratch(**changed):
    return Scratch.from_safetensors(**{"path": "x.safetensors"} | changed)


def report(**changed):
    return polyhead.Report(**{"layers": WEIGHTS} | changed).html()


def save(**changed):
    return module().save_safetensors(**{"path": "x.safetensors"} | changed)


CALLS = [
    (attend, dict.fromkeys(("query", "key", "value"), OF_FORWARD["query"]) | OF_ATTENTION),
    (attend_packed, dict.fromkeys(("query", "key", "value"), OF_FORWARD["query"]) | OF_PACKED),
    (new_cache, OF_CACHE), (append, OF_APPEND), (attend_cache, OF_ATTEND),
    (cut, {"sequence": INTS, "length": INTS}),
    (lambda **changed: new_cache().reset(**changed), {"sequence": without_none(INTS)}),
    (module, OF_MODULE), (scratch, OF_SCRATCH), (forward, OF_FORWARD), (load, OF_FILE),
    (scratch_forward, dict.fromkeys("qkv", OF_FORWARD["query"]) | {"mask": [[True], 3]}),
    (load_scratch, {name: OF_FILE[name] for name in ("path", "prefix", "num_heads", "names")}),
    (save, {"path": PATHS, "prefix": [None, 3]}), (report, OF_REPORT),
    (polyhead.set_num_threads, {"n": INTS}),
    (polyhead.Report(WEIGHTS).save, {"path": PATHS})]


@pytest.mark.parametrize("call, argument", [(call, name) for call, names in CALLS for name in names])
def test_wrong_types(call, argument):
    for value in dict(CALLS)[call][argument]:
        with pytest.raises(TypeError) as refusal:
            call(**{argument: value})
        said = str(refusal.value)
        named = {"layers": ("weights", "names of layers")}.get(argument, (argument,))
        assert "\n" not in said and any(name in said for name in named), said
        assert "need" in said and "incompatible" not in said, said


@pytest.mark.parametrize("call, argument, value", [
    (module, "seed", -1), (module, "seed", 2**64), (module, "embed_dim", 2**63),
    (module, "kdim", -2**63 - 1), (attend, "seed", 2**64), (polyhead.set_num_threads, "n", 2**70),
    (polyhead.set_num_threads, "n", 2**31), (polyhead.set_num_threads, "n", 0)])
def test_numbers_that_do_not_fit(call, argument, value):
    with pytest.raises(ValueError, match=f"{argument}: got {value}; (need|must be) -?[0-9]+ to [0-9]+$"):
        call(**{argument: value})


@pytest.mark.parametrize("call", [load, load_scratch, save, polyhead.Report(WEIGHTS).save])
def test_strings_that_do_not_fit(call):
    for argument, value in (("path", "a\0b"), ("path", b"a\0b"), ("path", "a\ud800"),
                            ("path", pathlib.Path("a\0b")), ("prefix", "\ud800")):
        if argument == "prefix" and call not in (load, save):
            continue
        with pytest.raises(ValueError, match=f"^[a-z_]+: {argument}: got .*; need .* without null") as it:
            call(**{argument: value})
        assert "\n" not in str(it.value)


def test_what_only_the_extension_refuses_is_one_line():
    with pytest.raises(TypeError, match="^scaled_dot_product_attention: arguments: got .*docstring says$"):
        attend(causal_align="\ud800")


@pytest.mark.parametrize("call, arguments", [
    (attend, ("query", "key", "value", "attn_mask", "key_lengths", "alibi_slopes", "sinks")),
    (attend_packed, ("query", "key", "value", "cu_seqlens_q", "cu_seqlens_k", "sinks")),
    (append, ("key", "value", "lengths")), (attend_cache, ("query", "attn_mask", "cu_seqlens_q")),
    (forward, ("query", "key", "value", "key_padding_mask", "attn_mask")),
    (scratch_forward, ("q", "k", "v", "mask")), (report, ("layers",)),
    (lambda **state: module().load_state_dict(state, strict=False), ("in_proj_bias",))])
def test_masked_arrays(call, arguments):
    """Whose masks would be thrown away."""
    for argument in arguments:
        named = "weights" if argument == "layers" else argument
        with pytest.raises(TypeError, match=f"{named}: got a numpy.ma.MaskedArray; need .*filled") as it:
            call(**{argument: np.ma.masked_array(X[0], mask=True)})
        assert "\n" not in str(it.value)
    with pytest.raises(TypeError, match="segments: got a numpy.ma.MaskedArray"):
        attend(segments=(np.ma.zeros(3, int), np.zeros(3, int)))


@pytest.mark.parametrize("call", [attend, attend_packed, forward])
def test_numpys_bool_says_causal(call):
    x = np.random.default_rng(0).standard_normal(X.shape).astype("float32")
    x = x[0] if call is not attend else x
    operands = {"query": x, "key": x, "value": x}
    if call is attend_packed:
        operands["cu_seqlens_q"] = np.array([0, 2])
    results = [call(**operands, is_causal=flag) for flag in (True, False, np.True_, np.False_)]
    results = [r[0] if isinstance(r, tuple) else r for r in results]
    assert not np.array_equal(results[0], results[1])
    for got, want in zip(results[2:], results):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("make", [module, scratch])
def test_the_configuration_is_read_only(make):
    made = make()
    before = repr(made)
    for name in vars(made)["_config"]:
        with pytest.raises(AttributeError, match=f": {name}: is fixed by the constructor; need"):
            setattr(made, name, getattr(made, name))
    made.note = "kept"
    for twin in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
        assert repr(twin) == before and twin.note == "kept"
    state = made.__getstate__()
    del state["attributes"]  # as version 0.2.0 wrote it
    made.__setstate__(state)
    assert repr(made) == before


def test_options_of_rope_are_a_copy():
    made = module(rope={"pairs": "halves"})
    before = repr(made)
    made.rope["base"] = 3.0
    assert repr(made) == before


def test_a_number_of_threads_is_no_bool():
    with pytest.raises(TypeError, match="^set_num_threads: n: got bool; need an int$"):
        polyhead.set_num_threads(True)


@pytest.mark.parametrize("value, error, words", [
    ([1.0] * 24, TypeError, "in_proj_bias: got list"), (None, TypeError, "got NoneType"),
    ("x", TypeError, "got str"), (np.zeros(24, complex), TypeError, "dtype is complex128; need real"),
    (np.zeros(24, object), TypeError, "dtype is object"), (np.array(["x"] * 24), TypeError, "dtype is"),
    (np.zeros(23), ValueError, r"shape is \[23\]; need \[24\]"),
    (np.full(24, 1e300), ValueError, "too large for float32")])
def test_load_state_dict(value, error, words):
    attention = module()
    before = {name: array.copy() for name, array in attention.state_dict().items()}
    with pytest.raises(error, match=f"^load_state_dict: .*{words}"):
        attention.load_state_dict({**before, "in_proj_bias": value})
    for name, array in attention.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("value", [None, 3, "x", [], [("in_proj_bias", np.zeros(24))]])
def test_what_is_no_state_dict(value):
    with pytest.raises(TypeError, match="load_state_dict: state_dict: got .*; need a dict"):
        module().load_state_dict(value)


@pytest.mark.parametrize("state", [None, {}, {"config": {}}, 3, []])
def test_what_is_no_pickled_state(state):
    for kind in (MHA, Scratch):
        with pytest.raises(ValueError, match="__setstate__: need what __getstate__ gave"):
            kind.__new__(kind).__setstate__(state)


SEGMENTS, LENGTHS = np.zeros(3, "int64"), np.array([9])
FULL = np.zeros((1, 2, 3, 3), bool)


def attend_cache(**changed):
    cache = polyhead.KvCache(num_kv_heads=2, head_dim=8, num_pages=2)
    cache.append(X, X)
    return cache.attend(**{"query": X} | changed)


@pytest.mark.parametrize("call, arguments, said", [
    (attend, {"attn_mask": FULL[..., :2]}, "scaled_dot_product_attention: attn_mask: size 3 is 2"),
    (attend, {"attn_mask": FULL[..., :2], "is_causal": True, "window": (1, 1), "key_lengths": LENGTHS // 9},
     "scaled_dot_product_attention: attn_mask: size 3 is 2"),
    (attend, {"key_lengths": LENGTHS, "is_causal": True},
     "scaled_dot_product_attention: key_lengths[0]: got 9; must be between 0 and"),
    (attend, {"query_offset": 2**50, "is_causal": True}, "scaled_dot_product_attention: query_offset: got"),
    (attend, {"window": (2**50, 1)}, "scaled_dot_product_attention: window: got"),
    (attend, {"segments": (SEGMENTS[:2], SEGMENTS)}, "scaled_dot_product_attention: segments[0]: shape is [2]"),
    (attend, {"segments": (SEGMENTS, SEGMENTS.astype("int32"))},
     "scaled_dot_product_attention: segments[1]: dtype is int32; must be segments[0]'s int64"),
    (attend, {"alibi_slopes": np.zeros(5)}, "scaled_dot_product_attention: alibi_slopes: shape is [5]"),
    (attend_packed, {"key_lengths": SEGMENTS}, "packed_attention: key_lengths: shape is [3]"),
    (attend_packed, {"cu_seqlens_q": np.array([0, 5])}, "packed_attention: cu_seqlens_q: the last is 5"),
    (attend_cache, {"attn_mask": FULL[..., :2]}, "KvCache.attend: attn_mask: size 3 is 2"),
    (lambda **other: polyhead.KvCache(num_kv_heads=2, head_dim=8, num_pages=2).append(X, X[:, :1]), {},
     "KvCache.append: value: "),
    (attend, {"weights": "x"}, "scaled_dot_product_attention: weights: got 'x'; need"),
    (attend, {"query_offset": 3}, "scaled_dot_product_attention: query_offset: nothing compares"),
    (attend, {"scale": 2**2000}, "scaled_dot_product_attention: scale: got a number too large"),
    (forward, {"empty_rows": "x"}, "MultiheadAttention: empty_rows: got 'x'"),
    (scratch, {"head_width": "x"}, "FromScratchMultiHeadAttention: head_width: got 'x'"),
    (module, {"embed_dim": 2**40, "num_heads": 1}, "MultiheadAttention: tensor: shape is"),
    (module, {"kdim": -1}, "MultiheadAttention: kdim: got -1; need at least 1, or None"),
    (new_cache, {"batch": 0}, "KvCache: batch: got 0; must be between 1 and"),
    (new_cache, {"window": -1}, "KvCache: window: got -1; need at least 1, or None"),
    (new_cache, {"v_head_dim": -1}, "KvCache: v_head_dim: got -1; need at least 1, or None"),
    (attend_cache, {"query": X[0].swapaxes(0, 1), "cu_seqlens_q": np.array([0, 3]), "weights": "average"},
     "KvCache.attend: weights: wanted, with cu_seqlens_q; must be None"),
    (lambda **other: module().forward_cached(
        X[0, 0], new_cache(head_dim=4), lengths=np.array([1])), {},
     "MultiheadAttention: lengths: given, with an unbatched query; must be None")])
def test_pythons_names(call, arguments, said):
    with pytest.raises(ValueError) as it:
        call(**arguments)
    assert str(it.value).startswith(said) and "masks[" not in str(it.value), it.value


@pytest.mark.parametrize("call, said", [
    (lambda: new_cache(num_pages=2**30, head_dim=2**16),
     "KvCache: num_pages, page_len: got 1073741824 of 256, which take"),
    (lambda: module(head_dim=2**42), "MultiheadAttention: sizes: take more memory than there is"),
    (lambda: append(sequence="x"), "KvCache.append: sequence: got str; need an int"),
    (lambda: attend_cache(is_causal=3), "KvCache.attend: is_causal: got int"),
    (lambda: module().cache_config("x", 1), "MultiheadAttention: batch: got str"),
    (lambda: attend(window=3), "scaled_dot_product_attention: window: got 3"),
    (lambda: load(names=3), "from_safetensors: names: got int; need a dict")])
def test_what_other_errors_say(call, said):
    with pytest.raises((MemoryError, TypeError)) as it:
        call()
    assert str(it.value).startswith(said)


@pytest.mark.parametrize("call, good", [
    (attend, {"query": X, "key": X, "value": X, "attn_mask": FULL, "alibi_slopes": np.zeros(2), "sinks": X[0, :, 0, 0],
              "key_lengths": LENGTHS // 9}),
    (attend_packed, {"query": X[0], "cu_seqlens_q": np.array([0, 1, 2]), "cu_seqlens_k": np.array([0, 1, 2])}),
    (attend_cache, {"query": X, "attn_mask": FULL}),
    (forward, {"query": X[0], "key": X[0], "value": X[0], "attn_mask": FULL[0, 0, :2, :2],
               "key_padding_mask": FULL[0, :2, :, 0].T}),
    (forward_wide, {"query": X[0].astype("float64"), "attn_mask": FULL[0, 0, :2, :2]}),
    (scratch_forward, {"q": X[0], "mask": FULL[0, 0]}), (report, {"layers": WEIGHTS})],
    ids=["op", "packed", "cache", "module", "wide module", "from scratch", "report"])
def test_a_dtype_that_is_offered_is_taken(call, good):
    for name, array in good.items():
        call(**{name: array})
        with pytest.raises(TypeError, match="__dlpack__, of ") as it:
            call(**{name: array.astype(complex)})
        offered = str(it.value).rpartition(" of ")[2].replace(" or ", ", ").split(", ")
        assert offered
        for dtype in offered:
            try:
                call(**{name: array.astype(dtype)})
            except ValueError as error:  # of one dtype together with the others
                assert "; must be query's" in str(error), error


@pytest.mark.parametrize("leading", [(0,), (0, 2), (2, 0), (0, 0)])
def test_no_items_are_checked_too(leading):
    def of(*shape):
        return np.zeros((*leading, *shape), "float32")
    x = of(2, 2, 3, 8)
    mask = np.zeros((2, 1, 3, 3), "float32")
    out, weights = attend(query=x, key=x, value=x, attn_mask=mask, weights="average")
    assert out.shape == x.shape and weights.shape == (*leading, 2, 3, 3)
    for changed, words in (
            ({"key": of(2, 2, 3, 9)}, "key: head_dim is 9"), ({"value": of(2, 2, 4, 8)}, "value: kv_len is 4"),
            ({"attn_mask": of(2, 2, 3, 4)}, "attn_mask: size 3 is 4"),
            ({"attn_mask": mask[..., :2]}, "attn_mask: size 3 is 2"), ({"softcap": -1.0}, "softcap: got -1")):
        with pytest.raises(ValueError, match=f"^scaled_dot_product_attention: {words}"):
            attend(**{"query": x, "key": x, "value": x} | changed)

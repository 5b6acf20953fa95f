"""What counts as an array, what is refused, and with which words."""

import gc
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import polyhead
import pytest
from formula import expect_same_bits, random_inputs

sdpa = polyhead.scaled_dot_product_attention


class OnlyDLPack:
    """As another library's tensor: the two methods, and no more."""

    def __init__(self, array, device=(1, 0)):
        self.array, self.device = array, device

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device


def test_any_object_with_dlpack():
    inputs = random_inputs(1)
    expected = sdpa(*inputs)
    expect_same_bits(sdpa(*map(OnlyDLPack, inputs)), expected)
    expect_same_bits(sdpa(*map(memoryview, inputs)), expected)


def test_read_only_and_old_objects_with_dlpack():
    class Old(OnlyDLPack):
        def __dlpack__(self, stream=None):
            return self.array.__dlpack__()

    inputs = random_inputs(1)
    expected = sdpa(*inputs)
    expect_same_bits(sdpa(*map(Old, inputs)), expected)
    for x in inputs:
        x.flags.writeable = False
    expect_same_bits(sdpa(*map(OnlyDLPack, inputs)), expected)


def test_results_are_arrays_of_their_own():
    query, key, value = random_inputs(2)
    out = sdpa(query, key, value)
    assert type(out) is np.ndarray and out.flags.owndata and out.flags.writeable
    assert out.flags.c_contiguous and not np.shares_memory(out, query)


def misaligned(array):
    whole = np.zeros(array.nbytes + 1, np.uint8)
    view = whole[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


@pytest.mark.parametrize("spoil, error, words", [
    (lambda x: x.astype("float16"), ValueError, "query: dtype is float16; need float32 or float64"),
    (lambda x: x.astype("int64"), ValueError, "query: dtype is int64; need float32 or float64"),
    (lambda x: x.astype("uint8"), TypeError, "query: got ndarray of dtype uint8; need a numpy array"),
    (lambda x: x.astype("complex64"), TypeError, "ndarray of dtype complex64"),
    (lambda x: x.astype("longdouble"), TypeError, "ndarray of dtype float128"),
    (lambda x: x.astype(">f4"), TypeError, "ndarray of dtype >f4"),
    (lambda x: x.astype(object), TypeError, "ndarray of dtype object"),
    (lambda x: x.astype("S4"), TypeError, "ndarray of dtype"),
    (lambda x: x.tolist(), TypeError, "query: got list; need a numpy array"),
    (lambda x: None, TypeError, "query: got NoneType"),
    (lambda x: 1.5, TypeError, "query: got float"),
    (lambda x: x[0, 0, 0], ValueError, r"query: shape is \[8\]"),
    (lambda x: x.reshape(1, 1, 1, 1, 1, *x.shape), ValueError, "9 dimensions; need at most 8"),
    (misaligned, ValueError, "not aligned to its elements"),
    (lambda x: x[:, :2], ValueError, "key: num_heads is 3; need 2 or 1, or enable_gqa=True"),
    (lambda x: np.concatenate([x, x[:1]]), ValueError, "key: batch is 2; need 3 or 1"),
    (lambda x: x[..., :5], ValueError, r"key: head_dim is 8 in \[2, 3, 9, 8\]; must be 5"),
], ids=range(17))
def test_refused_queries(spoil, error, words):
    query, key, value = random_inputs(3)
    with pytest.raises(error, match=words):
        sdpa(spoil(query), key, value)


@pytest.mark.parametrize("options, error, words", [
    ({"attn_mask": np.ones((7, 9), int)}, ValueError, r"attn_mask: dtype is int64; need bool"),
    ({"attn_mask": np.ones(9, bool)}, ValueError, r"shape is \[9\]"),
    ({"attn_mask": np.ones((7, 8), bool)}, ValueError, r"size 1 is 8 in \[7, 8\]; must be 1 or kv_len"),
    ({"attn_mask": np.ones((1, 1, 1, 7, 9), bool)}, ValueError, "at most 4 dimensions"),
    ({"causal_align": "left"}, ValueError, "causal_align: got 'left'; need 'top_left' or"),
    ({"empty_rows": "one"}, ValueError, "empty_rows: got 'one'; need 'zero' or 'nan'"),
    ({"weights": "all"}, ValueError, "weights: got 'all'; need 'average' or 'per_head'"),
    ({"weights": True}, TypeError, "weights: got bool; need 'average' or 'per_head'"),
    ({"scale": "big"}, TypeError, "scale: got str; need a number"),
    ({"scale": float("nan")}, ValueError, "scale"),
    ({"dropout_p": 1.5}, ValueError, "dropout_p"),
    ({"dropout_p": -0.5}, ValueError, "dropout_p"),
    ({"seed": -1}, ValueError, "seed: got -1; need 0 to 18446744073709551615"),
], ids=range(13))
def test_refused_options(options, error, words):
    with pytest.raises(error, match=words):
        sdpa(*random_inputs(4), **options)


def test_refused_values():
    query, key, value = random_inputs(5)
    with pytest.raises(ValueError, match=r"value: kv_len is 8 in \[2, 3, 8, 10\]; must be 9"):
        sdpa(query, key, value[:, :, :8])
    with pytest.raises(ValueError, match="value: dtype is float64; must be query's float32"):
        sdpa(query, key, value.astype("float64"))
    with pytest.raises(ValueError, match="set_num_threads: n: got 0"):
        polyhead.set_num_threads(0)
    huge = np.lib.stride_tricks.as_strided(query, (1, 1, 2**39, 8), (0, 0, 0, 4))
    with pytest.raises(MemoryError):
        sdpa(huge, key[:1, :1], value[:1, :1])


def test_memory_of_another_device_is_refused():
    class Elsewhere(OnlyDLPack):
        def __dlpack__(self, **options):
            raise BufferError("it lives on a device that is not the CPU")

    query, key, value = random_inputs(6)
    with pytest.raises(TypeError, match=r"got Elsewhere \(it lives on a device"):
        sdpa(Elsewhere(query, (2, 0)), key, value)


def test_other_threads_run_meanwhile():
    """Python goes on while the library computes: the main thread counts during one long call."""
    polyhead.set_num_threads(1)
    inputs = random_inputs(7, batch=1, heads=8, q_len=2048, kv_len=2048, head_dim=64)
    counts = []
    worker = threading.Thread(target=lambda: counts.append(sdpa(*inputs)))
    start, steps = time.perf_counter(), 0
    worker.start()
    while worker.is_alive():
        time.sleep(0)
        steps += 1
    duration = time.perf_counter() - start
    polyhead.set_num_threads(2)
    assert len(counts) == 1
    assert steps > 100, f"{steps} steps in {duration} s"


def test_many_threads_get_the_same_bits():
    inputs = random_inputs(8, q_len=33, kv_len=65)
    module = polyhead.MultiheadAttention(64, 4)
    x = np.random.default_rng(0).standard_normal((33, 2, 64)).astype("float32")
    expected, expected_module = sdpa(*inputs), module(x, x, x)[0]
    found = []

    def work():
        for _ in range(50):
            found.append(bool((sdpa(*inputs) == expected).all()
                              and (module(x, x, x)[0] == expected_module).all()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 200 and all(found)


def resident_bytes():
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * 4096


def test_large_views_are_not_copied():
    """A key of 128 MiB with gaps between its numbers: in a process of its own, whose largest resident
    set hardly grows."""
    program = textwrap.dedent("""
        import re, numpy, polyhead
        def peak():
            with open("/proc/self/status", encoding="ascii") as status:
                return int(re.search(r"VmHWM:\\s*([0-9]+)", status.read())[1]) * 1024
        key = numpy.ones((1, 1, 1 << 19, 128), "float32")[..., ::2]
        query = numpy.ones((1, 1, 1, 64), "float32")
        mask = numpy.ones((1, 1, 1, 1 << 20), bool)[..., ::2]
        polyhead.scaled_dot_product_attention(query, key[:, :, :64], key[:, :, :64])
        before = peak()
        assert (polyhead.scaled_dot_product_attention(query, key, key, mask) == 1).all()
        print(peak() - before)
    """)
    grown = int(subprocess.check_output([sys.executable, "-c", program]))
    assert grown < 32 << 20, grown


def test_nothing_is_left_behind():
    """Calls, refused ones too, keep neither references to their arrays nor memory."""
    query, key, value = random_inputs(9, q_len=512, kv_len=8, head_dim=64)  # out: 0.8 MB
    mask = np.ones((512, 8), bool)
    module = polyhead.MultiheadAttention(64, 4, batch_first=True)
    x = query[:, 0].copy()
    watched = [query, key, value, mask, x, module, None, np.dtype("float32")]

    def calls(count):
        for _ in range(count):
            sdpa(query, key, value, mask, weights="average")
            module(x, x, x)
            module.state_dict()
            for wrong in (value[:, :, :5], [1.0], value.astype("float16")):
                with pytest.raises((ValueError, TypeError)):
                    sdpa(query, key, wrong)

    calls(20)
    gc.collect()
    references, bytes_before = [sys.getrefcount(x) for x in watched], resident_bytes()
    calls(300)
    gc.collect()
    for before, x in zip(references, watched):
        assert abs(sys.getrefcount(x) - before) < 100
    assert resident_bytes() - bytes_before < 60e6  # 300 outputs would be 240 MB

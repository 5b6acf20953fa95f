"""Our readers and writers against the real packages: what they write we read, and the reverse."""

import subprocess

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch

SHAPES = [(), (0,), (1,), (7,), (3, 5), (2, 0, 4), (2, 3, 4, 5), (1, 1, 1, 1, 2)]


@pytest.fixture
def resave(build, tmp_path):
    def through_polyhead(kind, source, *more):
        target = tmp_path / f"resaved-{source.name}"
        command = [build / "tests/parity/resave", kind, source, target, *more]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return target

    return through_polyhead


def same_bits(a, b):
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    assert np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


def numbers(rng, shape, dtype):
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if dtype.startswith("int"):
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    x = rng.standard_normal(shape).astype(dtype)
    x.flat[: min(4, x.size)] = np.array([np.nan, -0.0, np.inf, 1e-40], dtype)[: min(4, x.size)]
    return x


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "int64", "bool"])
def test_npy(resave, tmp_path, dtype):
    rng = np.random.default_rng(3)
    for i, shape in enumerate(SHAPES):
        array = np.asarray(numbers(rng, shape, dtype))
        for j, stored in enumerate([array, np.asarray(array, order="F"), swapped(array)]):
            source = tmp_path / f"{i}-{j}.npy"
            np.save(source, stored)
            same_bits(np.load(resave("npy", source)), array)


def swapped(array):
    """The same values, their bytes in the other order."""
    return array.astype(array.dtype.newbyteorder(">"))


def test_safetensors(resave, tmp_path):
    rng = np.random.default_rng(4)
    arrays = {f"{dtype}.{i}": np.asarray(numbers(rng, shape, dtype))
              for dtype in ("float32", "float64", "float16", "int32", "int64", "bool")
              for i, shape in enumerate(SHAPES)}
    source = tmp_path / "all.safetensors"
    metadata = {"format": "pt", "quote\"d": "back\\slash, newline\n, naïve, 注意"}
    safetensors.numpy.save_file(arrays, source, metadata)
    target = resave("safetensors", source)
    loaded = safetensors.numpy.load_file(target)
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        same_bits(loaded[name], array)
    with safetensors.safe_open(target, "numpy") as file:
        assert file.metadata() == metadata


def test_safetensors_bfloat16(resave, tmp_path):
    every_pattern = torch.arange(-2**15, 2**15, dtype=torch.int16).view(torch.bfloat16)
    source = tmp_path / "bf16.safetensors"
    safetensors.torch.save_file({"x": every_pattern.reshape(256, 256)}, source)
    loaded = safetensors.torch.load_file(resave("safetensors", source))["x"]
    assert loaded.dtype == torch.bfloat16
    assert torch.equal(loaded.view(torch.int16).flatten(), every_pattern.view(torch.int16))


@pytest.mark.parametrize("options", [
    {}, {"bias": False}, {"add_bias_kv": True}, {"kdim": 24, "vdim": 40},
    {"kdim": 24, "vdim": 40, "add_bias_kv": True, "bias": False}, {"dtype": torch.float64}])
def test_module_state_dict_both_ways(resave, tmp_path, options):
    """A state dict torch saved, through our module, is loaded strictly by torch, bit for bit."""
    module = torch.nn.MultiheadAttention(32, 4, **options)
    source = tmp_path / "module.safetensors"
    safetensors.torch.save_file(module.state_dict(), source, {"num_heads": "4"})
    saved = safetensors.torch.load_file(resave("module", source, "block.attn."))
    assert all(name.startswith("block.attn.") for name in saved)
    again = torch.nn.MultiheadAttention(32, 4, **options)
    again.load_state_dict({name.removeprefix("block.attn."): t for name, t in saved.items()})
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name

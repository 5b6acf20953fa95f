"""The wheel as a whole: what it requires, exports and promises, and that its documents run."""

import importlib.metadata
import inspect
import re
import subprocess
import sys
import time
import timeit
import types
from pathlib import Path

import numpy as np
import polyhead
import pytest
from polyhead import _core


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_numpy_is_the_only_requirement():
    required = importlib.metadata.requires("polyhead")
    always = [line for line in required if "extra ==" not in line]
    assert [re.match(r"[\w-]+", line).group(0) for line in always] == ["numpy"]
    extras = [re.sub(r"[ '\"]", "", line) for line in required if line not in always]
    assert sorted(extras) == ["onnx>=1.23;extra==onnx", "torch>=2.10;extra==torch"]
    loaded = run(sys.executable, "-c", "import sys, polyhead; print(*sys.modules)").split()
    assert not {"torch", "onnx", "nanobind"} & set(loaded)


def test_one_version(root):
    stated = re.search(r"project\(polyhead VERSION ([\d.]+)", (root / "CMakeLists.txt").read_text())
    assert polyhead.__version__ == importlib.metadata.version("polyhead") == stated.group(1)


def test_build_requirements_are_those_tested(root):
    pinned = (root / "python/requirements.txt").read_text().splitlines()
    requires = re.search(r"^requires = \[(.*)\]", (root / "pyproject.toml").read_text(), re.MULTILINE)
    assert all(name in pinned for name in re.findall(r'"([^"]+)"', requires.group(1)))


def test_nothing_but_the_entry_is_exported():
    symbols = run("nm", "--dynamic", "--defined-only", _core.__file__).split("\n")
    assert [line.split()[-1] for line in symbols if line] == ["PyInit__core"]


def test_files_of_the_wheel():
    names = {Path(str(file)).name for file in importlib.metadata.files("polyhead")
             if str(file).startswith("polyhead/") and "__pycache__" not in str(file)}
    assert {"__init__.py", "_core.pyi", "py.typed", Path(_core.__file__).name} <= names
    assert not [name for name in names if name.endswith((".h", ".a", ".cmake"))]


def test_stub_of_the_extension(root, tmp_path):
    """The golden file is what stubgen makes of what was built."""
    run(sys.executable, "-m", "nanobind.stubgen", "-q", "-m", "polyhead._core", "-o",
        tmp_path / "_core.pyi")
    made, golden = (tmp_path / "_core.pyi").read_text(), (root / "python/polyhead/_core.pyi").read_text()
    assert made == golden, ("if this is meant: build/venv-python/bin/python -m nanobind.stubgen "
                            "-m polyhead._core -o python/polyhead/_core.pyi")


def test_types(root, tmp_path):
    run(sys.executable, "-m", "mypy", "--strict", "--allow-any-generics", "--cache-dir", tmp_path,
        "--no-error-summary", "-p", "polyhead")
    run(sys.executable, "-m", "mypy", "--cache-dir", tmp_path, "--warn-unused-ignores",
        "--no-error-summary", root / "python/tests/typed_use.py")


@pytest.mark.parametrize("name", polyhead.__all__)
def test_docstrings(name):
    thing = getattr(polyhead, name)
    assert inspect.getdoc(thing)
    for method, code in inspect.getmembers(thing, inspect.isfunction):
        if not method.startswith("_"):
            assert inspect.getdoc(code), f"{name}.{method}"


def test_signature_is_the_documented_one():
    parameters = inspect.signature(polyhead.scaled_dot_product_attention).parameters
    assert list(parameters) == [
        "query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa",
        "causal_align", "weights", "empty_rows", "seed", "window", "query_offset", "key_lengths",
        "segments", "softcap", "alibi_slopes", "sinks", "score_mod"]
    assert list(inspect.signature(polyhead.packed_attention).parameters) == [
        "query", "key", "value", "cu_seqlens_q", "cu_seqlens_k", "dropout_p", "is_causal", "scale",
        "causal_align", "empty_rows", "seed", "window", "query_offset", "key_lengths", "softcap",
        "alibi_slopes", "sinks", "score_mod"]
    assert list(inspect.signature(polyhead.KvCache).parameters) == [
        "batch", "num_kv_heads", "head_dim", "v_head_dim", "dtype", "page_len", "num_pages", "window"]
    assert list(inspect.signature(polyhead.KvCache.attend).parameters) == [
        "self", "query", "attn_mask", "is_causal", "scale", "cu_seqlens_q", "window",
        "query_offset", "segments",
        "softcap", "alibi_slopes", "sinks", "weights", "empty_rows", "score_mod"]
    assert list(inspect.signature(polyhead.MultiheadAttention).parameters) == [
        "embed_dim", "num_heads", "dropout", "bias", "add_bias_kv", "add_zero_attn", "kdim", "vdim",
        "batch_first", "device", "dtype", "seed", "num_kv_heads", "head_dim", "qk_norm",
        "qk_norm_eps", "rope"]


def test_a_call_costs_little():
    """All of the smallest call, the library's part included: at most what may be added to it."""
    x = np.zeros((1, 1, 1, 1), "float32")
    module = polyhead.MultiheadAttention(1, 1)
    polyhead.set_num_threads(1)
    for call in (lambda: polyhead.scaled_dot_product_attention(x, x, x, is_causal=True),
                 lambda: module(x[0], x[0], x[0], need_weights=False)):
        seconds = timeit.repeat(call, timer=time.process_time, number=200, repeat=100)
        assert min(seconds) / 200 < 15e-6
    polyhead.set_num_threads(2)


def test_isa_can_be_forced():
    force = "import os; os.environ['POLYHEAD_ISA'] = '{}'; import polyhead; print(polyhead.isa())"
    assert polyhead.isa() in _core.available_isas()
    for isa in _core.available_isas():
        assert run(sys.executable, "-c", force.format(isa)).strip() == isa


def python_blocks(path):
    text = path.read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", ["README.md", "docs/kv_cache.md", "docs/python.md",
                                  "docs/rope.md"])
def test_documents(root, page, tmp_path, monkeypatch):
    """The blocks of a page are one program, in the order in which they stand, from the one that
    imports the module on: the README shows PyTorch's classes before."""
    blocks = python_blocks(root / page)
    blocks = blocks[next(i for i, block in enumerate(blocks) if "import polyhead" in block):]
    assert blocks
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(blocks), page, "exec"), {})  # noqa: S102


def test_another_torch_is_refused_at_import():
    """polyhead.torch hands its torch to this."""
    torch = types.ModuleType("torch")
    torch.Tensor, torch.__version__ = type("Tensor", (), {}), "2.9.1"
    with pytest.raises(ImportError, match="^polyhead.torch: torch: version is 2.9.1; need 2.10 or newer$"):
        _core.find_torch(torch)

"""polyhead.torch for a type checker, beside torch's own types; and its signatures."""

import inspect
import subprocess
import sys
from pathlib import Path

import polyhead.torch
import pytest
import torch

from torch_case import OURS, TORCHS

HERE = Path(__file__).resolve().parent


def mypy(cache, *arguments):
    """Without the project's configuration, which is for an environment without torch."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", "--strict", "--no-error-summary",
         "--warn-unused-ignores", "--cache-dir", cache, *arguments],
        cwd=cache, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_types(tmp_path):
    mypy(tmp_path, "-p", "polyhead.torch")
    mypy(tmp_path, HERE / "typed_use.py")


@pytest.mark.parametrize("name", polyhead.torch.__all__)
def test_docstrings(name):
    assert inspect.getdoc(getattr(polyhead.torch, name))


EXTRAS = {"weights", "causal_align", "empty_rows"}
OF_MODULE = {"num_kv_heads", "head_dim", "qk_norm", "qk_norm_eps", "rope"}


@pytest.mark.parametrize("ours, stock, extras", [
    (OURS.__init__, TORCHS.__init__, OF_MODULE),
    (OURS.forward, TORCHS.forward, EXTRAS | {"query_position", "key_position"})])
def test_signatures_are_torchs(ours, stock, extras):
    """Name by name, with their kinds and defaults; ours has more, by keyword alone."""
    of = lambda call: [(p.name, p.kind, p.default) for p in inspect.signature(call).parameters.values()]
    assert of(ours)[:len(of(stock))] == of(stock)
    more = of(ours)[len(of(stock)):]
    assert {name for name, _, _ in more} == extras
    assert all(kind is inspect.Parameter.KEYWORD_ONLY for _, kind, _ in more)


def test_signature_of_attention_is_torchs():
    """torch's is a builtin; its documentation has the signature."""
    stated = "scaled_dot_product_attention(query, key, value, attn_mask=None, dropout_p=0.0, " \
        "is_causal=False, scale=None, enable_gqa=False)"
    documented = torch.nn.functional.scaled_dot_product_attention.__doc__
    assert "".join(stated.split()) in "".join(documented.split()).replace("*,", "")
    parameters = inspect.signature(polyhead.torch.scaled_dot_product_attention).parameters
    assert list(parameters)[:8] == [part.split("=")[0] for part in
                                    stated[stated.index("(") + 1:-1].split(", ")]
    assert set(list(parameters)[8:]) == EXTRAS | {
        "window", "query_offset", "key_lengths", "segments", "softcap", "alibi_slopes", "sinks"}

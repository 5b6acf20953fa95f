"""docs/torch.md is a program that runs."""

import re
from pathlib import Path

import torch

PAGE = Path(__file__).resolve().parents[3] / "docs/torch.md"


def test_page():
    torch.compiler.reset()
    torch.manual_seed(0)
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    exec(compile("\n".join(blocks), str(PAGE), "exec"), {})  # pylint: disable=exec-used

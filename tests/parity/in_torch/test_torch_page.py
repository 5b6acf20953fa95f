"""docs/torch.md is a program that runs, and so is the notebook."""

import json
import re
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs/torch.md"


def test_page():
    torch.compiler.reset()
    torch.manual_seed(0)
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    exec(compile("\n".join(blocks), str(PAGE), "exec"), {})  # pylint: disable=exec-used


def test_notebook():
    notebook = json.loads((ROOT / "examples/heads.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    names = {}
    for i, cell in enumerate(cells):
        exec(compile(cell, f"cell {i}", "exec"), names)  # pylint: disable=exec-used
    assert "<iframe" in names["page"]._repr_html_()
    assert names["losses"][-1] < names["losses"][0] / 4
    assert max(shares.max() for shares in names["back_by_one"].values()) > 0.5

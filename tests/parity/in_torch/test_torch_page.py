"""docs/torch.md is a program that runs, and so is the notebook; the page's table is what is measured."""

import ast
import json
import re
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs/torch.md"
sys.path.append(str(ROOT / "bench/python"))

import switch  # noqa: E402


def test_page():
    torch.compiler.reset()
    torch.manual_seed(0)
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 5
    exec(compile("\n".join(blocks), str(PAGE), "exec"), {})  # pylint: disable=exec-used


def table_of_the_page():
    """{what: (before, after)}, as texts"""
    text = PAGE.read_text(encoding="utf-8").split(switch.MARKS[0])[1].split(switch.MARKS[1])[0]
    cells = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return {what.strip(): (before.strip(), after.strip()) for what, before, after in cells[2:]}


def test_table_of_the_page():
    """Its rows are the program's, run on something small; in those that count NaN the numbers, too;
    and each says less after than before."""
    page = table_of_the_page()
    small = list(switch.rows(width=32, steps=2, rounds=1, length=1024))
    assert list(page) == [what for what, *_ in small]
    for what, before, after, unit in small:
        shown = [re.fullmatch(rf"(\d+){unit}", text) for text in page[what]]
        assert float(shown[1][1]) < float(shown[0][1]), what
        if unit != " ms":
            assert after < before, what
        if not unit:
            assert page[what] == (str(before), str(after))


def shown_by(cell, names):
    """What a notebook shows under a cell: its last line's value."""
    tree = ast.parse(cell)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)  # pylint: disable=exec-used
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)  # pylint: disable=eval-used


def test_notebook():
    notebook = json.loads((ROOT / "examples/heads.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    names = {}
    pages = [shown for shown in (shown_by(cell, names) for cell in cells) if shown is not None]
    assert len(pages) == 1  # inline, by the hook that notebooks ask
    inline = pages[0]._repr_html_()
    assert inline.startswith("<iframe srcdoc=") and "Which token came before?" in inline
    assert names["losses"][-1] < names["losses"][0] / 4
    assert max(shares.max() for shares in names["back_by_one"].values()) > 0.5

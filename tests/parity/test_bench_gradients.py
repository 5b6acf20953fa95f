"""The benchmark's referee: what it takes for the true gradients are torch's in float64, and it sees
a wrong one."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.append(str(ROOT / "bench"))

from duel.grid import load_grid  # noqa: E402
from duel.judge import ANSWERS, Judge  # noqa: E402
from duel.training import TrainAttention, TrainModule  # noqa: E402
from duel.truth import checked_rows, pair_mask  # noqa: E402
import error_rule  # noqa: E402
from error_rule import expect_as_good  # noqa: E402

ATTENTION = [TrainAttention((2, 3, 20, 16)), TrainAttention((1, 2, 300, 16), mask="causal"),
             TrainAttention((2, 2, 9, 16), layout="BLHD", kv_len=300)]
MODULES = [TrainModule((2, 17, 32, 2)), TrainModule((2, 20, 32, 2), mask="padding"),
           TrainModule((1, 300, 32, 2), mask="causal", weights="average"),
           TrainModule((1, 12, 64, 4), mask="float", weights="average")]


@pytest.fixture(autouse=True)
def apart_from_the_statistics(monkeypatch):
    monkeypatch.setattr(error_rule, "RATIOS", error_rule.Ratios())


def read(folder, name, shape, dtype=np.float32):
    x = torch.from_numpy(np.fromfile(folder / name, dtype=dtype).reshape(shape))
    return x if dtype == bool else x.double().requires_grad_()


def gradients(leaves, outputs, derivatives):
    found = torch.autograd.grad(outputs, list(leaves.values()), derivatives)
    return {f"d_{name}": x for name, x in zip(leaves, found)}


def attention_by_torch(cell, folder):
    shapes = cell.output_shapes()
    leaves = {name: read(folder, f"{name}.f32", shapes[f"d_{name}"])
              for name in ("query", "key", "value")}
    heads = [x.transpose(1, 2) if cell.layout == "BLHD" else x for x in leaves.values()]
    out = torch.nn.functional.scaled_dot_product_attention(*heads, is_causal=cell.mask == "causal")
    out = out.transpose(1, 2) if cell.layout == "BLHD" else out
    derivative = read(folder, "d_out.f32", shapes["out"])
    return {"out": out} | gradients(leaves, (out,), (derivative,))


def masks_of(cell, folder):
    b, n, _, _ = cell.shape
    if cell.mask == "padding":
        return {"key_padding_mask": read(folder, "mask.u8", (b, n), bool)}
    if cell.mask == "float":
        return {"attn_mask": read(folder, "mask.f32", (n, n)).detach()}
    return {"attn_mask": torch.from_numpy(pair_mask("causal", n, n))} if cell.mask != "none" else {}


def module_by_torch(cell, folder):
    _, _, embed, heads = cell.shape
    shapes = cell.output_shapes()
    mha = torch.nn.MultiheadAttention(embed, heads, batch_first=True, dtype=torch.float64)
    mha.load_state_dict({name: read(folder, f"{name}.f32", shape).detach()
                         for name, shape in cell.parameter_shapes()})
    leaves = {"query": read(folder, "query.f32", shapes["d_query"])} | dict(mha.named_parameters())
    out, weights = mha(*[leaves["query"]] * 3, **masks_of(cell, folder))
    answers = {"out": out} | ({"weights": weights} if cell.weights != "none" else {})
    derivatives = [read(folder, f"d_{name}.f32", shapes[name]) for name in answers]
    return answers | gradients(leaves, tuple(answers.values()), derivatives)


def at_checked_rows(cell, answers):
    return {name: x.detach().numpy().take(checked_rows(x.shape[cell.row_axis(name)]),
                                          cell.row_axis(name)) for name, x in answers.items()}


@pytest.mark.parametrize("cell", ATTENTION + MODULES, ids=lambda cell: cell.name)
def test_truth_is_torchs(cell, tmp_path):
    cell.write_inputs(tmp_path)
    by_torch = {"train-attention": attention_by_torch, "train-module": module_by_torch}[cell.kind]
    theirs = at_checked_rows(cell, by_torch(cell, tmp_path))
    truth = ANSWERS[cell.kind](cell, tmp_path, np.longdouble, 0)
    plain = ANSWERS[cell.kind](cell, tmp_path, np.float64, 1)
    assert truth.keys() == plain.keys() == theirs.keys() == cell.output_shapes().keys()
    for name, exact in truth.items():
        expect_as_good(f"torch, {name}", theirs[name], exact, [plain[name]])


def test_every_goal_of_the_grid_has_cells():
    grid = load_grid(ROOT / "bench" / "grid.json")
    names = [cell.name for cell in grid.cells]
    assert len(names) == len(set(names))
    for goal in grid.goals:
        found = [cell for cell in grid.cells if cell.kind in goal.get("kinds", ())
                 and goal.get("group") in (None, cell.group)]
        assert goal["of_peak"] in names if "of_peak" in goal else found


@pytest.mark.parametrize("cell", (ATTENTION[0], MODULES[2]), ids=lambda cell: cell.name)
def test_every_wrong_gradient_is_seen(cell, tmp_path):
    judge = Judge(tmp_path)
    judge.inputs(cell)
    exact = judge.known[cell][0]
    right = {name: x.astype(np.float32) for name, x in exact.items()}
    assert judge.find_errors(cell, {"polyhead": right}) == {}
    for name, x in right.items():
        wrong = judge.find_errors(cell, {"polyhead": right | {name: x * np.float32(1.001)}})
        assert name in wrong["polyhead"]

"""grid.json: which cells, beside whom, and what is aimed for."""

import json
from dataclasses import dataclass
from pathlib import Path

from duel.cells import Attention, Module
from duel.decoding import Decode
from duel.training import TrainAttention, TrainModule

KINDS = {kind.kind: kind for kind in (Attention, Module, Decode, TrainAttention, TrainModule)}


def make_cell(entry):
    fields = {k: v for k, v in entry.items() if k != "kind"}
    return KINDS[entry["kind"]](**fields | {"shape": tuple(fields["shape"])})


@dataclass
class Grid:
    threads: list
    peers: dict  # by instruction set
    cells: list
    own: dict  # ratios of our own times
    goals: list


def load_grid(path):
    grid = json.loads(Path(path).read_text(encoding="utf-8"))
    own = {name: [entry | {role: make_cell(entry[role]) for role in ("of", "over") & entry.keys()}
                  for entry in entries] for name, entries in grid["own"].items()}
    return Grid(grid["threads"], grid["peers"], [make_cell(e) for e in grid["cells"]], own,
                grid["goals"])

"""Whether an answer may have its time counted."""

import re
from pathlib import Path

import numpy as np

from duel import decoding, gradients, truth
from error_rule import expect_as_good  # the same rule as ./dev parity

YARDSTICKS = ("polyhead", "torch")  # each may err as the other does; no other engine widens it

ANSWERS = {"attention": truth.attention, "module": truth.module, "decode": decoding.decode,
           "train-attention": gradients.attention, "train-module": gradients.module}


class Judge:
    """Makes each cell's inputs and truth once, and compares every engine's answer with it."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.known = {}

    def inputs(self, cell):
        folder = self.folder / re.sub(r"[^0-9A-Za-z]+", "_", cell.name)
        if cell not in self.known:
            folder.mkdir(parents=True)
            cell.write_inputs(folder)
            answer = ANSWERS[cell.kind]
            self.known[cell] = (answer(cell, folder, np.float64, 0),
                                answer(cell, folder, np.float32, 1))
        return folder

    def read(self, cell, prefix):
        """An engine's outputs at the checked rows; the files are gone afterwards."""
        found = {}
        for name, shape in cell.output_shapes().items():
            path = Path(f"{prefix}.{name}.f32")
            axis = cell.row_axis(name)
            rows = truth.checked_rows(shape[axis])
            found[name] = np.fromfile(path, dtype=np.float32).reshape(shape).take(rows, axis)
            path.unlink()
        return found

    def find_errors(self, cell, answers):
        """{engine: what is wrong with its answer}, of those where something is."""
        exact, plain = self.known[cell]
        wrong = {}
        for engine, outputs in answers.items():
            yardsticks = [answers[name] for name in YARDSTICKS
                          if name in answers and name != engine]
            try:
                for name, values in outputs.items():
                    others = [*(y[name] for y in yardsticks), plain[name]]
                    expect_as_good(f"{engine}, {name}", values, exact[name], others)
            except AssertionError as error:
                wrong[engine] = str(error)
        return wrong

    def worst_errors(self, cell, answers):
        exact = self.known[cell][0]
        return {engine: max(float(np.abs(values - exact[name]).max())
                            for name, values in outputs.items())
                for engine, outputs in answers.items()}

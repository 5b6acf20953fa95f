#!/usr/bin/env python3
"""polyhead.torch as a worker of ../duel: torch's cells (../peers), with our module or function in
them. bench/python/cells.py starts it.

    worker.py BUILD    BUILD/bench/bench_worker measures the FMA rate
"""

import json
import subprocess
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "peers"))

import polyhead.torch  # noqa: E402
import torch  # noqa: E402
from serving import Server, wanted_threads  # noqa: E402
from torch_cells import AttentionCell, ModuleCell, Timed, way  # noqa: E402
from torch_training import Step, learning, module_in_training  # noqa: E402


class OurAttention(AttentionCell):
    def attend(self, *operands):
        return polyhead.torch.scaled_dot_product_attention(
            *operands, is_causal=self.words.mask == "causal")


@torch.inference_mode(False)  # as most people make their modules
def module(words):
    cell = ModuleCell(words)
    polyhead.torch.convert(cell.mha)
    return {"module": Timed(cell.with_flags(), way)}


@torch.inference_mode(False)
def train_module(words):
    cell, *known = module_in_training(words)
    polyhead.torch.convert(cell.mha)
    return {"module": Step(cell.with_flags(), learning, *known)}


def attention(words):
    cell = OurAttention(words)
    call = lambda: cell.attend(*map(cell.heads_outer, cell.operands.values()))
    return {"function": Timed(call, way, cell.heads_outer)}


@torch.inference_mode(False)
def train_attention(words):
    cell = OurAttention(words)
    leaves = {name: x.requires_grad_() for name, x in cell.operands.items()}
    call = lambda: cell.heads_outer(cell.attend(*map(cell.heads_outer, leaves.values())))
    return {"function": Step(call, learning, leaves, [cell.read("d_out", words.q_len)])}


MAKERS = {"attention": attention, "module": module, "train-attention": train_attention,
          "train-module": train_module}


class OurServer(Server):
    def __init__(self, build):
        super().__init__("polyhead.torch", MAKERS, "", {
            "isa": polyhead.isa(), "threads": torch.get_num_threads()})
        self.probe = subprocess.Popen([Path(build, "bench", "bench_worker")], text=True,
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def answer(self, command, words):
        if command != "probe":
            return super().answer(command, words)
        self.probe.stdin.write("probe\n")
        self.probe.stdin.flush()
        return json.loads(self.probe.stdout.readline())


if __name__ == "__main__":
    torch.set_num_threads(wanted_threads())
    with torch.inference_mode():
        OurServer(sys.argv[1]).serve()

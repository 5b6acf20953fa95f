"""PyTorch's side of the duel: the same commands as bench/attention/worker.cc, except `probe`.

Torch gets the fastest of its legal variants: its own choice of kernel and the plain formula are
both tried, and the better one is timed.
"""

import json
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

TRIALS = 3


class Problem:
    def __init__(self, *words):
        """BATCH HEADS LENGTH HEAD_DIM LAYOUT CAUSAL FOLDER, as they come down the pipe."""
        b, h, n, d = (int(word) for word in words[:4])
        layout, causal, folder = words[4:]
        self.heads_inner = layout == "BLHD"
        self.shape = (b, n, h, d) if self.heads_inner else (b, h, n, d)  # in memory order
        self.causal = causal == "1"
        # [B, H, L, D], in torch's own memory, which is aligned
        self.operands = [self.read(Path(folder, f"{name}.f32"))
                         for name in ("query", "key", "value")]
        self.variant = self.fastest_variant()

    def read(self, path):
        tensor = torch.empty(self.shape)
        tensor.numpy()[...] = np.fromfile(path, dtype=np.float32).reshape(self.shape)
        return tensor.transpose(1, 2) if self.heads_inner else tensor

    def context(self):
        return sdpa_kernel(SDPBackend.MATH) if self.variant == "math" else nullcontext()

    def fastest_variant(self):
        best = {}
        for _ in range(TRIALS):
            for self.variant in ("default", "math"):
                seconds = self.timed_calls(2)["seconds"]
                best[self.variant] = min(seconds, best.get(self.variant, seconds))
        return min(best, key=best.get)

    def call(self):
        return scaled_dot_product_attention(*self.operands, is_causal=self.causal)

    def timed_calls(self, calls):
        with self.context():
            if calls > 1:
                self.call()
            cpu_start, start = time.process_time(), time.perf_counter()
            for _ in range(calls):
                self.call()
            return {"seconds": time.perf_counter() - start,
                    "cpu_seconds": time.process_time() - cpu_start}

    def call_into(self, path):
        answer = self.timed_calls(1)
        with self.context():
            out = self.call()
        out = out.transpose(1, 2) if self.heads_inner else out
        out.contiguous().numpy().tofile(path)
        return answer


def hello():
    return {"engine": f"torch {torch.__version__}",
            "isa": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}


def serve():
    problem = None
    for line in sys.stdin:
        command, *words = line.split()
        if command == "hello":
            answer = hello()
        elif command == "attention":
            problem = Problem(*words)
            answer = {"variant": problem.variant}
        elif command == "call":
            answer = problem.call_into(words[0])
        elif command == "slice":
            answer = problem.timed_calls(int(words[0]))
        else:
            raise ValueError(f"{command}: not a command")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with torch.inference_mode():
        serve()

"""What every peer's worker shares: commands as in bench/worker/worker.cc, and the choice among
variants.

For each kind of cell that it can do a peer gives a function of the cell's words, which returns
{name: Variant}, all of which compute what the cell asks for, or raises NotOffered. The fastest of
them is the one that is timed.
"""

import json
import os
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from parking import wait_until_parked

KINDS = "attention", "module", "decode", "train-attention", "train-module"
NO_GRADIENTS = "it computes no gradients"
TRIALS = 3
HOPELESS = 1.5  # times the best after one trial: not tried again
LONG_SECONDS = 0.05


class NotOffered(Exception):
    """The reason why this engine cannot do what the cell asks for."""


class Variant:
    """`run` makes one call, `outputs` gives {"out": array, ..} in the cell's memory order."""

    def __init__(self, run, outputs, context=nullcontext):
        self.run = run
        self.outputs = outputs
        self.context = context

    def timed(self, calls):
        with self.context():
            if calls > 1:
                self.run()
            cpu_start, start = time.process_time(), time.perf_counter()
            for _ in range(calls):
                self.run()
            return {"seconds": time.perf_counter() - start,
                    "cpu_seconds": time.process_time() - cpu_start}


class Words(dict):
    """NAME=VALUE words, numbers as such."""

    def __init__(self, words):
        pairs = (word.split("=", 1) for word in words)
        super().__init__((k, int(v) if v.isdigit() else v) for k, v in pairs)
        self.__dict__ = self

    def read(self, name, shape, dtype=np.float32):
        """64-byte aligned."""
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = np.empty(count + 64, np.uint8)
        start = -memory.ctypes.data % 64
        array = memory[start:start + count].view(dtype).reshape(shape)
        array[...] = np.fromfile(Path(self.folder, name), dtype=dtype).reshape(shape)
        return array


def zeros(shape):
    """64-byte aligned."""
    memory = np.zeros(int(np.prod(shape)) * 4 + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start:memory.size - 64 + start].view(np.float32).reshape(shape)


def ranked(variants):
    """Names, the fastest first. Slow ones are not tried as often: a call may take seconds."""
    best = {}
    for trial in range(TRIALS):
        limit = HOPELESS * min(best.values(), default=float("inf"))
        for name, variant in variants.items():
            known = best.get(name, 0.0)
            if known <= limit and not (known > LONG_SECONDS and trial > 1):
                wait_until_parked("self", threading.get_native_id())  # each may have its own pool
                seconds = variant.timed(1)["seconds"]
                if seconds < LONG_SECONDS:
                    seconds = variant.timed(2)["seconds"] / 2
                best[name] = min(seconds, best.get(name, seconds))
    return sorted(best, key=best.get)


class Server:
    def __init__(self, name, makers, otherwise, facts):
        """`makers`: of variants, by kind of cell; `otherwise`: why there are no others; `facts`:
        what `hello` answers besides the name."""
        self.facts = {"engine": name} | facts
        self.makers = makers
        self.otherwise = otherwise
        self.offered = {}
        self.order = []

    def take(self, kind, words):
        self.offered, self.order = {}, []  # the last cell's memory goes first
        if kind not in self.makers:
            return {"not_offered": self.otherwise}
        try:
            self.offered = self.makers[kind](Words(words))
        except NotOffered as reason:
            return {"not_offered": str(reason)}
        self.order = ranked(self.offered) if len(self.offered) > 1 else list(self.offered)
        return {"variant": self.order[0], "tried": list(self.offered)}

    def drop(self):
        """The referee found the fastest variant's answer wrong."""
        self.offered.pop(self.order.pop(0))
        return {"variant": self.order[0]} if self.order else {"not_offered": "no right answer"}

    def call(self, prefix):
        variant = self.offered[self.order[0]]
        answer = variant.timed(1)
        with variant.context():
            variant.run()
            for name, array in variant.outputs().items():
                np.ascontiguousarray(array, dtype=np.float32).tofile(f"{prefix}.{name}.f32")
        return answer

    def answer(self, command, words):
        if command == "hello":
            return self.facts
        if command in KINDS:
            return self.take(command, words)
        if command == "drop":
            return self.drop()
        if command == "call":
            return self.call(words[0])
        if command == "slice":
            return self.offered[self.order[0]].timed(int(words[0]))
        raise ValueError(f"{command}: not a command")

    def serve(self):
        for line in sys.stdin:
            command, *words = line.split()
            print(json.dumps(self.answer(command, words)), flush=True)


def wanted_threads():
    return int(os.environ["OMP_NUM_THREADS"])

"""Worker processes: pinned, told one thing at a time, silent in between."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from peers.parking import queued_seconds, wait_until_parked

PAUSE_SECONDS = 0.010  # at least

# What forces an instruction set, by engine. Torch's own kernels, MKL and oneDNN each have a switch.
FORCED_ISA = {
    "best": {},
    "avx2": {"POLYHEAD_ISA": "avx2", "ATEN_CPU_CAPABILITY": "avx2",
             "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
}
# The surroundings must not decide it.
CLEARED = ("POLYHEAD_ISA", "POLYHEAD_NUM_THREADS", "ATEN_CPU_CAPABILITY",
           "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
           "GOMP_CPU_AFFINITY", "OMP_WAIT_POLICY")


class EngineFailed(Exception):
    pass


class Engine:
    def __init__(self, name, command, isa, threads):
        self.name = name
        environment = {k: v for k, v in os.environ.items() if k not in CLEARED}
        environment |= FORCED_ISA[isa]
        for variable in ("POLYHEAD_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[variable] = str(threads)
        cpus = sorted(os.sched_getaffinity(0))[-threads:]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,  # Ctrl-C is for the referee alone; engines end with their stdin
            preexec_fn=lambda: os.sched_setaffinity(0, cpus))

    def ask(self, *words):
        """One line out, one line of JSON back. While this waits, the engine has the token."""
        try:
            self.process.stdin.write(" ".join(str(w) for w in words) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise EngineFailed(f"{self.name} ended at `{words[0]}`; what it said is above")
        return json.loads(line)

    def slice(self, calls):
        """Its answer, and how long its threads had to queue for a processor, as a share of it."""
        queued, start = queued_seconds(self.process.pid), time.monotonic()
        answer = self.ask("slice", calls)
        seconds = time.monotonic() - start
        return answer, (queued_seconds(self.process.pid) - queued) / seconds

    def park(self):
        """After a slice, the threads of the one that ran go to sleep."""
        time.sleep(PAUSE_SECONDS)
        wait_until_parked(self.process.pid)

    def close(self):
        with contextlib.suppress(BrokenPipeError):  # it has ended by itself
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


OURS = "polyhead"
PEERS = {  # name -> its worker and arguments
    "torch": ["torch_worker.py"],
    "torch-default": ["torch_worker.py", "--default"],
    "onnxruntime": ["onnxruntime_worker.py"],
    "openvino": ["openvino_worker.py"],
}
FORWARD_ONLY = {"onnxruntime", "openvino"}


def our_command(build):
    return [str(Path(build, "bench", "bench_worker"))]


def peer_command(name):
    worker, *arguments = PEERS[name]
    return [sys.executable, str(Path(__file__).parent.parent / "peers" / worker), *arguments]


class Team:
    """Engines on the same processors, in processes of their own. `commands`: {name: command}; the
    first one is ours, and runs the probe."""

    def __init__(self, commands, isa, threads):
        self.engines = {name: Engine(name, command, isa, threads)
                        for name, command in commands.items()}
        self.ours = next(iter(self.engines.values()))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for engine in self.engines.values():
            engine.close()

    def ask_all(self, *words):
        return {name: engine.ask(*words) for name, engine in self.engines.items()}

    def probe(self):
        return self.ours.ask("probe")["gflops"]

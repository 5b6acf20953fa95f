"""What the kernel knows of a process's threads.

Threads that wait for work by spinning steal the processor from whoever runs next: ONNX Runtime's do
so for 20 to 50 ms after a call on two threads (Zen 5, 2026-11). So everybody waits until they are
asleep."""

import time
from contextlib import suppress
from pathlib import Path

POLL_SECONDS = 0.001
MOST_SECONDS = 0.25  # then somebody spins for ever, and the numbers have to stand as they are


def running_threads(process):
    """Ids of the threads that are on a processor or want to be. `process`: its id, or "self"."""
    for stat in Path("/proc", str(process), "task").glob("*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            state = stat.read_text(encoding="utf-8", errors="replace").rpartition(") ")[2][0]
            if state == "R":
                yield int(stat.parent.name)


def queued_seconds(process):
    """How long its threads, all together, have been ready to run without a processor."""
    total = 0
    for stat in Path("/proc", str(process), "task").glob("*/schedstat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            total += int(stat.read_text(encoding="utf-8").split()[1])
    return total * 1e-9


def wait_until_parked(process, but=None):
    """Until no thread of it runs, besides the one with the id `but`."""
    end = time.monotonic() + MOST_SECONDS
    while time.monotonic() < end and any(thread != but for thread in running_threads(process)):
        time.sleep(POLL_SECONDS)

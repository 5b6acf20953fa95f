"""What a call runs on."""

from __future__ import annotations

from polyhead import _core
from polyhead._arguments import explained


def set_num_threads(n: int) -> None:
    """Threads a call may use, the caller's included. Results do not depend on it.
    ValueError unless 1 <= n <= 1024."""
    if isinstance(n, bool):
        raise TypeError("set_num_threads: n: got bool; need an int")
    try:
        _core.set_num_threads(n)
    except TypeError as error:
        raise explained(error, set_num_threads, locals()) from None


def get_num_threads() -> int:
    """Threads a call may use: what set_num_threads said, else POLYHEAD_NUM_THREADS, else the number
    of CPUs."""
    return _core.get_num_threads()


def isa() -> str:
    """The instruction set in use: 'avx512', 'avx2', 'neon' or 'baseline'. The best this CPU has,
    unless the environment's POLYHEAD_ISA names one; ValueError if it has not that."""
    return _core.isa()

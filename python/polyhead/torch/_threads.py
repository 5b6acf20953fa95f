"""The library's threads are torch's."""

from __future__ import annotations

from pathlib import Path

import torch

from polyhead import _core


_core.find_torch(torch)  # an ImportError at import, not at the first call


def lend() -> bool:
    """Makes the library work on torch's own OpenMP threads, where torch has such."""
    return _core.lend_openmp_of(str(Path(torch.__file__).parent / "lib/libtorch_cpu.so"))


def follow() -> None:
    """Their number follows torch's."""
    now = torch.get_num_threads()
    if _core.get_num_threads() != now:
        _core.set_num_threads(now)

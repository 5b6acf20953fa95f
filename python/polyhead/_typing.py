"""The types of the public signatures."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypedDict, Union

import numpy as np
import numpy.typing as npt


class SupportsDLPack(Protocol):
    """What numpy.from_dlpack takes, too."""

    def __dlpack__(self, *, stream: None = None) -> Any: ...
    def __dlpack_device__(self) -> tuple[Any, Any]: ...


Array = Union[npt.NDArray[Any], SupportsDLPack]
FloatArray = npt.NDArray[np.floating[Any]]
CausalAlign = Literal["top_left", "bottom_right"]
EmptyRows = Literal["zero", "nan"]
Weights = Literal["average", "per_head"]
HeadWidth = Literal["split", "full"]
Path = Union[str, "os.PathLike[str]"]
# (scores [queries, keys], batch, head, queries [queries, 1], keys [1, keys]) -> new scores
ScoreFunction = Callable[[npt.NDArray[Any], int, int, npt.NDArray[Any], npt.NDArray[Any]], Any]
Window = tuple[Union[int, None], Union[int, None]]  # keys on the left, on the right; None: all


class Rope(TypedDict, total=False):
    """Rotary positions; `pairs` must be said."""

    pairs: Literal["halves", "interleaved"]
    base: float
    rotary_dim: int
    scaling: Literal["none", "linear", "ntk", "llama3"]
    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_length: int

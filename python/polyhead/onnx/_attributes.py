"""The attributes of the operator Attention."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import NoReturn

from onnx import TensorProto

_PRECISIONS = (None, TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE,
               TensorProto.BFLOAT16)


class Mode(IntEnum):
    """What the output qk_matmul_output is."""

    RAW = 0
    SOFTCAPPED = 1
    WITH_BIAS = 2
    PROBS = 3


def refuse(argument: str, got: object, need: str) -> NoReturn:
    raise ValueError(f"Attention: {argument}: {got}; need {need}")


@dataclass(frozen=True)
class Attributes:
    """With the operator's own names and defaults."""

    is_causal: int = 0
    scale: float | None = None
    q_num_heads: int | None = None
    kv_num_heads: int | None = None
    softmax_precision: int | None = None
    softcap: float = 0.0
    qk_matmul_output_mode: int = Mode.RAW
    left_window_size: int = -1
    right_window_size: int = -1

    def check(self) -> None:
        for name, known in (("is_causal", (0, 1)), ("qk_matmul_output_mode", (0, 1, 2, 3)),
                            ("softmax_precision", _PRECISIONS)):
            if getattr(self, name) not in known:
                refuse(name, f"got {getattr(self, name)}",
                       "one of " + ", ".join(str(value) for value in known if value is not None))
        for name in ("left_window_size", "right_window_size"):
            if getattr(self, name) < -1:
                refuse(name, f"got {getattr(self, name)}", "0 or more, or -1 for all")
        for name in ("q_num_heads", "kv_num_heads"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                refuse(name, f"got {getattr(self, name)}", "1 or more")
        for name in ("scale", "softcap"):  # query and key are multiplied by the root of scale
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < math.inf:
                refuse(name, f"got {getattr(self, name)}", "a number of 0 or more")

    @property
    def has_window(self) -> bool:
        return self.left_window_size >= 0 or self.right_window_size >= 0

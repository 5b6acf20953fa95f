"""What objects have that are made once, by their constructor's arguments."""

from __future__ import annotations

from typing import Any

import numpy as np


class Configured:
    """The arguments can be read as attributes, not written."""

    _config: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        config = self.__dict__.get("_config", {})
        if name in config:
            value = config[name]
            return dict(value) if isinstance(value, dict) else value
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("_config", {}):
            raise AttributeError(f"{type(self).__name__}: {name}: is fixed by the constructor; need "
                                 "another object for another value")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self._config.items())
        return f"{type(self).__name__}({options})"


def dtype_name(dtype: Any) -> str:
    """Of a name, or of numpy's or torch's objects."""
    if dtype is None:
        return "float32"
    name = str(dtype).removeprefix("torch.") if _is_torchs(dtype) else _numpys_name(dtype)
    if name in ("float32", "float64"):
        return name
    error = ValueError if name or isinstance(dtype, str) else TypeError
    raise error(f"dtype: got {dtype!r}; need 'float32' or 'float64', or numpy's or torch's of this name")


def _is_torchs(dtype: Any) -> bool:
    """Without torch, which need not be there."""
    return type(dtype).__module__ == "torch" and type(dtype).__name__ == "dtype"


def _numpys_name(dtype: Any) -> str:
    """Nothing of what is no dtype."""
    try:
        return np.dtype(dtype).name
    except (TypeError, ValueError):
        return ""

"""What objects have that are made once, by their constructor's arguments."""

from __future__ import annotations

from typing import Any, Generic, NoReturn, TypeVar

import numpy as np

T = TypeVar("T")


class Fixed(Generic[T]):
    """An argument of the constructor: an attribute that can be read, not written."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Configured | None, owner: Any = None) -> T:
        if instance is None:
            return self  # type: ignore[return-value]
        value = instance._config[self._name]
        return dict(value) if isinstance(value, dict) else value  # type: ignore[return-value]

    def __set__(self, instance: Configured, value: NoReturn) -> None:
        raise AttributeError(f"{type(instance).__name__}: {self._name}: is fixed by the constructor; need "
                             "another object for another value")


class Configured:
    """What its constructor was given, in full: in _config, and as attributes."""

    _config: dict[str, Any]

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
        return str(np.dtype(dtype).name)
    except (TypeError, ValueError):
        return ""

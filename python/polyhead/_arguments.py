"""Arguments of a wrong type, in one line: the extension's own refusal lists its signatures."""

from __future__ import annotations

import inspect
import operator
import os
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, get_args

import numpy as np

from polyhead._typing import CausalAlign, EmptyRows, HeadWidth, Weights


def _words(literal: Any) -> tuple[str, Any]:
    return " or ".join(map(repr, get_args(literal))), str


# By a parameter's annotation: what is needed, and its type.
_NEEDS: dict[str, tuple[str, Any]] = {
    "int": ("an int", Integral), "float": ("a number", Real), "bool": ("True or False", bool),
    "str": ("a string", str), "Rope": ("a dict", dict), "Path": ("a path", (str, bytes, os.PathLike)),
    "CausalAlign": _words(CausalAlign), "EmptyRows": _words(EmptyRows),
    "HeadWidth": _words(HeadWidth), "Weights": _words(Weights)}
_INTS = range(-2**63, 2**63)
_LIMITS = {"seed": range(2**64), "n": range(1, 1025)}  # of the ints that are not in _INTS


def explained(error: TypeError, function: Callable[..., Any], given: Mapping[str, Any]) -> Exception:
    """What the extension's `error` means in a call of `function`, of which `given` are the arguments,
    in one line. An error that is no list of signatures stays as it is."""
    if "incompatible function arguments" not in str(error):
        return error
    for name, parameter in inspect.signature(function).parameters.items():
        annotation, value = str(parameter.annotation), given[name]
        need, kind = _NEEDS.get(annotation.removesuffix(" | None"), ("", object))
        if value is None and annotation.endswith(" | None"):
            continue
        if not isinstance(value, kind):
            return TypeError(f"{_title(function)}: {name}: got {type_name(value)}; need {need}")
        limits = _LIMITS.get(name, _INTS)
        if kind is Integral and int(value) not in limits:
            return ValueError(f"{_title(function)}: {name}: got {value}; need {limits[0]} to "
                              f"{limits[-1]}")
        if kind is Real and not _fits_float(value):
            return ValueError(f"{_title(function)}: {name}: got a number too large for a float; need one "
                              "that a float has")
        if need in ("a path", "a string") and not _can_be(need, value):
            return ValueError(f"{_title(function)}: {name}: got {value!r}; need {need} without null "
                              "characters and surrogates")
    types = ", ".join(type_name(given[name]) for name in inspect.signature(function).parameters)
    return TypeError(f"{_title(function)}: arguments: got {types}; need what the docstring says")


def _can_be(need: str, value: Any) -> bool:
    """Whether the system's calls, or UTF-8, have this string."""
    if need == "a string":
        return has_utf8(value)
    try:
        return b"\0" not in os.fsencode(value)
    except (UnicodeEncodeError, TypeError):
        return False


def _fits_float(value: Any) -> bool:
    try:
        float(value)
    except OverflowError:
        return False
    return True


def has_utf8(text: str) -> bool:
    """Not of a string with surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def index_of(value: Any, argument: str) -> int:
    """An int, of whatever can be an index of a list; True and False are none. `argument`: "function:
    argument"."""
    is_flag = isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")
    try:
        index = None if is_flag else operator.index(value)
    except TypeError:
        index = None
    if index is None:
        raise TypeError(f"{argument}: got {type_name(value)}; need an int")
    if index not in _INTS:
        raise ValueError(f"{argument}: got {value}; need {_INTS[0]} to {_INTS[-1]}")
    return index


def plain_bool(value: Any) -> Any:
    """numpy's bool as Python's; others as they are, to be refused."""
    return bool(value) if isinstance(value, np.bool_) else value


def refuse_masked(function: str, names: Iterable[str], arrays: Iterable[Any]) -> None:
    """numpy's masked arrays would be read without their masks."""
    for name, array in zip(names, arrays):
        if type(array) is np.ndarray or not isinstance(array, np.ndarray):  # numpy.ma loads late
            continue
        if isinstance(array, np.ma.MaskedArray):
            raise TypeError(f"{function}: {name}: got a numpy.ma.MaskedArray; need an array without a "
                            "mask: its .filled(..)")


def pair_of(segments: Any, function: str) -> tuple[Any, Any]:
    """Those of the queries and of the keys; None for both."""
    if segments is None:
        return None, None
    if not isinstance(segments, (tuple, list)) or len(segments) != 2:
        raise TypeError(f"{function}: segments: got {type_name(segments)}; need two arrays: of the "
                        "queries, of the keys")
    return segments[0], segments[1]


def type_name(value: object) -> str:
    """With its module: numpy's bool is none of Python's."""
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _title(function: Callable[..., Any]) -> str:
    """As the extension opens its own refusals."""
    owner, _, name = function.__qualname__.rpartition(".")
    if owner == "KvCache" and name != "__init__":
        return f"{owner}.{name}"
    return owner if name in ("__init__", "forward", "forward_cached", "cache_config") else name

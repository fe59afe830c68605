"""Values of ours as what JSON can hold, and back. A damaged one still gives what can be read of it."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, Union

T = TypeVar("T")

_DIGITS = 3  # of seconds: a millisecond is as fine as any reader needs


def to_plain(value: object) -> Any:
    """Return dictionaries, lists, texts and numbers; for anything unknown its text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    return str(value)


def from_plain(kind: type[T], data: object) -> T | None:
    """
    Return a value of a dataclass from such an object, or None where it is none.

    Unknown keys are ignored. A field that is missing or wrong takes its default; a field without one makes
    the whole value None.
    """
    found: T | None = _read(kind, data)
    return found


def _read(kind: Any, data: object) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        found = (_read(each, data) for each in arguments if each is not type(None))
        return next((value for value in found if value is not None), None)
    if origin is tuple:
        return _read_tuple(arguments, data)
    if dataclasses.is_dataclass(kind):
        return _read_value(typing.cast("type", kind), data)
    if kind is bool:
        return data if isinstance(data, bool) else None
    if kind is float:
        number = isinstance(data, (int, float)) and not isinstance(data, bool)
        return float(typing.cast("float", data)) if number else None
    if kind is int:
        return data if isinstance(data, int) and not isinstance(data, bool) else None
    return data if isinstance(data, str) else None


def _read_tuple(arguments: tuple[Any, ...], data: object) -> Any:
    if not isinstance(data, list):
        return None
    if arguments[-1] is Ellipsis:
        found = (_read(arguments[0], item) for item in data)
        return tuple(value for value in found if value is not None)
    if len(data) != len(arguments):
        return None
    values = tuple(_read(each, item) for each, item in zip(arguments, data, strict=True))
    return None if None in values else values


def _read_value(kind: type, data: object) -> Any:
    if not isinstance(data, Mapping):
        return None
    given: dict[str, Any] = {}
    for name, wanted in _fields(kind).items():
        value = _read(wanted, data.get(name))
        if value is not None or (name in data and type(None) in typing.get_args(wanted)):
            given[name] = value
    try:
        return kind(**given)
    except TypeError:  # one without a default is missing
        return None


@functools.cache
def _fields(kind: type) -> dict[str, Any]:
    # The words of the model, for annotations that only name them.
    from watchdog_hook.core import model

    return typing.get_type_hints(kind, localns=vars(model))

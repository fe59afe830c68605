"""What an option is made of: the values it takes, how they are read, checked and written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

INTERRUPTIBLE = ("api_calls",)
COMPONENTS = ("scheduler", "dag_processor", "triggerer")

Timeout = None | float | tuple[float, float]


class ConfigError(ValueError):
    """An option has a value that it cannot have. Says which, what it was given and what it must be."""

    def __init__(self, option: str, value: object, must_be: str) -> None:
        self.option = option
        self.value = value
        self.must_be = must_be
        shown = repr(value)
        super().__init__(
            f"{option} must be {must_be}, not {shown if len(shown) <= 80 else shown[:77] + '...'}"
        )


@dataclass(frozen=True, slots=True)
class Kind:
    """What values an option takes. `read` and `check` raise ValueError or TypeError for any other."""

    type: str  # in Airflow's words: boolean, integer, float, string
    must_be: str
    read: Callable[[str], Any]
    check: Callable[[Any], Any]
    write: Callable[[Any], str] = str


@dataclass(frozen=True, slots=True)
class Knob:
    """One option, as a table or a help text shows it."""

    name: str
    default: Any
    kind: Kind
    text: str
    unit: str
    default_text: str
    example: str | None
    since: str  # the release that brought it


def _flag(text: str) -> bool:
    word = text.strip().lower()
    if word in ("true", "t", "1", "yes", "on"):
        return True
    if word in ("false", "f", "0", "no", "off"):
        return False
    raise ValueError(text)


def _is_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(value)
    return float(value)


def _number_text(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _limits(above: float | None, least: float | None, most: float | None) -> str:
    low = f"above {above:g}" if above is not None else f"of at least {least:g}"
    return low if most is None else f"{low} and at most {most:g}"


def number(
    what: str, *, above: float | None = None, least: float | None = None, most: float | None = None
) -> Kind:
    """Return the kind of a number within limits; `what` names it in a message."""

    def check(value: Any) -> float:
        result = _number(value)
        if (
            (above is not None and result <= above)
            or (least is not None and result < least)
            or (most is not None and result > most)
        ):
            raise ValueError(value)
        return result

    return Kind("float", f"{what} {_limits(above, least, most)}", float, check, _number_text)


def count(*, least: int) -> Kind:
    """Return the kind of a whole number that is not below `least`."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(value)
        return value

    return Kind("integer", f"a whole number of at least {least}", int, check)


def _are_of(known: tuple[str, ...], value: Any) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(value))
    if not all(name in known for name in names):
        raise ValueError(value)
    return names


def _is_interruptible(value: Any) -> tuple[str, ...]:
    return _are_of(INTERRUPTIBLE, value)


def _are_components(value: Any) -> tuple[str, ...]:
    names = _are_of(COMPONENTS, value)
    if not names:
        raise ValueError(value)
    return names


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip().lower() for part in text.split(","))


def _interruptible(text: str) -> tuple[str, ...]:
    names = _names(text)
    return () if names == ("off",) else names


def _is_timeout(value: Any) -> Timeout:
    if value is None or (not isinstance(value, (tuple, list)) and _number(value) == 0):
        return None
    parts = tuple(
        _number(part) for part in (value if isinstance(value, (tuple, list)) else (value,))
    )
    if any(part <= 0 for part in parts):
        raise ValueError(value)
    if len(parts) == 1:
        return parts[0]
    connect, read = parts
    return (connect, read)


def _timeout(text: str) -> Any:
    parts = [float(part) for part in text.split(",")]
    return parts[0] if len(parts) == 1 else parts


def _timeout_text(value: Timeout) -> str:
    if value is None:
        return "0"
    return ",".join(map(_number_text, value if isinstance(value, tuple) else (value,)))


def _is_path(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or "\0" in value):
        raise ValueError(value)
    return value or None


def _is_program(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(value)
    word = value.lower()
    if word in ("auto", "off"):
        return word
    if not value.startswith("/"):
        raise ValueError(value)
    return value


FLAG = Kind("boolean", "True or False", _flag, _is_flag)
SECONDS = number("a number of seconds", above=0)
SECONDS_OR_NONE = number("a number of seconds", least=0)
INTERRUPT = Kind(
    "string",
    f"a comma list of {', '.join(INTERRUPTIBLE)}, or off",
    _interruptible,
    _is_interruptible,
    lambda names: ",".join(names) or "off",
)
COMPONENT_LIST = Kind(
    "string", f"a comma list of {', '.join(COMPONENTS)}", _names, _are_components, ",".join
)
TIMEOUT = Kind(
    "string",
    "a number of seconds, two of them as connect,read, or 0 for none",
    _timeout,
    _is_timeout,
    _timeout_text,
)
PY_SPY = Kind(
    "string",
    "the whole path of a program, auto or off",
    str.strip,
    _is_program,
)
PATH = Kind("string", "the path of a directory", str.strip, _is_path, lambda path: path or "")
FILE = Kind(
    "string", "the path of a file, or nothing", str.strip, _is_path, lambda path: path or ""
)


def knob(
    default: Any,
    text: str,
    kind: Kind = SECONDS,
    *,
    unit: str = "",
    default_text: str | None = None,
    example: str | None = None,
    since: str = "0.1.0",
) -> Any:
    """Return a field that carries everything there is to know about its option."""
    shown = kind.write(default) if default_text is None else default_text
    if not unit and kind in (SECONDS, SECONDS_OR_NONE):
        unit = "s"
    return dataclasses.field(
        default=default, metadata={"knob": (kind, text, unit, shown, example, since)}
    )

"""
Every option once: its name, default, unit, text and check.

`airflow config list`, the README's table and `watchdog-hook doctor` all read it from here.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

INTERRUPTIBLE = ("api_calls",)

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


def _is_interruptible(value: Any) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(value))
    if not all(name in INTERRUPTIBLE for name in names):
        raise ValueError(value)
    return names


def _interruptible(text: str) -> tuple[str, ...]:
    names = tuple(part.strip().lower() for part in text.split(","))
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
TIMEOUT = Kind(
    "string",
    "a number of seconds, two of them as connect,read, or 0 for none",
    _timeout,
    _is_timeout,
    _timeout_text,
)
PATH = Kind("string", "the path of a directory", str.strip, _is_path, lambda path: path or "")


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


@dataclass(frozen=True)
class Config:
    """
    How the watchdog behaves. All times are seconds.

    A text is read as airflow.cfg's would be. A value that an option cannot have raises ConfigError.
    The steps of the ladder keep their order: `Config(dump_after=5)` moves `sample_after` too, for a
    number that equals its default counts as not set; two set against each other raise ConfigError.
    """

    enabled: bool = knob(True, "False: the watchdog is not armed.", FLAG)
    poll_interval: float = knob(
        1.0,
        "How often the watchdog looks.",
        number("a number of seconds", above=0, most=60),
        unit="s",
    )
    sample_after: float = knob(
        15.0, "Silence after which the loop's stack is sampled at every look."
    )
    dump_after: float = knob(30.0, "Silence that is a stall: everything is dumped.")
    interrupt: tuple[str, ...] = knob(
        ("api_calls",),
        "Comma list of what may be interrupted: api_calls; off is observe only, with no requeue and no "
        "breaker either.",
        INTERRUPT,
    )
    interrupt_after: float = knob(
        60.0,
        "Silence of one guarded call (three times this: its whole age) after which it gets "
        "StuckCallTimeout.",
    )
    breaker_after: int = knob(
        3,
        "Interrupted or broken calls to one API server, with no answered one between, after which it "
        "is left alone for a while.",
        count(least=1),
    )
    breaker_open_for: float = knob(
        30.0,
        "How long that server is left alone; doubles up to 300.",
        number("a number of seconds", above=0, most=300),
        unit="s",
    )
    requeue_limit: int = knob(
        3,
        "Times one task try is put back on the queue while the API server answered others; then it fails.",
        count(least=0),
    )
    requeue_connection_errors: bool = knob(
        True,
        "Treat a connection that broke during a pod's creation like an interrupted one, instead of "
        "Airflow's crash or failed task.",
        FLAG,
    )
    terminate_after: float = knob(
        0.0,
        "Silence after which the process exits with code 75; 0 is never.",
        SECONDS_OR_NONE,
        example="240",
    )
    startup_grace: float = knob(300.0, "Silence allowed to the first iteration.", SECONDS_OR_NONE)
    request_timeout: Timeout = knob(
        None,
        "N or connect,read: default _request_timeout for the executor's calls that have none; 0 adds none.",
        TIMEOUT,
        unit="s",
        example="10,60",
    )
    incident_dir: str | None = knob(
        None,
        "Directory of the incident files.",
        PATH,
        default_text="{[logging] base_log_folder}/watchdog_hook",
        example="/opt/airflow/logs/watchdog_hook",
    )
    incident_retention: int = knob(50, "Incidents of this host that are kept.", count(least=1))
    incident_max_mb: float = knob(
        200.0,
        "Size of all incidents that are kept.",
        number("a number of megabytes", above=0),
        unit="MB",
    )

    def __post_init__(self) -> None:
        values = {name: checked(name, getattr(self, name)) for name in KNOBS}
        chosen = {name for name, one in KNOBS.items() if values[name] != one.default}
        moved, quarrels = _in_order(values, chosen)
        if quarrels:
            raise quarrels[0]
        for name in KNOBS:
            object.__setattr__(self, name, moved[name])

    @property
    def may_interrupt(self) -> bool:
        """Tell whether anything may be interrupted, put back or refused at all."""
        return bool(self.interrupt)

    @classmethod
    def settle(cls, chosen: Mapping[str, Any]) -> tuple[Config, list[str]]:
        """
        Return the configuration nearest to these options, and a sentence for each number that moved.

        Options that are not in `chosen` make way for those that are. Of two chosen ones that exclude
        each other, `sample_after` and `dump_after` both fall back to their defaults, and
        `terminate_after` to never. A value that an option cannot have raises ConfigError.
        """
        asked = {name: one.default for name, one in KNOBS.items()}
        asked.update({name: checked(name, value) for name, value in chosen.items()})
        moved, quarrels = _in_order(asked, set(chosen))
        sentences = [str(quarrel) for quarrel in quarrels]
        for name, stays in ORDER.items():
            if moved[name] != asked[name]:
                sentences.append(
                    f"{name} is {moved[name]:g} s instead of {asked[name]:g}: it stays {stays}"
                )
        return cls(**moved), sentences

    @classmethod
    def from_text(cls, texts: Mapping[str, str]) -> Config:
        """Return the configuration that `as_text` wrote. Raises ConfigError."""
        return cls(**{name: parse(name, text) for name, text in texts.items()})

    def as_text(self) -> dict[str, str]:
        """Return every option as airflow.cfg would hold it."""
        return {name: one.kind.write(getattr(self, name)) for name, one in KNOBS.items()}


KNOBS: dict[str, Knob] = {
    each.name: Knob(each.name, each.default, *each.metadata["knob"])
    for each in dataclasses.fields(Config)
}

# Where each number of the ladder belongs, as a sentence says it.
ORDER = {
    "sample_after": "below dump_after",
    "dump_after": "between sample_after and terminate_after",
    "interrupt_after": "below terminate_after",
    "terminate_after": "0, which is never, or above the other steps",
}


def parse(name: str, text: str) -> Any:
    """Return the value that this text means for an option. Raises ConfigError."""
    kind = KNOBS[name].kind
    try:
        return kind.check(kind.read(text))
    except (ValueError, TypeError):
        raise ConfigError(name, text, kind.must_be) from None


def checked(name: str, value: Any) -> Any:
    """Return a value in its option's own type; a text is parsed. Raises ConfigError."""
    if isinstance(value, str):
        return parse(name, value)
    kind = KNOBS[name].kind
    try:
        return kind.check(value)
    except (ValueError, TypeError):
        raise ConfigError(name, value, kind.must_be) from None


def _in_order(
    values: Mapping[str, Any], chosen: Collection[str]
) -> tuple[dict[str, Any], list[ConfigError]]:
    """Return the values with the ladder's steps in order, and what was chosen against what."""
    result = dict(values)
    fixed = set(chosen) & ORDER.keys()
    quarrels = []
    if {"sample_after", "dump_after"} <= fixed and result["sample_after"] >= result["dump_after"]:
        must_be = f"below dump_after ({result['dump_after']:g})"
        quarrels.append(ConfigError("sample_after", result["sample_after"], must_be))
        for name in ("sample_after", "dump_after"):
            result[name] = KNOBS[name].default
            fixed.discard(name)
    end = result["terminate_after"]
    blocking = [
        name
        for name in ORDER
        if name in fixed and name != "terminate_after" and result[name] >= end
    ]
    if end and blocking:
        must_be = f"0 or above {blocking[-1]} ({result[blocking[-1]]:g})"
        quarrels.append(ConfigError("terminate_after", end, must_be))
        end = result["terminate_after"] = 0.0
    if not end:
        end = math.inf
    if "dump_after" not in fixed:
        low = result["sample_after"] if "sample_after" in fixed else 0.0
        if result["dump_after"] <= low:
            result["dump_after"] = 2 * low
        if result["dump_after"] >= end:
            result["dump_after"] = (low + end) / 2
    if "sample_after" not in fixed and result["sample_after"] >= result["dump_after"]:
        result["sample_after"] = result["dump_after"] / 2
    if "interrupt_after" not in fixed and result["interrupt_after"] >= end:
        result["interrupt_after"] = end / 2
    return result, quarrels

"""How values become text: one line of logfmt, a time, a frame, and words that cannot break a line."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watchdog_hook.core.model import Frame

WIDTH = 300  # characters of a line, or of one logfmt value
SENTENCE = 2000  # characters of a sentence
_FIRST_KEYS = (
    "event",
    "incident",
    "silent_s",
    "phase",
    "call",
    "peer",
    "age_s",
    "lever",
    "action",
    "outcome",
    "ti",
)
_LIBRARY = re.compile(r"^.*/(?:site-packages|dist-packages|python\d(?:\.\d+)?)/")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def log_line(event: str, **fields: object) -> str:
    """
    Return `watchdog_hook: event=… key=value …`, one line of logfmt in the contract's order.

    None is left out, a number has one decimal at most, and no value can break the line or end its quotes.
    """
    given = {"event": event, **fields}
    order = [key for key in _FIRST_KEYS if key in given]
    order += [key for key in given if key not in _FIRST_KEYS]
    pairs = (f"{key}={_value(given[key])}" for key in order if given[key] is not None)
    return "watchdog_hook: " + " ".join(pairs)


def clean(text: object, width: int = WIDTH) -> str:
    """Return text that stays on one line of at most `width` characters, without control characters."""
    flat = str(text)
    if not flat.isprintable():
        flat = "".join(char if char.isprintable() else " " for char in flat[: width + 1])
    return flat if len(flat) <= width else flat[: width - 3] + "..."


def utc(seconds: float | None) -> str | None:
    """Return a wall clock time in RFC 3339, UTC, to the millisecond; None for what is no time."""
    if seconds is None:
        return None
    try:
        moment = _EPOCH + timedelta(milliseconds=round(seconds * 1000))
    except (OverflowError, ValueError):
        return None
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def from_utc(text: object) -> float | None:
    """Return the seconds since the epoch for an RFC 3339 time; None for what is none."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text.removesuffix("Z"))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        return round((moment - _EPOCH) / timedelta(seconds=1), 3)
    except (OverflowError, ValueError):
        return None


def frame_text(frame: Frame) -> str:
    """Return a frame as `function (file:line)`."""
    place = f" ({short_path(frame.file)}:{frame.line})" if frame.file else ""
    return clean(frame.function + place)


def short_path(path: str) -> str:
    """Return a path from its package on; a long one of the user's keeps its end."""
    short = _LIBRARY.sub("", path)
    return short if len(short) <= 120 else "..." + short[-117:]


def plain_number(number: float) -> str:
    """Return a number with one decimal at most."""
    if not math.isfinite(number):
        return str(number)
    return f"{number:.1f}".removesuffix(".0")


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return plain_number(value)
    text = clean(value)
    if text and not any(char in text for char in ' "='):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

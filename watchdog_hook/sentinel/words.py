"""Text as the watchdog's own log has it: `core.text` in the few lines that the sentinel needs of it."""

from __future__ import annotations

import time

WIDTH = 300  # characters of one value
SENTENCE = 2000
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


def log_line(event: str, **fields: object) -> str:
    """Return one line of logfmt, the same that `core.text.log_line` makes of these."""
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


def utc(seconds: float) -> str:
    """Return a wall clock time in RFC 3339, UTC, to the millisecond."""
    thousandths = round(seconds * 1000)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(thousandths // 1000))
    return f"{moment}.{thousandths % 1000:03d}Z"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        plain = str(value) if value - value != 0 else f"{value:.1f}"  # not finite, or a number
        return plain.removesuffix(".0")
    text = clean(value)
    if text and not any(char in text for char in ' "='):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

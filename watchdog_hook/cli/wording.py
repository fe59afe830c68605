"""Times, sizes and remedies as people read them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watchdog_hook.core.model import Incident

# "[section] option = value", and what may be said after it.
_SETTING = re.compile(r"(\[\w+\] \w+ = (?:\{.*\}|\S+))(.*)")


def when(seconds: float | None, form: str = "%Y-%m-%d %H:%M:%SZ") -> str:
    """Return a wall clock time, UTC; a question mark for what is none."""
    if not seconds:
        return "?"
    try:
        return f"{datetime.fromtimestamp(seconds, timezone.utc):{form}}"
    except (OverflowError, ValueError, OSError):
        return "?"


def ending(incident: Incident) -> str:
    """Return when a stall ended, or with what."""
    if incident.process_ended:
        return f"with its process, which wrote last at {when(incident.ended)}"
    return when(incident.ended) if incident.ended else "not seen"


def duration(seconds: float | None) -> str:
    """Return a duration with the unit that a person would say it in; a question mark for none."""
    if seconds is None or not math.isfinite(seconds) or abs(seconds) > 1e10:
        return "?"
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms" if seconds else "0 s"
    if seconds < 9.95:
        return f"{seconds:.1f} s".replace(".0 ", " ")
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s".replace(" 00 s", "")
    if seconds < 48 * 3600:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} min"
    return f"{seconds / 86400:.0f} d"


def remedy(text: str) -> Iterator[tuple[str, str]]:
    """Return each line of a remedy as the setting that it begins with, and what it says."""
    for line in text.splitlines():
        setting = _SETTING.fullmatch(line.strip())
        yield (setting[1], setting[2].strip()) if setting else ("", line.strip())


def size(value: float | None) -> str:
    """Return a number of bytes with its unit."""
    if value is None:
        return "?"
    amount = float(max(min(value, 1 << 90), -1 << 90))
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(amount) < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if amount >= 99.5 or unit == "bytes" else f"{amount:.1f} {unit}"


def percent(share: float) -> str:
    """Return a share, 0 to 1, as a percentage; what is there at all is never called 0."""
    return "<1 %" if 0 < share < 0.005 else f"{share * 100:.0f} %"


def number(value: float | None, digits: int = 2) -> str:
    """Return a number with so many digits behind the point at most."""
    if value is None:
        return "?"
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text

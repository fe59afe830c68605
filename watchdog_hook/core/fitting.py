"""Lines within a number of bytes: what has to go goes, and a line says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RECORD_LIMIT = 64 * 1024  # bytes of one log record


def size(lines: Iterable[str]) -> int:
    """Return the bytes of these lines, each with its end."""
    return sum(len(line.encode("utf-8", "replace")) + 1 for line in lines)


def drop_end(part: list[str], over: int) -> None:
    """Take lines off the end until `over` bytes are gone; the heading stays, a note says how many went."""
    before = len(part)
    over += len(_dropped(before)) + 1
    while over > 0 and len(part) > 1:
        over -= len(part.pop().encode("utf-8", "replace")) + 1
    if len(part) < before:
        part.append(_dropped(before - len(part)))


def _dropped(count: int) -> str:
    return f"    ... {count} more lines"


def cut(lines: Sequence[str], limit: int | None) -> list[str]:
    """Return the first of these lines, `limit` bytes of them with a note that some went; all of them for None."""
    if limit is None or size(lines) <= limit:
        return list(lines)
    note = " ... cut to fit; the files have all of it."
    room, kept = limit - len(note) - 1, []
    for line in lines:
        room -= len(line.encode("utf-8", "replace")) + 1
        if room < 0:
            break
        kept.append(line)
    return [*kept, note]

"""One incident while it lasts: what is remembered of it from look to look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from watchdog_hook.core.model import Snapshot

if TYPE_CHECKING:
    from watchdog_hook.core.model import Incident

NOTHING = Snapshot(())


@dataclass
class Episode:
    """One incident while it lasts: a silence of the loop, or one stuck call of another thread."""

    incident: Incident
    path: str
    thread: int
    dumped: bool = False
    dumped_at: float = 0.0  # seconds of silence at the last dump
    dumped_stack: int = 0  # hash of the stack then
    serial: int = 0  # of the call its thread was in then
    snapshot: Snapshot = NOTHING  # of the last dump
    since: tuple[float, float] | None = None  # processor seconds and monotonic time when it began
    late_s: float | None = None  # the watchdog's worst lateness since
    gil_s: float | None = (
        None  # for how long it waited for the interpreter in that time, in seconds
    )
    of_loop: bool = False  # the loop's own: what is known of it has to outlive this process
    ended_by: str | None = None  # as core.observed.Observed has it
    last_words: tuple[str, dict[str, Any]] | None = None  # an event, and what else was said with it

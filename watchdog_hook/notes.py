"""Events of the watched threads on their way to the log: appended there, said here, repeats folded."""

from __future__ import annotations

from collections import deque
from typing import Any

from watchdog_hook.core import report

LEVELS = {
    "breaker_open": "ERROR",
    "fenced": "ERROR",
    "part_off": "ERROR",
    "armed": "INFO",
    "disarmed": "INFO",
}
# Said once per job or call and loop: a silent server would fill the log with them.
FOLDED = frozenset({"requeued", "dropped", "absorbed", "created_already"})
FORGET_AFTER = 180.0  # seconds without a repeat after which an event counts as new


class Notes:
    """
    A queue that costs its writers one append.

    The same event about the same thing in one incident is said the first time, and then at 2, 4, 8 …
    repeats, with its count.
    """

    def __init__(self) -> None:
        self._queue: deque[tuple[str, dict[str, Any]]] = deque(maxlen=10_000)
        self._seen: dict[tuple[str, ...], tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, event: str, fields: dict[str, Any]) -> None:
        """Queue an event; from any thread."""
        self._queue.append((event, fields))

    def drain(self, now: float) -> list[tuple[str, str]]:
        """Return (level, line) of what is to be said now."""
        lines = []
        while self._queue:
            event, fields = self._queue.popleft()
            key = (
                event,
                *(str(fields.get(name)) for name in ("incident", "call", "peer", "ti", "outcome")),
            )
            count, last = self._seen.get(key, (0, now))
            count = 1 if now - last > FORGET_AFTER else count + 1
            self._seen[key] = (count, now)
            if event not in FOLDED or count & (count - 1) == 0:  # 1, 2, 4, 8 …
                if count > 1:
                    fields = {**fields, "count": count}
                lines.append((LEVELS.get(event, "WARNING"), report.log_line(event, **fields)))
        if len(self._seen) > 1000:
            self._seen = {
                key: seen for key, seen in self._seen.items() if now - seen[1] <= FORGET_AFTER
            }
        return lines


SLOW_EVERY = 600.0  # seconds between two lines on a slow phase


class SlowPhases:
    """Says of each phase once in ten minutes that it is slow, with how often and the worst since."""

    def __init__(self) -> None:
        self._phases: dict[
            str, tuple[float, int, float]
        ] = {}  # when said, times since, worst since

    def began(self, phase: str, silence: float, now: float) -> dict[str, Any] | None:
        """Return what to say now about a phase that turned slow; None: it was said lately."""
        said, times, worst = self._phases.get(phase, (-SLOW_EVERY, 0, 0.0))
        if now - said < SLOW_EVERY:
            self._phases[phase] = (said, times + 1, max(worst, silence))
            return None
        self._phases[phase] = (now, 0, 0.0)
        return {
            "phase": phase,
            "times_before": times or None,
            "worst_s": worst if times else None,
        }

    def ended(self, phase: str, lasted: float) -> None:
        """Remember how long a slow iteration took in the end."""
        said, times, worst = self._phases.get(phase, (-SLOW_EVERY, 0, 0.0))
        self._phases[phase] = (said, times, max(worst, lasted))

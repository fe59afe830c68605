"""The real evidence and deeds, with the time at which the watchdog calls them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from watchdog_hook.actions.deeds import Deeds
from watchdog_hook.evidence.here import Evidence


class TimedEvidence(Evidence):
    """Knows when the stacks for a dump were asked for."""

    gathered = 0.0

    def stacks(self, first: int | None = None) -> Any:
        """Return the stack of every thread."""
        self.gathered = time.monotonic()
        return super().stacks(first)


class TimedDeeds(Deeds):
    """Tells when a dump is through the log, and knows when a call was decided to be ended."""

    decided = 0.0
    on_dumped: Callable[[float], None] | None = None

    def levers(self, flight: Any, reading: Any) -> Any:
        """Return the levers: the first thing that is asked once the decision is made."""
        self.decided = time.monotonic()
        return super().levers(flight, reading)

    def say(self, level: str, text: str, *, wait: bool = False) -> None:
        """Log a record."""
        super().say(level, text, wait=wait)
        first = text.partition("\n")[0]
        if self.on_dumped is not None and "event=dump " in first and "repeated" not in first:
            self.on_dumped(time.monotonic())

"""Why the watchdog's own wait ended late: the process did not run, or it ran and only we did not."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watchdog_hook.ports import Evidence

PRESSURE_EVERY = 10  # looks
BUSY = 0.8  # of a late wait spent on the processor: the process ran, only not us


class Lateness:
    """Measures each wait of the watchdog's thread, and remembers the pauses of the process."""

    def __init__(self, evidence: Evidence, tolerance: float) -> None:
        self._evidence = evidence
        self._tolerance = tolerance
        self._pauses: deque[tuple[float, float]] = deque(maxlen=32)  # their ends and lengths
        self._pressure = evidence.pressure()
        self._pressure_in = 0  # looks until it is read
        self._cpu = evidence.cpu_seconds()

    def begin(self, now: float) -> None:
        """Measure from here: the loop has beaten."""
        self.since = self._cpu, now  # processor seconds and monotonic time when it was seen to
        self.worst = 0.0  # in this iteration, in seconds
        self.gil = 0.0  # for how many of them, in all, we waited for the interpreter

    def judge(self, late: float, woken: int) -> tuple[float, str | None]:
        """
        Take a wait that ended so much later than asked, in seconds, in which our thread woke so often in vain.

        Return for how much of that the process did not run: none of it if only we did not, and then why.
        """
        self.worst = max(self.worst, late)
        before, self._cpu = self._cpu, self._evidence.cpu_seconds()
        if late <= self._tolerance:
            return late, None
        busy = self._cpu - before
        if self._evidence.waited_for_interpreter(woken, late):
            self.gil += late
            why = "one thread kept the interpreter (the GIL) to itself"
        elif busy >= BUSY * late:
            why = "the other threads had the processor"
        else:
            return late, None
        used = f"{busy:.1f} s of processor time were used meanwhile, and no stack could be taken"
        return 0.0, f"{why}; {used}"

    def paused(self, now: float, seconds: float) -> str:
        """Remember that the process did not run for so long until now; return what kept it, in words."""
        self._pauses.append((now, seconds))
        before, self._pressure = self._pressure, self._evidence.pressure()
        return self._evidence.pause_cause(before, self._pressure, seconds)

    def paused_since(self, moment: float) -> float:
        """Return for how many seconds since this moment the process did not run."""
        return sum(min(length, end - moment) for end, length in self._pauses if end > moment)

    def remember_pressure(self) -> None:
        """Read it now and then, for the next pause: at each look it was most of what a healthy one cost."""
        self._pressure_in -= 1
        if self._pressure_in < 0:
            self._pressure, self._pressure_in = self._evidence.pressure(), PRESSURE_EVERY - 1

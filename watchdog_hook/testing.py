"""For tests, ours and yours: time that moves only when told to."""

from __future__ import annotations

from collections.abc import Callable


class ManualClock:
    """A clock whose `wait` advances it at once. `jump` is time that passes while nobody runs."""

    def __init__(self, now: float = 1000.0, wall: float = 1_700_000_000.0) -> None:
        self._now = now
        self._wall = wall
        self.stopped = False
        self.on_wait: Callable[[float], None] | None = None

    def now(self) -> float:
        """Return the seconds shown."""
        return self._now

    def wall(self) -> float:
        """Return seconds since the epoch, moving along."""
        return self._wall + self._now

    def wait(self, seconds: float) -> bool:
        """Advance by these seconds; return whether `stop` was called."""
        self._now += seconds
        if self.on_wait is not None:
            self.on_wait(seconds)
        return self.stopped

    def jump(self, seconds: float) -> None:
        """Advance without anyone having waited for it: the process was stopped."""
        self._now += seconds

    def stop(self) -> None:
        """Make every wait return True."""
        self.stopped = True

"""May this API server be called now? A circuit breaker as a frozen value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

LONGEST = 300.0  # seconds a breaker stays open at most before it is probed again
PROBE_EVERY = 5.0  # seconds between two probes of an open breaker
TRIAL_LIMIT = 10.0  # seconds of silence allowed to the first call after a probe was answered
TRIAL_LASTS = 60.0  # seconds without a call after which the probe's answer is good enough


class Gate(Enum):
    """Closed: calls go through. Open: none does. Trial: one does, with a short limit."""

    CLOSED = "closed"
    OPEN = "open"
    TRIAL = "trial"


@dataclass(frozen=True, slots=True)
class Breaker:
    """The state for one API server. Every method returns the next state; times are monotonic seconds."""

    after: int  # failures in a row that open it
    open_for: float  # seconds, the first time
    gate: Gate = Gate.CLOSED
    failures: int = 0
    length: float = 0.0  # of the present opening
    since: float = 0.0  # of the present opening
    probe_at: float = 0.0

    def failed(self, now: float) -> Breaker:
        """A guarded call was interrupted or its connection broke."""
        failures = self.failures + 1
        if self.gate is Gate.TRIAL:
            return self._open(now, min(2 * self.length, LONGEST), failures)
        if self.gate is Gate.CLOSED and failures >= self.after:
            return self._open(now, min(self.open_for, LONGEST), failures)
        return replace(self, failures=failures)

    def answered(self) -> Breaker:
        """A call got a real answer, whatever its status."""
        if self.gate is Gate.CLOSED and not self.failures:
            return self
        return Breaker(self.after, self.open_for)

    def probed(self, answered: bool, now: float) -> Breaker:
        """The probe of an open breaker came back: one call may try, or the next probe waits."""
        if self.gate is not Gate.OPEN:
            return self
        if answered:
            return replace(self, gate=Gate.TRIAL, probe_at=now)
        return replace(self, probe_at=now + PROBE_EVERY)

    def aged(self, now: float) -> Breaker:
        """Time has passed: a trial that nobody made use of ends well."""
        if self.gate is Gate.TRIAL and now - self.probe_at > TRIAL_LASTS:
            return Breaker(self.after, self.open_for)
        return self

    def probe_due(self, now: float) -> bool:
        """Tell whether it is time to ask the server whether it answers again."""
        return self.gate is Gate.OPEN and now >= self.probe_at

    @property
    def allows(self) -> bool:
        """Whether a guarded call may be made now."""
        return self.gate is not Gate.OPEN

    @property
    def limit(self) -> float | None:
        """Seconds of silence allowed to a call made now; None: the setting."""
        return TRIAL_LIMIT if self.gate is Gate.TRIAL else None

    def _open(self, now: float, length: float, failures: int) -> Breaker:
        return replace(
            self,
            gate=Gate.OPEN,
            failures=failures,
            length=length,
            since=now,
            probe_at=now + length,
        )

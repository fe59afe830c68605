"""What the server can do wrong, to which requests, and how often."""

from __future__ import annotations

import enum
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


class Fault(enum.Enum):
    """One way not to answer."""

    ACCEPT = "accept the connection and say nothing"
    HANDSHAKE = "finish the TLS handshake, read nothing and say nothing"
    REQUEST = "read the request and say nothing"
    LATE = "read the request, say nothing, and apply it after the fault has ended"
    APPLIED = "apply the request and say nothing"
    HALF = "apply it, send half an answer and fall silent"
    TRICKLE = "apply it and send the answer byte by byte"
    SLOW = "answer completely, but late"
    TOO_MANY = "429 with Retry-After"
    STATUS = "answer with an error, whose number and words are the test's, and apply nothing"
    CUT = "apply it, send half an answer in chunks and close the connection"
    RESET = "reset the connection after reading the request"
    CLOSE = "close the connection after reading the request"

    @property
    def is_of_connection(self) -> bool:
        """It comes before any request is read, so it cannot choose between requests."""
        return self in (Fault.ACCEPT, Fault.HANDSHAKE)

    @property
    def is_silent(self) -> bool:
        """A client without a timeout waits for as long as the fault is set."""
        return self.is_of_connection or self in (
            Fault.REQUEST,
            Fault.LATE,
            Fault.APPLIED,
            Fault.HALF,
        )


@dataclass(eq=False)
class Trap:
    """A fault that has been set. `taken` counts the requests it was given, `hits` who is in it."""

    fault: Fault
    on: frozenset[str]
    times: int | None = None
    seconds: float = 1.0
    applied: bool = False
    namespace: str | None = None
    pod: str | None = None
    status: int = 500
    message: str = "of the test"
    taken: int = 0
    hits: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def wait(self, hits: int = 1, timeout: float = 60) -> None:
        """Return once that many clients have met the fault; AssertionError after `timeout`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.hits >= hits, timeout):
                raise AssertionError(
                    f"{self.fault.name} on {'/'.join(sorted(self.on))} was met {self.hits} times, "
                    f"not {hits}, in {timeout:.0f} s"
                )

    def clear(self) -> None:
        """End it: who hangs in it loses the connection."""
        self.over.set()

    def means(self, operation: str, namespace: str | None, pod: str | None) -> bool:
        """Tell whether this request is one it was set for."""
        return (
            not self.over.is_set()
            and (operation in self.on or "any" in self.on)
            and self.namespace in (None, namespace)
            and self.pod in (None, pod)
        )

    def hit(self) -> None:
        """Count one client that is now in it."""
        with self._changed:
            self.hits += 1
            self._changed.notify_all()


class Traps:
    """Every fault that is set, first set first served."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._traps: list[Trap] = []

    def set(self, trap: Trap) -> None:
        """Arm one more."""
        with self._lock:
            self._traps.append(trap)

    def clear(self) -> None:
        """End all."""
        with self._lock:
            traps, self._traps = self._traps, []
        for trap in traps:
            trap.clear()

    def of_connection(self) -> Trap | None:
        """Return the fault that silences connections as such, if one is set."""
        with self._lock:
            set_now = (trap for trap in self._traps if not trap.over.is_set())
            return next((trap for trap in set_now if trap.fault.is_of_connection), None)

    def of_stream(self, namespace: str | None) -> Trap | None:
        """Return the fault in which an open watch falls silent as well, if one is set."""
        with self._lock:
            for trap in self._traps:
                silent = trap.fault.is_silent and not trap.fault.is_of_connection
                if silent and trap.times is None and trap.means("watch", namespace, None):
                    return trap
        return None

    def take(self, operation: str, namespace: str | None, pod: str | None) -> Trap | None:
        """Return the fault for this request, using up one of its `times`."""
        with self._lock:
            for trap in self._traps:
                if trap.fault.is_of_connection or not trap.means(operation, namespace, pod):
                    continue
                if trap.times is None or trap.taken < trap.times:
                    trap.taken += 1
                    return trap
        return None


def operations(on: str | Collection[str]) -> frozenset[str]:
    """Check the names of operations, and return them as a set."""
    names = frozenset([on] if isinstance(on, str) else on)
    if unknown := names - KNOWN:
        raise ValueError(
            f"no such operation: {', '.join(sorted(unknown))}; there are {sorted(KNOWN)}"
        )
    return names


KNOWN = frozenset(
    ["any", "create", "list", "get", "patch", "delete", "watch", "version", "discovery", "other"]
)

"""All evidence of this process behind one object: what the watchdog is given, and what a test replaces."""

from __future__ import annotations

import os
import platform
import sys
from typing import TYPE_CHECKING

from watchdog_hook.evidence import process, sockets, stacks, threads

if TYPE_CHECKING:
    from watchdog_hook.core.model import Frame, ThreadReading, ThreadStack
    from watchdog_hook.evidence.process import Pressure


class Evidence:
    """Reads this process. No method raises; what cannot be read is None and listed by `unavailable`."""

    def __init__(self) -> None:
        self._missed: dict[str, str] = {}

    def stacks(self, first: int | None = None) -> tuple[ThreadStack, ...]:
        """Return the stack of every thread but the caller's, that of thread `first` in front."""
        return stacks.capture(first)

    def frames(self, ident: int) -> tuple[Frame, ...]:
        """Return the stack of one thread, innermost frame first."""
        return stacks.stack_of(ident)

    def thread(self, ident: int, native_id: int | None = None) -> ThreadReading | None:
        """Read where a thread stands, and which socket it waits on."""
        return threads.read_thread(ident, native_id, self._missed)

    def received_ago(self, fd: int) -> float | None:
        """Return the seconds since the last byte came in on a TCP connection."""
        return sockets.received_ago(fd)

    def debugger(self) -> bool:
        """Say whether a debugger holds, traces or stops this process."""
        return process.debugger_attached()

    def cpu_seconds(self) -> float:
        """Return the processor time of this process so far."""
        return process.cpu_seconds()

    def pressure(self) -> Pressure:
        """Read the counters that explain a pause: one reading before it, one after it."""
        return process.pressure(self._missed)

    def pause_cause(self, before: Pressure, after: Pressure, seconds: float) -> str:
        """Say what a pause of so many seconds came from; `stopped` when nothing explains it."""
        return process.pause_cause(before, after, seconds)

    def process_started(self) -> float | None:
        """Return when this process began, in seconds since the epoch."""
        return process.started(self._missed)

    def versions(self) -> dict[str, str]:
        """Return what runs here: Python, this package and the platform. Hosts add their own."""
        # Looked up, not imported: the package's front door leads to every floor.
        package = sys.modules.get("watchdog_hook")
        here = os.uname()
        return {
            "python": platform.python_version(),
            "watchdog_hook": str(getattr(package, "__version__", "?")),
            "platform": f"{here.sysname} {here.release} {here.machine}",
        }

    def unavailable(self) -> tuple[tuple[str, str], ...]:
        """Return what could not be read so far, and why."""
        return tuple(sorted(dict(self._missed).items()))

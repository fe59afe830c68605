"""All evidence of this process behind one object: what the watchdog is given, and what a test replaces."""

from __future__ import annotations

import collections
import os
import platform
import sys
import time
from typing import TYPE_CHECKING

from watchdog_hook.core.observed import Observed
from watchdog_hook.evidence import (
    family,
    kernel,
    limits,
    locks,
    process,
    stacks,
    tasks,
    threads,
)
from watchdog_hook.evidence.limited import Limited, short_turns

if TYPE_CHECKING:
    from watchdog_hook.core.model import Frame, ThreadReading, ThreadStack
    from watchdog_hook.core.observed import ThreadInKernel
    from watchdog_hook.evidence.process import Pressure


class Evidence:
    """
    Reads this process. No method raises; what cannot be read is None and listed by `unavailable`.

    Make it when the watchdog is armed: psutil is imported here, and the clocks are compared with these.
    """

    def __init__(self) -> None:
        self._missed: dict[str, str] = {}
        self._limited = Limited(self._missed)
        self._psutil = limits.load_psutil()
        self._armed = limits.Clocks.read()
        # When, and for how long its quota had stopped this process by then.
        self._throttled: collections.deque[tuple[float, float]] = collections.deque(maxlen=64)

    def forget(self) -> None:
        """In a forked child: forget the collectors that the parent lost. Takes no lock."""
        self._limited.reset_after_fork()

    def stacks(self, first: int | None = None) -> tuple[ThreadStack, ...]:
        """Return the stack of every thread but the caller's, that of thread `first` in front."""
        return stacks.capture(first)

    def frames(self, ident: int) -> tuple[Frame, ...]:
        """Return the stack of one thread, innermost frame first."""
        return stacks.stack_of(ident)

    def thread(self, ident: int, native_id: int | None = None) -> ThreadReading | None:
        """Read where a thread stands, and which socket it waits on."""
        return threads.read_thread(ident, native_id, self._missed)

    def debugger(self) -> bool:
        """Say whether a debugger holds, traces or stops this process."""
        return process.debugger_attached()

    def cpu_seconds(self) -> float:
        """Return the processor time of this process so far."""
        return process.cpu_seconds()

    def wakes(self) -> int:
        """Return how often the calling thread has slept so far."""
        return process.wakes()

    def waited_for_interpreter(self, woken: int, seconds: float) -> bool:
        """Tell whether the calling thread spent these seconds waiting for the GIL, by how often it woke."""
        return process.waited_for_interpreter(woken, seconds)

    def pressure(self) -> Pressure:
        """Read the counters that explain a pause: one reading before it, one after it."""
        found = process.pressure(self._missed)
        if found.throttled_s is not None:
            self._throttled.append((time.monotonic(), found.throttled_s))
        return found

    def pause_cause(self, before: Pressure, after: Pressure, seconds: float) -> str:
        """Say what a pause of so many seconds came from; `stopped` when nothing explains it."""
        return process.pause_cause(before, after, seconds)

    def process_started(self) -> float | None:
        """Return when this process began, in seconds since the epoch."""
        return process.started(self._psutil, self._missed)

    def is_gone(self, pid: int, moment: float | None) -> bool:
        """Tell whether the process that had this number at that moment, by the wall clock, is no more."""
        return process.is_gone(self._psutil, pid, moment)

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

    def in_kernel(self, native_id: int | None) -> ThreadInKernel | None:
        """Return what one thread waits on in the kernel; None where there is no such thread."""
        return _in_kernel(native_id, self._missed, {})

    def observe(
        self,
        native_id: int | None,
        *,
        since: tuple[float, float] | None = None,
        late_s: float | None = None,
    ) -> Observed:
        """
        Return what can be seen of a thread in the kernel, of this process, its children and its locks.

        `since`: processor seconds and monotonic time when the silence began. `late_s`: the watchdog's worst
        lateness in it. Each part has a second; one that does not answer is missing, and holds up no other.
        """
        before = limits.Since(self._armed, since, self._throttled_by(since), late_s)
        with short_turns():
            return self._observe(native_id, before)

    def _observe(self, native_id: int | None, before: limits.Since) -> Observed:
        missed, run = self._missed, self._limited.run
        found, more = run("children", lambda: family.children(missed)) or ((), 0)
        roles = {child.pid: child.name for child in found}
        return Observed(
            kernel=run("kernel", lambda: _in_kernel(native_id, missed, roles)),
            process=run(
                "process",
                lambda: limits.process_facts(self._psutil, missed, before, found, more),
            ),
            locks=run("locks", locks.waits) or (),
            tasks=run("tasks", lambda: tasks.capture(native_id)) or (),
        )

    def _throttled_by(self, since: tuple[float, float] | None) -> float | None:
        """Return the last count of throttling before a silence began; without one, the first there is."""
        readings = tuple(self._throttled)
        earlier = [count for at, count in readings if since is None or at <= since[1]]
        return earlier[-1] if earlier else readings[0][1] if readings else None

    def unavailable(self) -> tuple[tuple[str, str], ...]:
        """Return what could not be read so far, and why."""
        return tuple(sorted(dict(self._missed).items()))


def _in_kernel(
    native_id: int | None, missed: dict[str, str], children: dict[int, str]
) -> ThreadInKernel | None:
    if native_id is None:
        return None
    return kernel.thread_in_kernel(native_id, missed, children=children)

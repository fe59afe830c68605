"""What the watchdog is given: evidence to read, actions to take, a host to serve, and time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchdog_hook.config import Config
    from watchdog_hook.core.model import Frame, Incident, InFlight, ThreadReading, ThreadStack
    from watchdog_hook.core.observed import (
        DatabaseFacts,
        Descriptor,
        ExecutorFacts,
        Observed,
        ThreadInKernel,
    )


class Evidence(Protocol):
    """Reads this process and changes nothing. Its methods never raise."""

    def stacks(self, first: int | None) -> tuple[ThreadStack, ...]: ...
    def frames(self, ident: int) -> tuple[Frame, ...]: ...
    def thread(self, ident: int, native_id: int | None) -> ThreadReading | None: ...
    def debugger(self) -> bool: ...
    def cpu_seconds(self) -> float: ...
    def wakes(self) -> int: ...
    def waited_for_interpreter(self, woken: int, seconds: float) -> bool: ...
    def pressure(self) -> Any: ...
    def pause_cause(self, before: Any, after: Any, seconds: float) -> str: ...
    def in_kernel(self, native_id: int | None) -> ThreadInKernel | None: ...
    def observe(
        self,
        native_id: int | None,
        *,
        since: tuple[float, float] | None,
        late_s: float | None,
    ) -> Observed: ...
    def forget(self) -> None: ...
    def unavailable(self) -> tuple[tuple[str, str], ...]: ...
    def process_started(self) -> float | None: ...
    def is_gone(self, pid: int, moment: float | None) -> bool: ...
    def versions(self) -> dict[str, str]: ...


class Actions(Protocol):
    """Changes the process, or leaves something behind. What fails is said by the actions themselves."""

    def arm(self, current: Callable[[int], InFlight | None]) -> str | None: ...
    def release(self) -> None: ...
    def disarm(self) -> None: ...
    def forget(self) -> None: ...
    def new_incident(self, wall: float) -> tuple[str, str]: ...
    def record(self, incident: Incident, text: str) -> object: ...
    def update(self, incident: Incident, delta: str = "") -> None: ...
    def leave(self, text: str | None) -> None: ...
    def look_back(
        self, note: Callable[..., None], is_gone: Callable[[int, float | None], bool]
    ) -> None: ...
    def say(self, level: str, text: str, *, wait: bool = False) -> None: ...
    def urgent(self, line: str) -> None: ...
    def measure(self, send: Callable[[], object]) -> None: ...
    def settle(self) -> None: ...
    def levers(self, flight: InFlight, reading: ThreadReading) -> tuple[str, ...]: ...
    def fire(
        self, lever: str, flight: InFlight, reading: ThreadReading, incident: str | None, age: float
    ) -> str: ...
    def terminate(self) -> None: ...
    def working(self) -> bool: ...


class Host:
    """What only a host knows. This one knows nothing; Airflow's is in integrations."""

    job_id: str | None = None
    # What is watched, where that is not the host's main loop: "dag_processor", "triggerer".
    component: str | None = None

    def versions(self) -> dict[str, str]:
        """Return names and versions of what runs here."""
        return {}

    def mask(self, text: str) -> str:
        """Return a text from outside without the secrets the host knows."""
        return text

    def waiting(self) -> int | None:
        """Return how many task instances wait, without a call to anybody; None: not known."""
        return None

    def executors(self) -> tuple[ExecutorFacts, ...]:
        """Return the executors in numbers, without a call to anybody."""
        return ()

    def named(self, descriptor: Descriptor) -> str | None:
        """Return who is at the other end of a connection, in words; None where the host does not know it."""

    def database(self, descriptor: Descriptor) -> DatabaseFacts | None:
        """
        Ask the host's database about the connection that the loop waits on. Takes some seconds at most.

        None where that connection does not lead to the host's database.
        """

    def gauge(self, name: str, value: float) -> None:
        """Send a gauge."""

    def incr(self, name: str, tags: dict[str, str] | None = None) -> None:
        """Count one."""

    def timing(self, name: str, seconds: float) -> None:
        """Send a duration."""

    def breaker_open(self) -> bool:
        """Tell whether some server is being left alone."""
        return False

    def working(self) -> bool:
        """Tell whether something of the host's part is under way that a fork should wait for."""
        return False

    def tick(self, now: float) -> None:
        """Do what is due from the watchdog's thread; called at every look."""


class SystemClock:
    """Real time. `stop` ends the wait."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    def __init__(self) -> None:
        # Held until stopped. An Event does the same with a new lock for each wait, at several times the cost.
        self._running = threading.Lock()
        self._running.acquire()
        self._stopped = False

    def wait(self, seconds: float) -> bool:
        """Wait; return True at once when stopped."""
        if not self._stopped:
            self._running.acquire(timeout=seconds)
        return self._stopped

    def stop(self) -> None:
        """End the wait of one thread, now and from now on."""
        if not self._stopped:
            self._stopped = True
            self._running.release()


def real_evidence() -> Evidence:
    """Return what reads this process."""
    from watchdog_hook.evidence.here import Evidence as Here

    return Here()


def real_actions(config: Config, mask: Callable[[str], str]) -> Actions:
    """Return what acts on this process. `mask` takes the secrets out of a text."""
    from watchdog_hook.actions.deeds import Deeds

    return Deeds(config, mask)

"""All deeds of this process behind one object: what the watchdog is given, and what a test replaces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from watchdog_hook.actions.directory import incident_directory
from watchdog_hook.actions.interrupt import Interrupter
from watchdog_hook.actions.message import TerminationMessage
from watchdog_hook.actions.meter import Meter
from watchdog_hook.actions.record import Recorder
from watchdog_hook.actions.terminate import terminate
from watchdog_hook.actions.unfinished import Unfinished
from watchdog_hook.actions.voice import Voice
from watchdog_hook.core.model import Incident, InFlight, ThreadReading
from watchdog_hook.core.report import log_line

if TYPE_CHECKING:
    from watchdog_hook.config import Config


class Deeds:
    """Writes, says, interrupts, ends. No method raises but `terminate`, which does not return."""

    def __init__(self, config: Config, mask: Callable[[str], str] | None = None) -> None:
        self.recorder = Recorder(
            incident_directory(config.incident_dir),
            config.incident_retention,
            config.incident_max_mb,
            mask=mask,
        )
        self.voice = Voice()
        self._message = TerminationMessage(config.termination_message)
        self._unfinished = Unfinished(self.recorder)
        self._meter = Meter()
        self._interrupter: Interrupter | None = None

    def arm(self, current: Callable[[int], InFlight | None]) -> str | None:
        """Take the signal. Return why the main thread cannot be interrupted by it; None when it can."""
        self._interrupter = Interrupter(current)
        self._interrupter.arm()
        return self._interrupter.unavailable

    def release(self) -> None:
        """Give the signal back, and touch nothing any more; what is to be said still is."""
        if self._interrupter is not None:
            self._interrupter.disarm()

    def disarm(self) -> None:
        """Give everything back."""
        self.release()
        self.voice.close()

    def forget(self) -> None:
        """In a forked child: no signal, no thread, no lock of the parent's."""
        if self._interrupter is not None:
            self._interrupter.forget()
        self.recorder.reset_after_fork()
        self._unfinished.reset_after_fork()
        self._message.reset_after_fork()
        self.voice.reset_after_fork()
        self._meter.reset_after_fork()

    def new_incident(self, wall: float) -> tuple[str, str]:
        """Return the id of a new incident, and where its files will be."""
        incident_id = self.recorder.new_id(wall)
        return incident_id, str(self.recorder.path(incident_id))

    def record(self, incident: Incident, text: str) -> Path | None:
        """Write an incident's files; None when there are none."""
        path = self.recorder.write(incident, text)
        self._complain()
        return path

    def update(self, incident: Incident, delta: str = "") -> None:
        """Bring an incident's files up to date."""
        self.recorder.update(incident, delta)
        self._complain()

    def leave(self, text: str | None) -> None:
        """Leave the account of a stall where it outlives this process; None: there is none any more."""
        if text is None:
            self._message.take_back()
        else:
            self._message.put(text)

    def look_back(
        self, note: Callable[..., None], is_gone: Callable[[int, float | None], bool]
    ) -> None:
        """Have the stall noted in which this process's predecessor ended, if there was one. Waits for nothing."""
        self._unfinished.look(note, is_gone)

    def say(self, level: str, text: str, *, wait: bool = False) -> None:
        """Log a record; where the log does not take it, write it to standard error."""
        self.voice.say(level, text, wait=wait)

    def urgent(self, line: str) -> None:
        """Write one line to standard error, past the log."""
        self.voice.urgent(line)

    def measure(self, send: Callable[[], object]) -> None:
        """Have a metric sent at the next `settle`, from a thread that nobody waits for."""
        self._meter.add(send)

    def settle(self) -> None:
        """See to what the log has not taken in time, and to the metrics."""
        self.voice.settle()
        self._meter.settle()

    def levers(self, flight: InFlight, reading: ThreadReading) -> tuple[str, ...]:
        """Return what can end this call, best first."""
        return () if self._interrupter is None else self._interrupter.levers(flight, reading)

    def fire(
        self, lever: str, flight: InFlight, reading: ThreadReading, incident: str | None, age: float
    ) -> str:
        """Pull a lever; return `fired`, or why not."""
        if self._interrupter is None:
            return "not armed"
        return self._interrupter.fire(lever, flight, reading, incident, age)

    def terminate(self) -> None:
        """End this process with code 75."""
        terminate()

    def working(self) -> bool:
        """Say whether a file or a record is being written, or a metric sent."""
        return (
            self.voice.working()
            or self.recorder.working()
            or self._meter.working()
            or self._message.working()
            or self._unfinished.working()
        )

    def _complain(self) -> None:
        trouble = self.recorder.trouble()
        if trouble is not None:
            self.voice.say("ERROR", log_line("part_off", part="files", outcome=trouble))

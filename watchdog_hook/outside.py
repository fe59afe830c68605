"""What the watchdog leaves for those who look from outside: its pulse, and what it knows of a stall."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from watchdog_hook.actions.backstop import Backstop, is_taken
from watchdog_hook.actions.record import host_in_ids, incident_directory
from watchdog_hook.core.text import SENTENCE, clean
from watchdog_hook.sentinel import pulse as places
from watchdog_hook.sentinel import start
from watchdog_hook.sentinel.pulse import Pulse

if TYPE_CHECKING:
    from watchdog_hook.config import Config
    from watchdog_hook.core.model import Incident

LOOKS = 4  # that have to be missing before the silence of the watchdog's thread means anything
SENTINEL_LOOKS = 20  # looks from one question whether the sentinel lives to the next
SENTINEL_PATIENCE = 20.0  # seconds for it to say who it is


class Outside:
    """The pulse of one watchdog: private until it is shown, and again in a forked child."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.pulse = Pulse.private()
        # The watchdog's thread rests between its looks, and a look takes its time.
        self._after = max(config.backstop_after, LOOKS * config.poll_interval)
        self.backstop: Backstop | None = None
        self._expected: float | None = None  # since when there should be a sentinel
        self._sentinel = 0  # its pid, once it may look into us
        self._since: int | None = None  # its start, as the kernel has it
        self._looks = 0
        self._told: str | None = None  # the sentinel's note that was read last
        self._woke = 0.0  # when the watchdog's thread came back from its last long silence

    def show(self, loop: int, now: float) -> None:
        """
        Let other processes see it from now on. `loop`: id of the loop's thread, as the kernel has it.

        Raises OSError where the kernel has no memory of that kind.
        """
        pulse, config = Pulse.shared(), self._config
        pulse.numbers[:] = self.pulse.numbers
        # Should the watchdog never come to look.
        pulse.numbers[places.BEAT_AT] = pulse.numbers[places.TICK_AT] = now
        pulse.numbers[places.DUMP_AFTER] = config.dump_after
        pulse.numbers[places.BACKSTOP_AFTER] = self._after
        pulse.numbers[places.TERMINATE_AFTER] = config.terminate_after
        pulse.words[places.LOOP] = loop
        self.pulse = pulse

    def hide(self) -> None:
        """Say that nobody is watched any more."""
        self.pulse.words[places.MARK] = 0
        self.pulse.close()
        if self.backstop is not None:
            self.backstop.disarm()
        self._alive()

    def forget(self) -> None:
        """In a forked child: leave the parent's pulse alone. Takes no lock."""
        # It is kept: the mapping closes a descriptor of its own where it ends, and that may be another's by now.
        self._inherited, self.pulse = self.pulse, Pulse.private()
        self._inherited.close()
        backstop, self.backstop = self.backstop, None
        if backstop is not None:
            backstop.forget()
        self._expected, self._sentinel = None, 0

    def guard(self, now: float) -> None:
        """
        Take what faulthandler gives, and start the sentinel. Called by the loop's thread.

        Raises OSError where the kernel has no memory to share, and CannotStart.
        """
        # One watchdog of a process is enough: what stops its thread stops that of any other.
        if self.pulse.fd < 0 or is_taken():
            return
        config, backstop = self._config, Backstop(self._after)
        self.backstop = backstop
        backstop.take()
        if not config.sentinel:
            backstop.speak_up()
            backstop.arm()
            return
        self.pulse.words[places.SIGNAL], self.pulse.words[places.SIGNAL_ALL] = backstop.signals
        self.pulse.words[places.BACKSTOP] = backstop.file + 1
        py_spy = start.find_py_spy(config.py_spy)
        kept = str(config.incident_retention)
        # The sentinel's own directory is the root.
        folder = os.path.abspath(incident_directory(config.incident_dir))
        words = (folder, host_in_ids(), kept, py_spy)
        try:
            start.start(self.pulse.fd, backstop.file, words)
        except start.CannotStart:
            backstop.speak_up()
            backstop.arm()
            raise
        self._expected = now

    def arm(self, now: float) -> str | None:
        """Put the backstop off until the next look. Return what became of the sentinel, once, if it is gone."""
        if self.backstop is None:
            return None
        self.backstop.arm()
        if self._expected is None:
            return None
        pid = self.pulse.words[places.SENTINEL]
        if pid and not self._sentinel:
            self._sentinel, self._since = pid, places.started(pid)
            start.allow_to_trace(pid)
        self._looks += 1
        if self._looks % SENTINEL_LOOKS or (not pid and now - self._expected < SENTINEL_PATIENCE):
            return None
        if pid and self._alive():
            return None
        self._expected = None
        self.backstop.speak_up()
        return "the sentinel has ended" if pid else "the sentinel did not come"

    def before_fork(self) -> None:
        """Stop the backstop's timer: a child would wait for its thread, at its own end, for ever."""
        if self.backstop is not None:
            self.backstop.hold()

    def after_fork(self) -> None:
        """Let it go on."""
        if self.backstop is not None:
            self.backstop.go_on()

    def limits(self) -> str | None:
        """Return what of the backstop is wanted and off, and why; None where all of it is there."""
        backstop = self.backstop
        if backstop is None:
            return None
        if self._expected is None:
            return backstop.off
        return None if all(backstop.signals) else "no real-time signal is free"

    def heard(self) -> dict[str, str] | None:
        """Return the sentinel's note of a silence that is over, once: since, cause, incident, sentence, lasted."""
        text = self.pulse.read(places.NOTE)
        if not text or text == self._told:
            return None
        self._told = text
        note = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        note["lasted"] = str(max(0.0, self._woke - float(note.get("since", "nan"))))
        return note

    def _alive(self) -> bool:
        """Tell whether the sentinel lives; where it was given to us as a child, bury it."""
        # A later one of its number may be a child of the host's, whose end the host wants to know.
        if not self._sentinel or places.started(self._sentinel) != self._since:
            return False
        with contextlib.suppress(OSError):  # it is nobody's child, or init's: so it should be
            if os.waitpid(self._sentinel, os.WNOHANG)[0]:
                self._sentinel = 0
                return False
        with contextlib.suppress(OSError):
            os.kill(self._sentinel, 0)
            return True
        return False

    def runs_as(self, watchdog: int) -> None:
        """Note which thread the watchdog is, as the kernel has it."""
        self.pulse.words[places.WATCHDOG] = watchdog

    def tick(self, now: float, beat_at: float, *, excused: float = 0.0, grace: float = 0.0) -> None:
        """Say that the watchdog is at work, and which seconds of the silence are none, or are allowed."""
        numbers = self.pulse.numbers
        numbers[places.BEAT_AT] = beat_at
        if now - numbers[places.TICK_AT] > self._after / 2:
            self._woke = now
        numbers[places.EXCUSED] = excused
        numbers[places.GRACE] = grace
        numbers[places.TICK_AT] = now

    def tell(self, incident: Incident | None, path: str = "") -> None:
        """Leave what is known of the loop's stall, or that there is none."""
        known = (
            {}
            if incident is None
            else {
                "phase": incident.phase or "",
                "incident": incident.id,
                "path": path,
                "verdict": incident.finding.id,
                "sentence": incident.finding.sentence,
            }
        )
        lines = (f"{key}={clean(value, SENTENCE)}" for key, value in known.items())
        self.pulse.write(places.STATE, "\n".join(lines))

    def asked(self) -> int | None:
        """Return the number of a request for a dump that has not been answered; None for no request."""
        words = self.pulse.words
        request = words[places.REQUEST]
        return None if request == words[places.ANSWERED] else request

    def answer(self, request: int, incident: str, path: str) -> None:
        """Say which incident answers a request, and where its files are."""
        self.pulse.write(places.ANSWER, f"{incident}\n{path}")
        self.pulse.words[places.ANSWERED] = request

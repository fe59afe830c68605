"""What speaks for the watchdog when it cannot: the backstop in this process, and the sentinel beside it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from watchdog_hook.actions.backstop import Backstop, is_taken
from watchdog_hook.actions.directory import host_in_ids, incident_directory
from watchdog_hook.sentinel import proc, start
from watchdog_hook.sentinel import pulse as places

if TYPE_CHECKING:
    from watchdog_hook.watchdog import Watchdog

SENTINEL_LOOKS = 20  # looks from one question whether the sentinel lives to the next
SENTINEL_PATIENCE = 20.0  # seconds for it to say who it is
ALONE = "the backstop speaks for itself"
CLOSED = "the host has closed its descriptor"
UNSEEN = "from outside (`watchdog-hook live`, `dump`) this loop looks as if nobody watched it"


# Sentinels of watchdogs that are over: pid, and start as the kernel has it. A forked child is parent of none.
_dismissed: list[tuple[int, int]] = []


class Deputies:
    """The backstop and the sentinel of one watchdog; a forked child has neither."""

    def __init__(self, dog: Watchdog) -> None:
        self._dog = dog
        self._outside = dog.outside
        self.backstop: Backstop | None = None
        self._expected: float | None = None  # since when there should be a sentinel
        self._sentinel = 0  # its pid, once it may look into us
        self._since: int | None = None  # its start, as the kernel has it
        self._looks = 0
        self._heard: str | None = None  # the sentinel's note that was read last

    def summon(self) -> None:
        """Take the backstop and start the sentinel; what is not to be had is said once. By the loop's thread."""
        _bury_dismissed()
        try:
            self._take(self._dog.now)
        except start.CannotStart as error:
            self._dog.note(
                "part_off", part="sentinel", outcome=f"{error}; {self.limits() or ALONE}"
            )
        limits = self.limits()
        if limits is not None:
            self._dog.note("part_off", part="backstop", outcome=limits)

    def look(self, now: float) -> None:
        """Put the backstop off until the next look, and say what was lost, and what the sentinel found."""
        if self.backstop is not None and not self._arm(self.backstop):
            self._say_lost("backstop", f"{CLOSED}: no stacks while the interpreter is held")
        lost = self._watch_sentinel(now)
        if lost is not None:
            self._say_lost("sentinel", f"{lost}; {self.limits() or ALONE}")
        holder = self._outside.pulse.words[places.SENTINEL]
        awaited = self._expected is not None and not holder
        if not awaited and self._outside.is_lost(holder):
            self._say_lost("pulse", f"{CLOSED}: {UNSEEN}")
        note = self._note()
        if note is not None:
            self._dog.say(
                "WARNING",
                "backstop_ended",
                incident=note.get("incident") or None,
                silent_s=float(note["lasted"]),
                phase=self._dog.where,
                outcome=note.get("sentence"),
                cause=note.get("cause"),
            )

    def dismiss(self) -> None:
        """
        Give back what was taken of faulthandler. The sentinel ends by itself: nobody is watched any more.

        Where it is our child, as that of process 1 of a container is, the next one that is summoned or dismissed
        here finds it buried.
        """
        if self.backstop is not None:
            self.backstop.disarm()
        self._learn()
        if self._sentinel and self._since is not None:
            _dismissed.append((self._sentinel, self._since))
        _bury_dismissed()

    def forget(self) -> None:
        """In a forked child: leave what is the parent's alone. Takes no lock."""
        backstop, self.backstop = self.backstop, None
        if backstop is not None:
            backstop.forget()
        self._expected, self._sentinel = None, 0

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
        if self._expected is None or backstop.file < 0:
            return backstop.off
        return None if all(backstop.signals) else "no real-time signal is free"

    def _take(self, now: float) -> None:
        pulse = self._outside.pulse
        # One watchdog of a process is enough: what stops its thread stops that of any other.
        if pulse.fd < 0 or is_taken():
            return
        config, backstop = self._dog.config, Backstop(self._outside.after)
        self.backstop = backstop
        backstop.take()
        if not config.sentinel:
            backstop.speak_up()
            backstop.arm()
            return
        pulse.words[places.SIGNAL], pulse.words[places.SIGNAL_ALL] = backstop.signals
        pulse.words[places.BACKSTOP] = backstop.file + 1
        py_spy = start.find_py_spy(config.py_spy)
        kept = str(config.incident_retention)
        # The sentinel's own directory is the root.
        folder = os.path.abspath(incident_directory(config.incident_dir))
        words = (folder, host_in_ids(), kept, py_spy)
        try:
            start.start(pulse.fd, backstop.file, words)
        except start.CannotStart:
            backstop.speak_up()
            backstop.arm()
            raise
        self._expected = now

    def _arm(self, backstop: Backstop) -> bool:
        """Put the backstop off; return False, once, where the host has closed what it writes to."""
        if not backstop.is_lost():
            backstop.arm()
            return True
        # First: a signal that is not caught any more would end the process.
        words = self._outside.pulse.words
        words[places.SIGNAL] = words[places.SIGNAL_ALL] = words[places.BACKSTOP] = 0
        backstop.disarm(CLOSED)
        return False

    def _watch_sentinel(self, now: float) -> str | None:
        """Return what became of the sentinel, once, if it is gone."""
        if self.backstop is None or self._expected is None:
            return None
        pid = self._outside.pulse.words[places.SENTINEL]
        if self._learn():
            start.allow_to_trace(pid)
        self._looks += 1
        if self._looks % SENTINEL_LOOKS or (not pid and now - self._expected < SENTINEL_PATIENCE):
            return None
        if pid and self._alive():
            return None
        self._expected = None
        self.backstop.speak_up()
        return "the sentinel has ended" if pid else "the sentinel did not come"

    def _say_lost(self, part: str, outcome: str) -> None:
        self._dog.say("ERROR", "part_off", part=part, outcome=outcome)

    def _note(self) -> dict[str, str] | None:
        """Return the sentinel's note of a silence that is over, once: since, cause, incident, sentence, lasted."""
        text = self._outside.pulse.read(places.NOTE)
        if not text or text == self._heard:
            return None
        self._heard = text
        note = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        note["lasted"] = str(max(0.0, self._outside.woke - float(note.get("since", "nan"))))
        return note

    def _learn(self) -> bool:
        """Note which process the sentinel is; tell whether that was news."""
        pid = self._outside.pulse.words[places.SENTINEL]
        if not pid or self._expected is None or self._sentinel:
            return False
        self._sentinel, self._since = pid, places.started(pid)
        return True

    def _alive(self) -> bool:
        """Tell whether the sentinel lives, or may live; where it was given to us as a child, bury it."""
        pid, since = self._sentinel, places.started(self._sentinel)
        if self._since is not None and since is not None:
            if since != self._since:
                return False
            if _bury(pid, since):
                self._sentinel = 0
                return False
        try:
            os.kill(pid, 0)
        except PermissionError:  # the host has become another user
            pass
        except OSError:
            return False
        # A zombie takes signals too, and stays one in a container whose first process buries nobody. Nothing is
        # told of any process where the host has left its root.
        return proc.stat(f"/proc/{pid}/stat")[:1] not in (["Z"], ["X"])


def _bury_dismissed() -> None:
    # Those that live on are asked again; those that are nobody's child, or init's, are gone from here at once.
    _dismissed[:] = [(pid, since) for pid, since in _dismissed if _bury(pid, since) is False]


def _bury(pid: int, since: int) -> bool | None:
    """Take the end of a child; return False where it lives on, None where there is no such child of ours."""
    # A later one of its number may be a child of the host's, whose end the host wants to know.
    if places.started(pid) != since:
        return None
    try:
        return bool(os.waitpid(pid, os.WNOHANG)[0])
    except OSError:  # it is nobody's child, or init's: so it should be
        return None

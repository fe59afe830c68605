"""
The verb live: does the loop turn? For a Kubernetes probe, which asks every few seconds: nothing is imported here
that this does not need.
"""

from __future__ import annotations

import sys
import time

from watchdog_hook.cli import FINE, PROBLEM, pulses
from watchdog_hook.cli.pulses import NotWatched, Watched
from watchdog_hook.sentinel import pulse as places
from watchdog_hook.sentinel.pulse import Pulse

# Above all that the hook ends by itself with its defaults: three calls silent for 60 s each until their server is
# left alone, or one that trickles for 180 s; and what is recommended for terminate_after.
MAX_SILENCE = 240.0
LATE = 30.0  # seconds without a look of the watchdog, which looks every few
WIDTH = 500  # characters of a line: of more, Kubernetes shows no more
STATES = ("turning", "starting", "silent", "stalled")  # the worst last
STOPPED = {"T": "stopped (SIGSTOP, or a frozen cgroup)", "t": "stopped by a debugger", "Z": "dead"}
STOPS = ("stopped", "traced", "frozen")  # what the sentinel calls these


class Life:
    """What one pulse says of its loop at one moment."""

    def __init__(self, one: Watched, now: float, max_silence: float, process: str = "") -> None:
        """`process`: the letter the kernel has for what it does."""
        pulse, numbers = one.pulse, one.pulse.numbers
        # The tick first: a beat that comes meanwhile only makes the silence shorter.
        ticked, excused = numbers[places.TICK_AT], numbers[places.EXCUSED]
        beat = pulse.beat_at
        # What the watchdog left before the last beat is about an earlier silence.
        known = beat <= ticked
        self.pid = one.pid
        self.name = one.name
        self.whose = one.whose
        self.thread = pulse.words[places.LOOP]
        self.process = process
        self.max_silence = max_silence
        self.silence = max(0.0, now - beat - (excused if known else 0.0))
        self.grace = numbers[places.GRACE]
        self.allowed = max(max_silence, self.grace)
        self.tick = now - ticked if ticked else None
        self.state = self._state(numbers[places.DUMP_AFTER])
        told = known and self.state != "turning"
        self.told = pulses.lines_of(pulse, places.STATE) if told else {}
        self.seen = self._seen(pulse, ticked)

    def _state(self, dump_after: float) -> str:
        if self.silence > self.allowed:
            return "stalled"
        if self.grace:
            return "starting"
        return "silent" if self.silence >= dump_after else "turning"

    def _seen(self, pulse: Pulse, ticked: float) -> dict[str, str]:
        """Return the sentinel's note where it is of the watchdog's present silence: cause, incident, sentence."""
        # It writes one only after that time, and what it wrote of an earlier silence began before the last tick.
        if self.tick is None or self.tick < pulse.numbers[places.BACKSTOP_AFTER]:
            return {}
        note = pulses.lines_of(pulse, places.NOTE)
        try:
            of_now = float(note.get("since", "nan")) >= ticked
        except ValueError:
            return {}
        # A process that was stopped then and is not now: what keeps it silent since nobody has seen.
        over = note.get("cause") == "stopped" and self.process not in STOPPED
        return note if of_now and note.get("sentence") and not over else {}

    @property
    def late(self) -> bool:
        """Whether the watchdog itself has not looked for long."""
        return self.tick is not None and self.tick > LATE

    def badness(self) -> tuple[int, bool, float]:
        """Return what to sort by. A process has one sentinel; what it saw comes before what followed from it."""
        return STATES.index(self.state), bool(self.seen), self.silence

    def line(self) -> str:
        """Return it as one line that a probe's event has room for."""
        return _cut(self._head() + self._watchdog() + self._verdict(), WIDTH)

    def plain(self) -> dict[str, object]:
        """Return it for a program."""
        told = {key: self.told.get(key) for key in ("phase", "incident", "path", "verdict")}
        seen = {key: self.seen.get(key) or None for key in ("cause", "incident", "sentence")}
        return {
            "pid": self.pid,
            "component": self.whose.get("component"),
            "loop": self.whose.get("loop"),
            "thread": self.thread,
            "state": self.state,
            "silence_s": round(self.silence, 3),
            "allowed_s": self.allowed,
            "watchdog_looked_s": None if self.tick is None else round(self.tick, 3),
            **told,
            "sentence": self.told.get("sentence"),
            "sentinel": seen if self.seen else None,
        }

    def _head(self) -> str:
        ago, allowed = f"{self.silence:.0f} s", f"{self.allowed:.0f} s"
        if self.state == "turning":
            return f"turning: the loop of {self.name} beat {self.silence:.1f} s ago."
        if self.state == "starting":
            return f"starting: the loop of {self.name} beat {ago} ago; {allowed} are allowed."
        phase = self.told.get("phase")
        where = f" in phase {_cut(phase, 100)}" if phase else ""
        silent = f"the loop of {self.name} has been silent for {ago}{where}"
        if self.state == "silent":
            return f"silent: {silent}; {allowed} are allowed."
        return f"stalled: {silent}, more than the {allowed} that are allowed."

    def _watchdog(self) -> str:
        if self.process in STOPPED and self.seen.get("cause") not in STOPS:
            return f" The process is {STOPPED[self.process]}."
        since = f" The watchdog has not looked for {self.tick or 0.0:.0f} s"
        if self.seen:
            incident = f" (incident {self.seen['incident']})" if self.seen.get("incident") else ""
            return f"{since}; the sentinel saw{incident}: {self.seen['sentence']}"
        if not self.late:
            return ""
        if self.state == "turning":
            return f"{since}: it is off, and its log says why; the beats are the loop's own."
        return (
            f"{since}: something holds the interpreter, or it is off; `watchdog-hook dump` tells."
        )

    def _verdict(self) -> str:
        sentence, incident = self.told.get("sentence"), self.told.get("incident")
        if not sentence:
            return ""
        return (f" Incident {incident}:" if incident else "") + f" {sentence}"


def run(pid: int | None, max_silence: float, *, as_json: bool) -> int:
    """Print how each loop is. Return 1 if one is silent for longer than is allowed, or none is watched."""
    try:
        found = pulses.in_sight() if pid is None else pulses.of(pid)
    except NotWatched as why:
        _print(_cut(f"{why}.", WIDTH), [], PROBLEM, as_json=as_json)
        return PROBLEM
    lives = [_life(one, max_silence) for one in found]
    lives.sort(key=Life.badness, reverse=True)
    code = PROBLEM if lives[0].state == "stalled" else FINE
    _print("\n".join(life.line() for life in lives), lives, code, as_json=as_json)
    return code


def _life(one: Watched, max_silence: float) -> Life:
    return Life(one, time.monotonic(), max_silence, pulses.state(one.pid))


def _print(text: str, lives: list[Life], code: int, *, as_json: bool) -> None:
    if as_json:
        import json

        processes = [life.plain() for life in lives]
        text = json.dumps({"alive": code == FINE, "says": text, "processes": processes}, indent=2)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    # The words of a stall come from elsewhere, and no probe may fail for one of their letters.
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def _cut(text: str | None, width: int) -> str:
    flat = "".join(char if char.isprintable() or char == "\n" else " " for char in text or "")
    return flat if len(flat) <= width else flat[: max(0, width - 3)] + "..."

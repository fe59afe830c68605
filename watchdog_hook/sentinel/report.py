"""One silence of the watchdog as it is told: to standard error, into files, and to the watchdog when it wakes."""

from __future__ import annotations

import os
import sys
import time

from watchdog_hook.sentinel import proc, pulse, py_spy, stacks
from watchdog_hook.sentinel.words import SENTENCE, clean, log_line, utc

TYPE_CHECKING = False  # as typing has it, which takes memory to import
if TYPE_CHECKING:
    from typing import Any

    from watchdog_hook.sentinel.judge import Verdict
    from watchdog_hook.sentinel.life import Life
    from watchdog_hook.sentinel.mouth import Mouth
    from watchdog_hook.sentinel.pulse import Pulse
    from watchdog_hook.sentinel.record import Files

ANSWER_PATIENCE = 2.0  # seconds for faulthandler to write
STILL = 0.05  # seconds from one look at the text to the next; one that is complete has not grown


class Report:
    """What is known of the silence under way, and the ways to tell it."""

    def __init__(
        self, seen: Pulse, life: Life, text: int, files: Files, program: str, mouth: Mouth
    ) -> None:
        self._pulse = seen
        self._life = life
        self._text = text
        self._read = 0  # bytes of faulthandler's text that were told
        self._files = files
        self._program = program
        self._mouth = mouth
        self.incident: str | None = None
        self.cause: str | None = None
        self._data: dict[str, Any] = {}
        self._written: dict[str, str] = {}

    def make(self, verdict: Verdict, since: float) -> None:
        """Tell that the watchdog is silent since that moment, once more if it was told before."""
        unavailable: list[tuple[str, str]] = []
        text = self._faulthandler(verdict, since, unavailable)
        wall, silence = time.time(), time.monotonic() - since
        if verdict.incident and self.incident is None:
            self.incident = self._files.new_id(wall)
        self.cause = verdict.id
        self._leave_note(verdict, since)
        line = self._line(verdict, silence)
        found = stacks.of_faulthandler(text)
        own = [stack for stack in found if stack["name"] == stacks.SIGNALLED]
        for stack in own:
            stack |= {"name": "The loop's thread", "native_id": self._pulse.words[pulse.LOOP]}
        rest = [stack for stack in found if stack not in own and stack["name"] != stacks.CURRENT]
        further = self._about(verdict, own, rest)
        # First what needs no disk and no other program.
        self._mouth.say(line, further)
        if self.incident is None:
            return
        others = self._py_spy(unavailable)
        if others and not own:
            self._mouth.say(line, stacks.lines(others[0]))
        threads = others or [*own, *rest]
        more = [part for stack in others for part in stacks.lines(stack)]
        self._data = self._json(verdict, silence, wall, threads, unavailable)
        dump = "\n".join([line, *(f" {each}" for each in further)]) + "\n"
        spied = "".join(f"{part}\n" for part in more)
        self._write({"dump.txt": dump, "faulthandler.txt": text, "py-spy.txt": spied})

    def ended(self) -> None:
        """Tell that the watchdog ticks again."""
        if self._data:
            self._data["ended"] = utc(time.time())
            self._store()
        self.incident, self.cause, self._data, self._written = None, None, {}, {}

    def acted(self, deed: str, outcome: str) -> None:
        """Note what is done about it, before it is done."""
        if self._data:
            at = round(time.monotonic() - self._pulse.numbers[pulse.TICK_AT], 3)
            self._data["actions"].append(
                {"at_s": at, "deed": deed, "lever": None, "outcome": outcome}
            )
            self._store()

    def _line(self, verdict: Verdict, silence: float) -> str:
        return log_line(
            "backstop",
            incident=self.incident,
            silent_s=silence,
            phase=self._state().get("phase") or None,
            cause=verdict.id,
            loop_silent_s=time.monotonic() - self._pulse.beat_at,
            pid=self._life.pid,
        )

    def _about(
        self, verdict: Verdict, own: list[stacks.Stack], rest: list[stacks.Stack]
    ) -> list[str]:
        remedy = f" Remedy: {verdict.remedy}." if verdict.remedy else ""
        found = [f"The watchdog's own thread is silent. {verdict.sentence}{remedy}"]
        found += [f"  {sign}" for sign in verdict.signs]
        for stack in own:
            found += stacks.lines(stack)
        if self.incident is not None:
            found.append(f"files: {self._files.path(self.incident)}")
        if rest:
            found.append("The other threads, by faulthandler (the newest hundred):")
            found += [f"  {part}" for part in stacks.folded(rest)]
        return [part[: 2 * SENTENCE] for part in found]

    def _leave_note(self, verdict: Verdict, since: float) -> None:
        sentence = clean(verdict.sentence, SENTENCE)
        lines = [f"since={since!r}", f"cause={verdict.id}", f"incident={self.incident or ''}"]
        self._pulse.write(pulse.NOTE, "\n".join([*lines, f"sentence={sentence}"]))

    # --- faulthandler ------------------------------------------------------------------------------

    def _faulthandler(
        self, verdict: Verdict, since: float, unavailable: list[tuple[str, str]]
    ) -> str:
        """Return what faulthandler has written since the last time, after asking it where that makes sense."""
        words = self._pulse.words
        if verdict.ask:
            self._ask(words[pulse.SIGNAL], "stack of the loop's thread", since, unavailable)
        if verdict.all_threads:
            # After the other: of more than a hundred threads it leaves the oldest out.
            self._ask(words[pulse.SIGNAL_ALL], "stacks of the other threads", since, unavailable)
        size = self._size()
        if size < self._read:  # cut off by the watchdog
            self._read = 0
        text = os.pread(self._text, size - self._read, self._read).decode("utf-8", "replace")
        self._read = size
        return text

    def _ask(
        self, number: int, what: str, since: float, unavailable: list[tuple[str, str]]
    ) -> None:
        """Have the loop's thread write by that signal, and note why it cannot or does not."""
        caught = proc.catches(self._life.pid, number) if number else False
        before = self._size()
        if not number:
            why = "no real-time signal was free"
        elif self._pulse.numbers[pulse.TICK_AT] > since:
            # Frames that run meanwhile are what faulthandler crashes on.
            why = "the watchdog was back"
        elif not caught:
            # To a process that does not catch it, it would be the end.
            why = "/proc is hidden" if caught is None else "the signal is not caught any more"
        elif not self._leads_here(self._pulse.words[pulse.BACKSTOP] - 1):
            # Its number may be a file's of the host by now, and that would be written into.
            why = "the host has closed what it is written into"
        elif not self._life.send(number, self._pulse.words[pulse.LOOP]):
            why = "the signal could not be sent"
        elif not self._wait_for_text(before, number):
            why = "the thread does not take signals"
        else:
            return
        unavailable.append((what, why))

    def _wait_for_text(self, before: int, number: int) -> bool:
        """Wait until the text has grown and its writer is done; tell whether it has grown at all."""
        until = time.monotonic() + ANSWER_PATIENCE
        size = before
        while time.monotonic() < until:
            time.sleep(STILL)
            last, size = size, self._size()
            # A writer that gets no processor leaves the text as it is too, and is not done with it.
            writes = proc.handles(self._life.pid, self._pulse.words[pulse.LOOP], number)
            if size == last > before and not writes:
                break
        return size > before

    def _leads_here(self, descriptor: int) -> bool:
        """Tell whether a descriptor of the process is of the file that we read; in doubt it is."""
        try:
            there = os.stat(f"/proc/{self._life.pid}/fd/{descriptor}")
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return os.path.samestat(there, os.fstat(self._text))

    def _size(self) -> int:
        return os.fstat(self._text).st_size

    # --- py-spy, and the files ---------------------------------------------------------------------

    def _py_spy(self, unavailable: list[tuple[str, str]]) -> list[stacks.Stack]:
        if not self._program:
            unavailable.append(("py-spy", "it is not there, or switched off"))
            return []
        output, why = py_spy.dump(self._program, self._life)
        if not why:
            try:
                return stacks.first(stacks.of_py_spy(output), self._pulse.words[pulse.LOOP])
            except (ValueError, TypeError, AttributeError):
                why = "its output is not what it was"
        unavailable.append(("py-spy", why))
        return []

    def _json(
        self,
        verdict: Verdict,
        silence: float,
        wall: float,
        threads: list[stacks.Stack],
        unavailable: list[tuple[str, str]],
    ) -> dict[str, Any]:
        before = self._data
        return {
            "schema": 1,
            "id": self.incident,
            "fingerprint": None,  # readers reckon it
            "host": os.uname().nodename,
            "pid": self._life.pid,
            "job_id": None,
            "process_started": None,
            "versions": {"python": sys.version.split()[0]},
            "settings": {},
            "began": before.get("began") or utc(wall - silence),
            "first_dump": before.get("first_dump") or utc(wall),
            "ended": None,
            "silence_s": round(silence, 3),
            "phase": self._state().get("phase") or None,
            "verdict": {
                "id": verdict.id,
                "confidence": "high" if verdict.id != "unknown" else "low",
                "signs": list(verdict.signs),
                "sentence": verdict.sentence,
                "remedy": verdict.remedy,
            },
            "calls": [],
            "threads": threads,
            "samples": [],
            "actions": before.get("actions") or [],
            "unavailable": [{"what": what, "why": why} for what, why in unavailable],
            "truncated": False,
        }

    def _write(self, files: dict[str, str]) -> None:
        """Put texts behind what was written of this incident before."""
        for name, text in files.items():
            if not text:
                continue
            self._written[name] = self._written.get(name, "") + text
        self._store()

    def _store(self) -> None:
        import json

        files = {**self._written, "incident.json": json.dumps(self._data, indent=1) + "\n"}
        why = self._files.write(self.incident or "", files)
        if why:
            outcome = f"incident files cannot be written: {why}"
            self._mouth.say(log_line("part_off", part="files", outcome=outcome))

    def _state(self) -> dict[str, str]:
        told = self._pulse.read(pulse.STATE) or ""
        return dict(line.split("=", 1) for line in told.splitlines() if "=" in line)

"""A stall in which the process before this one ended: found in its files, told once."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from watchdog_hook.actions.files import opened
from watchdog_hook.core.model import PROCESS_ENDED
from watchdog_hook.core.text import from_utc, utc
from watchdog_hook.errand import Errands

if TYPE_CHECKING:
    from watchdog_hook.actions.record import Recorder

PATIENCE = 10.0  # seconds after which the look counts as lost; until then a fork waits for it, 100 ms at most
NEWEST = 100  # incidents that are looked at
HEAD = 16 * 1024  # bytes of a file in which its end stands, if it has one
LARGEST = (
    8 * 1024 * 1024
)  # bytes that are parsed: it is done in one go, and nothing else runs meanwhile
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
IsGone = Callable[[int, float | None], bool]
_ENDED = re.compile(rb'(?<!\\)"ended":\s*(null|")')


class Unfinished:
    """Looks for incidents of this host without an end, whose process is gone. Never raises."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._errands = Errands("watchdog-hook-past", PATIENCE)

    def look(self, note: Callable[..., None], is_gone: IsGone) -> None:
        """
        Have the newest one noted as `unfinished`, with the count of all, and each marked as ended.

        The end that is written is the last moment at which its process wrote there.
        """
        self._errands.send(lambda: self._look(note, is_gone), wait=0.0)

    def working(self) -> bool:
        """Say whether the files are being looked at."""
        return self._errands.working()

    def reset_after_fork(self) -> None:
        """In a forked child: forget the parent's thread and lock."""
        self._errands.reset_after_fork()

    def _look(self, note: Callable[..., None], is_gone: IsGone) -> None:
        found = []
        for incident_id in self._recorder.of_this_host(NEWEST):
            try:
                data, last_s = self._without_end(incident_id)
                if data is not None and is_gone(data["pid"], from_utc(data["first_dump"])):
                    found.append(_facts(data, last_s))
                    self._mark(incident_id, data, last_s)
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue  # removed meanwhile, or damaged: `watchdog-hook incidents` says that
        if found:
            note("unfinished", **found[0], count=len(found))

    def _without_end(self, incident_id: str) -> tuple[dict[str, Any] | None, float]:
        """Return what an incident's file holds, and when it was written; None where its end is known."""
        with opened(self._recorder.path(incident_id)) as folder:
            file = os.open("incident.json", _FILE, dir_fd=folder)
            try:
                facts = os.fstat(file)
                if not stat.S_ISREG(facts.st_mode) or facts.st_size > LARGEST:
                    return None, 0.0
                data = os.read(file, HEAD)
                ended = _ENDED.search(data)
                if ended is not None and ended[1] != b"null":
                    return None, 0.0
                while len(data) <= LARGEST and (piece := os.read(file, 1 << 20)):
                    data += piece
            finally:
                os.close(file)
        found = json.loads(data)
        return (None if found["ended"] is not None else found), facts.st_mtime

    def _mark(self, incident_id: str, data: dict[str, Any], last_s: float) -> None:
        deed = {
            "at_s": data["silence_s"],
            "deed": PROCESS_ENDED,
            "lever": None,
            "outcome": "the loop had not come back; found at the next start",
        }
        data |= {"ended": utc(last_s), "actions": [*data["actions"], deed]}
        self._recorder.rewrite(incident_id, data)


def _facts(data: dict[str, Any], last_s: float) -> dict[str, Any]:
    done = [f"{deed['deed']}: {deed['outcome']}" for deed in data["actions"][-1:]]
    return {
        "incident": data["id"],
        "silent_s": data["silence_s"],
        "phase": data["phase"],
        "call": data.get("call"),  # the sentinel knows of no call
        "peer": data.get("peer"),
        "action": done[0] if done else None,
        "outcome": "its process ended, and the loop had not come back",
        "cause": data["verdict"]["id"],
        "pid": data["pid"],
        "last": utc(last_s),
    }

"""A silent process of `tests/victims/silent.py` for a test: started, told what to do, read, and ended."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from watchdog_hook.sentinel.pulse import started

TESTS = Path(__file__).parents[1]
PATIENCE = 40.0  # seconds for whatever is waited for


def patiently(condition: Callable[[], Any], what: str | Callable[[], str] = "this") -> Any:
    """Return what the condition returns once that is true. `what` is asked only if it never is."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for {what() if callable(what) else what}"
        time.sleep(0.01)
    return found


def lives(pid: int, since: int | None = None) -> bool:
    """Tell whether a process is there that has not ended; `since` is its start, where it is known."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX" and (since is None or started(pid) == since)


class Silent:
    """One such process. What it and its sentinel write to standard error is in `log`."""

    def __init__(self, folder: Path, process: subprocess.Popen[str], log: Path) -> None:
        self.incidents = folder / "incidents"
        self.process = process
        self.pid = process.pid
        self._log = log
        self._lines: IO[str] = process.stdout  # type: ignore[assignment]
        words = self.line().split()
        assert words[:1] == ["watched"], (words, self.log())
        self.sentinel, self.watchdog = int(words[1]), int(words[2])
        self._sentinel_since = started(self.sentinel)

    def line(self) -> str:
        """Return the next line that it prints."""
        return self._lines.readline()

    def tell(self) -> None:
        """Write a line to it."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_log(self, text: str, count: int = 1) -> str:
        """Return the log once a text stands in it so often."""
        patiently(lambda: self.log().count(text) >= count, lambda: f"{text!r} in\n{self.log()}")
        return self.log()

    def incident(self, cause: str = "") -> tuple[Path, dict[str, Any]]:
        """Return the folder and content of its only incident, once that names this cause, if one is asked for."""

        def found() -> tuple[Path, dict[str, Any]] | None:
            for path in self.incidents.glob("*/incident.json"):
                data = json.loads(path.read_text())
                if cause in ("", data["verdict"]["id"]):
                    return path.parent, data
            return None

        folder, data = patiently(found, f"an incident {cause}")
        assert [*self.incidents.glob("*/incident.json")] == [folder / "incident.json"]
        return folder, data

    def watched(self) -> bool:
        """Tell whether its sentinel lives."""
        return lives(self.sentinel, self._sentinel_since)


@contextlib.contextmanager
def silent(
    folder: Path,
    kind: str,
    threads: int = 1,
    *,
    prefix: Sequence[str] = (),
    stderr: Any = None,
    contained: bool = False,
    **settings: Any,
) -> Iterator[Silent]:
    """
    Start one, and see to it that neither it nor its sentinel outlives the test.

    `contained`: it has a pid namespace of its own, which ends with it and in which pids mean others.
    """
    settings = {"incident_dir": str(folder / "incidents"), "py_spy": "off", **settings}
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [
                *prefix,
                sys.executable,
                str(TESTS / "victims" / "silent.py"),
                kind,
                str(threads),
                json.dumps(settings),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file if stderr is None else stderr,
            env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
            text=True,
        )
    with process:
        try:
            victim = Silent(folder, process, log)
            yield victim
        finally:
            process.kill()
            process.wait()
    patiently(lambda: contained or not victim.watched(), "the sentinel's end")

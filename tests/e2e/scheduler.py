"""One life of a real scheduler: a process, its log, and the hook's events in it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.e2e.events import Event, read_events

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.airflow_home import AirflowHome

# Airflow 3: `2026-11-22T10:00:00.000000Z [error    ] …`; Airflow 2: `[…] {file.py:1} ERROR - …`.
_ERROR = re.compile(
    r"^(?:\S+ \[(?:error|critical)\s*\]|\[[^\]]+\] \{[^}]+\} (?:ERROR|CRITICAL) - )"
)


COMMAND = ("scheduler", "--skip-serve-logs")


class Scheduler:
    """A running `airflow scheduler`, or another command. Everything it started ends with it in `close`."""

    def __init__(self, home: AirflowHome, command: tuple[str, ...] = COMMAND) -> None:
        self.home = home
        number = len(list(home.folder.glob("scheduler-*.log")))
        self.log: Path = home.folder / f"scheduler-{number}.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                home.command(*command),
                env=home.environment(),
                cwd=home.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # its children are found by it, also when it is gone
            )
        self.pid = self._process.pid

    def is_same(self) -> bool:
        """Tell whether the very process we started still runs."""
        return self._process.poll() is None  # until then its number is nobody else's

    def text(self, since: int = 0) -> str:
        """Return the log from that byte on."""
        with self.log.open("rb") as log:
            log.seek(since)
            return log.read().decode(errors="replace")

    def mark(self) -> int:
        """Return where the log ends now, for `since`."""
        return self.log.stat().st_size

    def events(self, *names: str, since: int = 0) -> list[Event]:
        """Return the hook's events of these names, or all."""
        found = read_events(self.text(since), since)
        return [event for event in found if not names or event.name in names]

    def said(self) -> list[str]:
        """Return the names of the hook's events, without `paused`: a machine may stand still in any test."""
        return [event.name for event in self.events() if event.name != "paused"]

    def wait_event(self, *names: str, since: int = 0, timeout: float = 60, count: int = 1) -> Event:
        """Return the `count`th of such events once it is in the log."""
        self.wait_for(
            lambda: len(self.events(*names, since=since)) >= count,
            timeout,
            f"{count} x {' or '.join(names)}",
        )
        return self.events(*names, since=since)[count - 1]

    def wait_text(self, text: str, since: int = 0, timeout: float = 60) -> None:
        """Return once the log holds that text."""
        self.wait_for(lambda: text in self.text(since), timeout, repr(text))

    def wait_for(self, condition: Callable[[], object], timeout: float, what: str) -> None:
        """Ask until it holds; AssertionError after `timeout` seconds or when the scheduler ended."""
        end = time.monotonic() + timeout
        while not condition():
            ended = self._process.poll()
            if ended is not None or time.monotonic() > end:
                how = f"the scheduler ended with {ended}" if ended is not None else "in vain"
                raise AssertionError(f"waited {timeout:.0f} s for {what}: {how}\n{self.tail()}")
            time.sleep(0.1)  # between two questions; the deadline decides

    def errors(self, since: int = 0) -> list[str]:
        """Return the lines that Airflow itself logged at ERROR or above."""
        lines = self.text(since).splitlines()
        return [line for line in lines if _ERROR.match(line) and "watchdog_hook: " not in line]

    def tail(self, size: int = 4000) -> str:
        """Return what the hook said, and the end of the log, for messages."""
        said = "\n".join(line for line in self.text().splitlines() if "watchdog_hook: " in line)
        return f"--- {self.log}\n{said}\n...\n{self.text(max(0, self.mark() - size))}\n---"

    def send(self, number: int) -> None:
        """Send a signal to the scheduler itself."""
        os.kill(self.pid, number)

    def tell_to_end(self) -> None:
        """Send SIGTERM at a moment when the main thread waits in the kernel."""
        # Airflow's handler writes to the log. In Airflow 3 that takes a lock (structlog's WriteLogger), which is
        # not reentrant: a signal in the middle of a line hangs for ever, with and without the hook.
        end = time.monotonic() + 30
        before = None
        while self._process.poll() is None and time.monotonic() < end:
            now = self._sleeps()
            if now is not None and now == before:
                break
            before = now
            time.sleep(0.02)  # between two looks; the deadline decides
        self._process.terminate()

    def _sleeps(self) -> int | None:
        """Return how often the main thread has gone to sleep; None while it runs."""
        status = Path(f"/proc/{self.pid}/task/{self.pid}/status").read_text(encoding="utf-8")
        values = dict(line.split(":", 1) for line in status.splitlines())
        sleeps = values["State"].split()[0] == "S"
        return int(values["voluntary_ctxt_switches"]) if sleeps else None

    def terminate(self, timeout: float = 60) -> int:
        """Ask it to leave; return its exit code, or AssertionError when it does not go."""
        mark = self.mark()
        self.tell_to_end()
        try:
            return self._code(self._process.wait(min(timeout, 10)))
        except subprocess.TimeoutExpired:
            # Airflow leaves by an exception. Where that falls into a callback of the garbage collector,
            # Python prints it and goes on: the request is lost, and has to be made again.
            lost = "Exception ignored in"
            if lost in (said := self.text(mark)) and "SystemExit: 0" in said:
                self.tell_to_end()
        return self._code(self.wait(timeout))

    def _code(self, code: int) -> int:
        # Airflow leaves by an exception out of its signal handler. Where that falls into the sending of a
        # pickle to a Manager, CPython 3.12 frees a BytesIO whose buffer is still lent, says so, and may
        # crash at the very end. Sent there on purpose, SIGTERM ended a 3.3.2 scheduler without the hook
        # that way in 13 of 13 cases that ended, and one with it in none of 12.
        ended = "Exited execute loop" in self.tail(20_000)
        known = "deallocated BytesIO object has exported buffers" in self.tail(20_000)
        return 0 if code == -signal.SIGSEGV and ended and known else code

    def wait(self, timeout: float) -> int:
        """Return the exit code once it has ended."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {timeout:.0f} s\n{self.tail()}") from None

    def ask(self, *words: str, pid: int | None = None) -> subprocess.CompletedProcess[str]:
        """Run one of our commands about it, or another process, as a shell in its container would."""
        return subprocess.run(
            [sys.executable, "-m", "watchdog_hook", *words, "--pid", str(pid or self.pid)],
            env=self.home.environment(),
            cwd=self.home.folder,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def family(self) -> list[psutil.Process]:
        """Return what it has started and still runs, itself first."""
        return family(self.pid)

    def close(self) -> None:
        """End it and all of its family, as the end of a container would."""
        end_family(self.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)


def family(session: int) -> list[psutil.Process]:
    """Return the processes of a session, its leader first."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getsid(process.pid) == session:
                found.append(process)
    return sorted(found, key=lambda process: process.pid != session)


def end_family(session: int) -> None:
    """Kill the processes of a session, one by one."""
    for process in family(session):
        with contextlib.suppress(psutil.Error):
            process.kill()

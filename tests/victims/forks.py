"""
Forks a process again and again while its watchdog dumps. Prints one line of JSON.

    python tests/victims/forks.py DIRECTORY 1000

Each child has an alarm, so that one that hangs is seen, and takes the locks that a child needs.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from pathlib import Path

from watchdog_hook import Config, Watchdog
from watchdog_hook.actions.interrupt import SIGNAL

PATIENCE = 60  # seconds until a child that hangs is ended by its alarm


class Appender(logging.Handler):
    """Notes which process logged what, in a file that all of them append to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def emit(self, record: logging.LogRecord) -> None:
        os.write(self._fd, f"{os.getpid()} {record.name}\n".encode())


def child(dog: Watchdog) -> int:
    """Return 0 if nothing of the watchdog is left here and every lock can be had."""
    signal.alarm(PATIENCE)
    if len(os.listdir("/proc/self/task")) != 1 or threading.active_count() != 1:
        return 3
    if signal.getsignal(SIGNAL) is not signal.SIG_DFL:
        return 4
    os.kill(os.getpid(), SIGNAL)
    dog.beat("in a child")
    with dog.guard("in a child"):
        pass
    dog.stop()
    if dog.book.in_flight():
        return 5
    logging.getLogger("child").warning("every lock of logging can be had")
    return 0


def main() -> None:
    """Fork, wait, count."""
    directory, times = Path(sys.argv[1]), int(sys.argv[2])
    warnings.simplefilter(
        "ignore", DeprecationWarning
    )  # that forks and threads do not mix is known
    logging.getLogger().addHandler(Appender(directory / "log"))
    config = Config(
        poll_interval=0.005,
        sample_after=0.005,
        dump_after=0.01,
        startup_grace=0,
        incident_retention=5,
        incident_dir=str(directory / "incidents"),
    )
    codes: Counter[int] = Counter()
    during = 0
    with Watchdog(config) as dog:
        for number in range(times):
            if number % 5 == 0:
                dog.beat()  # ends one stall, so that the next can begin
            while number % 5 == 4 and not dog.busy:
                time.sleep(0)  # into the middle of its work
            during += dog.busy
            pid = os.fork()
            if pid == 0:
                code = 2
                try:
                    code = child(dog)
                finally:
                    os._exit(code)
            codes[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])] += 1
    lines = (directory / "log").read_text().split("\n")[:-1]
    print(
        json.dumps(
            {
                "codes": codes,
                "while_working": during,
                "parent_lines": sum(line == f"{os.getpid()} watchdog_hook" for line in lines),
                "child_lines": sum(line.endswith(" child") for line in lines),
                "ours_in_children": sum(
                    line.endswith(" watchdog_hook") and not line.startswith(f"{os.getpid()} ")
                    for line in lines
                ),
            }
        )
    )


if __name__ == "__main__":
    main()

"""Errands at the very end of an interpreter, when no thread can be started any more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import atexit
import os
import threading

from watchdog_hook.errand import Errands, keep_ready

one, other, stuck = Errands("one", 20.0), Errands("other", 20.0), Errands("stuck", 0.05)


def last():
    returned = [stuck.send(threading.Event().wait), stuck.send(lambda: None)]
    for errands in (one, other, one, other):
        returned.append(errands.send(lambda: os.write(1, b"done\\n")))
    returned.append(one.away())
    os.write(1, f"{returned}".encode())


keep_ready()
atexit.register(last)
"""


def test_they_are_run_by_threads_that_were_ready_and_one_that_hangs_costs_one():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )

    assert done.stdout.splitlines() == [
        *["done"] * 4,
        "[False, False, True, True, True, True, False]",
    ]
    assert done.stderr == ""

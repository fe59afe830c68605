"""Errands at the very end of an interpreter, when no thread can be started any more."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from watchdog_hook import errand
from watchdog_hook.errand import Errands

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


@pytest.mark.linux
@pytest.mark.parametrize("where", ["begin", "end"])
def test_who_waits_for_one_goes_on_wanting_the_interpreter(monkeypatch, where):
    go_on = threading.Event()
    if where == "begin":

        class Late(errand._Messenger):
            def _bootstrap(self) -> None:
                go_on.wait()
                super()._bootstrap()

        monkeypatch.setattr(errand, "_Messenger", Late)
    returned: list[bool] = []
    sender = threading.Thread(
        target=lambda: returned.append(Errands("one", 50.0).send(go_on.wait)), daemon=True
    )
    sender.start()
    path = Path(f"/proc/self/task/{sender.native_id}/status")

    def slept() -> int:
        (line,) = [line for line in path.read_text().splitlines() if line.startswith("voluntary")]
        return int(line.split()[1])

    before = slept()
    while slept() < before + 10:
        pass  # pytest's own limit ends it
    go_on.set()
    sender.join()

    assert returned == [True]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="before, threads start until the very end")
def test_threads_that_are_ready_are_not_started_again():
    count = (
        "from watchdog_hook.errand import SPARES, keep_ready; import threading\n"
        "for _ in range(3):\n    keep_ready()\n"
        "print(sum('spare' in each.name for each in threading.enumerate()) - SPARES)"
    )
    done = subprocess.run(
        [sys.executable, "-c", count],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )

    assert done.stdout == "0\n"

"""A child has nothing of the watchdog: no thread, no handler, no lock that somebody else holds, no word."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from watchdog_hook import Config, Watchdog, fork
from watchdog_hook.actions.interrupt import SIGNAL

if TYPE_CHECKING:
    from collections.abc import Callable

TESTS = Path(__file__).parents[1]
# That forks and threads do not mix is why these tests are here.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def in_child(check: Callable[[], object]) -> int:
    """Run a check in a fork; return 0 if it was true, 1 if not, 2 if it raised, -14 if it hung."""
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            signal.alarm(20)
            code = 0 if check() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(poll_interval=0.01, incident_dir=str(tmp_path))


@pytest.mark.linux
@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_thousand_forks_while_the_watchdog_dumps_all_come_to_a_good_end(tmp_path):
    done = subprocess.run(
        [sys.executable, str(TESTS / "victims" / "forks.py"), str(tmp_path), "1000"],
        env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(found)

    assert found["codes"] == {"0": 1000}
    assert found["child_lines"] == 1000
    assert found["ours_in_children"] == 0
    # Otherwise nothing was proven: it has to be at work, and to dump.
    assert found["while_working"] > 50
    assert found["parent_lines"] > 50


def test_a_lock_that_another_thread_holds_over_a_fork_is_free_in_the_child(config):
    dog = Watchdog(config)
    fork.watch(dog)
    voice, recorder = dog._actions.voice, dog._actions.recorder  # type: ignore[attr-defined]
    errands = (voice._errands, voice._stderr._errands, recorder._errands)
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with errands[0]._turn, errands[1]._turn, errands[2]._turn:
            held.set()
            free.wait()

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    assert held.wait(20)
    try:
        assert in_child(lambda: all(errand._turn.acquire(timeout=5) for errand in errands)) == 0
        assert not any(errand._turn.acquire(blocking=False) for errand in errands)
    finally:
        free.set()
        thread.join(20)


def test_the_signal_does_nothing_in_a_child(config):
    with Watchdog(config):
        assert signal.getsignal(SIGNAL) is not signal.SIG_DFL

        def check() -> bool:
            os.kill(os.getpid(), SIGNAL)
            return signal.getsignal(SIGNAL) is signal.SIG_DFL

        assert in_child(check) == 0


def test_a_stray_signal_does_not_kill_a_program_that_a_child_becomes(config):
    with Watchdog(config):
        program = "import os, signal; os.kill(os.getpid(), signal.SIGURG); print('lives')"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

        assert done.stdout == b"lives\n"


def test_a_child_has_no_thread_and_no_call_of_ours(config):
    with Watchdog(config) as dog, dog.guard("a call of the parent"):

        def check() -> bool:
            names = [thread.name for thread in threading.enumerate()]
            return names == ["MainThread"] and dog._thread is None and not dog.book.in_flight()

        assert in_child(check) == 0
        assert len(dog.book.in_flight()) == 1


def test_a_child_may_leave_the_with_blocks_it_was_born_in(config):
    dog = Watchdog(config)
    pid = -1
    with dog, dog.guard("a call of the parent"):
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
    if pid == 0:
        os._exit(0)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_child_can_have_a_watchdog_of_its_own(config):
    with Watchdog(config):

        def check() -> bool:
            with Watchdog(config) as own:
                own.beat()
                return own._thread is not None and signal.getsignal(SIGNAL) is not signal.SIG_DFL

        assert in_child(check) == 0


def test_a_fork_waits_for_the_work_to_end_but_not_for_ever(config, monkeypatch):
    dog = Watchdog(config)
    fork.watch(dog)
    dog.busy = True

    assert in_child(lambda: True) == 0  # it went on although the work never ended
    monkeypatch.setattr(fork, "PATIENCE", 20.0)  # the timer may be late
    threading.Timer(0.025, lambda: setattr(dog, "busy", False)).start()
    fork._wait()
    assert not dog.busy


def test_a_signal_whose_handler_leaves_by_an_exception_is_not_lost_in_a_fork(config):
    dog = Watchdog(config)
    fork.watch(dog)
    dog.busy = True
    told = threading.Event()

    def leave(*_: object) -> None:
        told.set()
        sys.exit(3)

    def tell_once_it_forks() -> None:
        while not dog.forking:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGUSR1)
        told.wait(20)
        dog.busy = False

    children = []

    def forks() -> None:
        children.append(os.fork())
        if not children[0]:
            os._exit(0)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            time.sleep(0.001)

    before = signal.signal(signal.SIGUSR1, leave)
    teller = threading.Thread(target=tell_once_it_forks)
    teller.start()
    try:
        with pytest.raises(SystemExit) as left:
            forks()
    finally:
        signal.signal(signal.SIGUSR1, before)
        teller.join()

    assert left.value.code == 3
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0


def test_what_a_host_wants_undone_in_a_child_is_undone(config):
    dog = Watchdog(config)
    undone: list[str] = []
    dog.on_forget(lambda: undone.append("patches"))
    fork.watch(dog)

    assert in_child(lambda: undone == ["patches"]) == 0
    assert undone == []

"""The interrupt reaches the guarded call and nothing else, however the call's end and the shot fall together."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from watchdog_hook import book
from watchdog_hook.actions import interrupt
from watchdog_hook.actions.interrupt import Interrupter
from watchdog_hook.book import Book, Guard
from watchdog_hook.core.model import StuckCallTimeout, ThreadReading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

HERE = Path(__file__).parents[1]
ROUNDS = 20_000


def race(thread: str, guard: str, rounds: int) -> dict[str, Any]:
    """Run the race in a process of its own: its main thread, and no leak can hurt the tests."""
    done = subprocess.run(
        [
            *(sys.executable, "-W", "error", str(HERE / "victims" / "race.py")),
            *("--thread", thread, "--guard", guard, "--rounds", str(rounds)),
        ],
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("thread", ["main", "worker"])
def test_no_shot_comes_out_of_any_code_but_the_guarded_call(thread):
    counts = race(thread, "ours", ROUNDS)

    assert counts["rounds"] == ROUNDS
    # Otherwise nothing was proven: shots have to hit, and to come too late.
    assert counts["fires"] > ROUNDS / 10
    assert counts["interrupted"] > ROUNDS / 20
    assert counts["leaks"] == 0
    assert counts["left_in_book"] == 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("thread", ["main", "worker"])
def test_a_flag_and_a_shot_leak_in_the_same_race(thread):
    assert race(thread, "naive", 4_000)["leaks"] > 0


class Turns:
    """
    Has a shot fired from another thread at the chosen instruction of our own code, in this thread.

    Of leaving only: a call is proven stuck before it is shot at, so it has long been entered. Harder than
    life, where an exception can come at some instructions only.
    """

    FILES = (book.__file__, interrupt.__file__)
    FUNCTIONS = ("__exit__", "__del__", "leave", "_set_async", "_ordinary")

    def __init__(self, target: int, shoot: Callable[[], None]) -> None:
        self.seen = 0
        self._target = target
        self._shoot = shoot

    def __enter__(self) -> Turns:
        sys._getframe().f_trace_opcodes = True  # Python 3.12 wants to know before
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _call(self, frame: FrameType, event: str, arg: object) -> Any:
        code = frame.f_code
        if code.co_filename not in self.FILES or code.co_name not in self.FUNCTIONS:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._step

    def _step(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "opcode":
            self.seen += 1
            if self.seen == self._target:
                self._shoot()
        return self._step


class Gun:
    """Fires the shutdown lever at a call of this thread from another one, and waits until it has."""

    def __init__(self) -> None:
        self.book = Book(time.monotonic)
        self.interrupter = Interrupter(self.book.current)
        self.interrupter._pid = os.getpid()
        self.fired = 0

    def shoot(self) -> None:
        victim = threading.get_ident()
        thread = threading.Thread(target=self._fire, args=(victim,))
        # Started and joined without the tracing of this thread getting into it.
        thread.start()
        thread.join()

    def _fire(self, victim: int) -> None:
        flight = self.book.current(victim)
        while flight is not None and not flight.guarded:
            flight = flight.outer
        if flight is not None:
            reading = ThreadReading((0, 0, 0), 0, None)
            self.fired += self.interrupter.fire("shutdown", flight, reading, None, 1.0) in (
                "fired",
                "socket gone",
            )


@pytest.fixture
def in_worker() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Run something in a thread that is not the main one, and have its failure here."""

    def run(target: Callable[[], None]) -> None:
        failures: list[BaseException] = []

        def catching() -> None:
            try:
                target()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=catching, daemon=True)
        thread.start()
        thread.join(50)
        assert not thread.is_alive()
        if failures:
            raise failures[0]

    trace = sys.gettrace()  # coverage's
    yield run
    sys.settrace(trace)


def innocent() -> int:
    """Run enough instructions for a pending exception to come out."""
    return sum(int(str(number)) for number in range(50))


def functions_of(error: BaseException) -> set[str]:
    """Return the names of all functions that an exception came through, and its causes and contexts."""
    names, cause = set(), error
    while cause is not None:
        names |= {frame.f_code.co_name for frame, _ in traceback.walk_tb(cause.__traceback__)}
        cause = cause.__context__  # type: ignore[assignment]
    return names


def last_instruction(scene: Callable[[Gun], None]) -> int:
    gun = Gun()
    with Turns(0, gun.shoot) as turns:
        scene(gun)
    return turns.seen


def shoot_at_every_instruction(scene: Callable[[Gun], None]) -> dict[str, int]:
    """Play the scene once for each of its instructions of ours, with a shot fired right there."""
    outcomes = {"timeout": 0, "nothing": 0, "fired": 0}
    for target in range(1, last_instruction(scene) + 1):
        gun = Gun()
        try:
            with Turns(target, gun.shoot):
                scene(gun)
        except StuckCallTimeout as error:
            outcomes["timeout"] += 1
            if "leave" in functions_of(error):
                # Whoever keeps the exception keeps the guard; the call is out of the book all the same.
                assert gun.book.in_flight() == ()
        else:
            outcomes["nothing"] += 1
        innocent()  # a leak would come out here, and end the test
        gc.collect()
        outcomes["fired"] += gun.fired

        assert gun.book.in_flight() == (), f"left in the book by a shot at instruction {target}"
        assert gun.book.records()[0] == ()
    return outcomes


@pytest.mark.skipif(
    sys.version_info[:2] in ((3, 11), (3, 13)),
    reason="3.11 goes round in circles when tracing raises, 3.13.0 traces no instructions",
)
def test_a_shot_at_any_instruction_of_ours_comes_out_of_the_with_block_or_not_at_all(in_worker):
    def one_call(gun: Gun) -> None:
        with Guard(gun.book, "call"):
            innocent()

    def check() -> None:
        outcomes = shoot_at_every_instruction(one_call)

        assert outcomes["fired"] >= outcomes["timeout"] > 10
        assert outcomes["nothing"] > 10

    in_worker(check)


def test_a_call_that_is_left_is_never_shot_at(in_worker):
    def check() -> None:
        gun = Gun()
        with Guard(gun.book, "call") as guard:
            pass
        reading = ThreadReading((0, 0, 0), 0, None)

        assert guard._flight is not None
        assert (
            gun.interrupter.fire("shutdown", guard._flight, reading, None, 1.0) == "call had ended"
        )
        innocent()

    in_worker(check)

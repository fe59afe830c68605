"""The tasks of a real event loop, read from beside it while one of them keeps it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from watchdog_hook.core import tasks as text
from watchdog_hook.core.observed import TaskGroup
from watchdog_hook.evidence import tasks


class Looper:
    """A loop in a thread of its own, of which one task blocks until it is let go."""

    def __init__(self, main: Callable[[Looper], Any]) -> None:
        self.blocked, self.go = threading.Event(), threading.Event()
        self.error: BaseException | None = None
        self._main = main
        self.thread = threading.Thread(target=self._run, name="looper")

    def _run(self) -> None:
        try:
            asyncio.run(self._main(self))
        except BaseException as error:  # shown by the test
            self.error = error
            self.blocked.set()

    def block(self) -> None:
        """Keep the loop's thread, as a trigger's `run` may."""
        self.blocked.set()
        self.go.wait(60)

    async def blocks(self) -> None:
        """The coroutine whose line has to be found."""
        self.block()


@contextlib.contextmanager
def stuck(main: Callable[[Looper], Any]) -> Iterator[Looper]:
    looper = Looper(main)
    looper.thread.start()
    try:
        assert looper.blocked.wait(30)
        assert looper.error is None
        yield looper
    finally:
        looper.go.set()
        looper.thread.join(60)
    assert looper.error is None


def functions(group: TaskGroup) -> list[str]:
    return [frame.function.rpartition(".")[2] for frame in group.frames]


async def ticks() -> AsyncIterator[int]:
    while True:
        await asyncio.sleep(3600)
        yield 1


async def consumes() -> None:
    async for _ in ticks():
        pass


async def gathers() -> None:
    await asyncio.gather(consumes(), consumes())


async def started(*coroutines: Any) -> list[asyncio.Task[Any]]:
    made = [asyncio.create_task(each, name=f"task {n}") for n, each in enumerate(coroutines)]
    for _ in range(3):
        await asyncio.sleep(0)
    return made


def test_each_task_is_shown_where_it_waits_and_the_one_that_runs_first():
    async def main(looper: Looper) -> None:
        made = await started(consumes(), consumes(), gathers())
        made.append(asyncio.create_task(asyncio.sleep(0), name="late"))
        await looper.blocks()
        for each in made:
            each.cancel()

    with stuck(main) as looper:
        found = tasks.capture(looper.thread.native_id)

    first, ready, *waiting = found
    assert (first.state, first.thread, first.frames) == ("running", "looper", ())
    assert (ready.state, ready.names) == ("ready", ("late",))
    by_place = {tuple(functions(group)): group for group in waiting}
    together = by_place["ticks", "consumes"]
    assert together.count == 4
    assert {"task 0", "task 1"} <= set(together.names)
    assert together.waits == "Future"
    assert by_place["gathers",].waits == "_GatheringFuture"
    assert all(frame.file == __file__ for frame in together.frames)
    assert text.count(found) == 7


def test_a_task_of_pure_python_is_read_as_well():
    async def main(looper: Looper) -> None:
        loop = asyncio.get_running_loop()
        kind: Any = asyncio.tasks._PyTask  # type: ignore[attr-defined]
        loop.set_task_factory(lambda loop, coroutine, **named: kind(coroutine, loop=loop, **named))
        made = await started(consumes())
        loop.set_task_factory(None)
        await looper.blocks()
        for each in made:
            each.cancel()

    with stuck(main) as looper:
        found = tasks.capture(looper.thread.native_id)

    assert ["ticks", "consumes"] in [functions(group) for group in found]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks are started eagerly from 3.12 on")
def test_a_task_that_was_started_eagerly_is_found():
    async def main(looper: Looper) -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        made = await started(consumes())
        await looper.blocks()
        for each in made:
            each.cancel()

    with stuck(main) as looper:
        found = tasks.capture(looper.thread.native_id)

    assert ["ticks", "consumes"] in [functions(group) for group in found]


class Hostile(asyncio.Task):  # type: ignore[type-arg]
    """Whoever asks it for anything learns of it."""

    asked: ClassVar[list[str]] = []

    def __getattribute__(self, name: str) -> Any:
        if threading.current_thread().name != "looper":
            Hostile.asked.append(name)
        return super().__getattribute__(name)

    def __repr__(self) -> str:
        return str(Hostile.asked.append("repr"))

    def __hash__(self) -> int:
        if threading.current_thread().name != "looper":
            Hostile.asked.append("hash")
        return 1

    def __eq__(self, other: object) -> bool:
        return self is other


def test_no_code_of_a_task_is_run_and_no_value_is_shown():
    async def waits(secret: str) -> None:
        await asyncio.sleep(3600)

    async def main(looper: Looper) -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(
            lambda loop, coroutine, **named: Hostile(coroutine, loop=loop, **named)
        )
        made = await started(waits("hunter2"))
        loop.set_task_factory(None)
        await looper.blocks()
        for each in made:
            each.cancel()

    with stuck(main) as looper:
        found = tasks.capture(looper.thread.native_id)
        asked = list(Hostile.asked)

    assert ["sleep", "waits"] in [functions(group) for group in found]
    assert asked == []
    assert "hunter2" not in "\n".join(text.lines(found))


def test_thousands_of_tasks_are_folded_and_those_beyond_the_limit_are_counted(monkeypatch):
    many = 3000
    monkeypatch.setattr(tasks, "MOST", 1000)

    async def main(looper: Looper) -> None:
        made = await started(*(consumes() for _ in range(many)))
        await looper.blocks()
        for each in made:
            each.cancel()

    with stuck(main) as looper:
        found = tasks.capture(looper.thread.native_id)

    assert found[0].state == "running"
    assert text.count(found) == many + 1
    assert text.count(found, "not read") == many + 1 - 1000
    assert len(found) <= 3
    assert len(text.lines(found)) < 12
    assert all(len(group.names) <= 8 for group in found)


def test_a_look_that_takes_too_long_ends(monkeypatch):
    monkeypatch.setattr(tasks, "SECONDS", -1)

    async def main(looper: Looper) -> None:
        await looper.blocks()

    with stuck(main) as looper:
        found = tasks.capture(looper.thread.native_id)

    assert [group.state for group in found] == ["not read"]


def test_the_loop_of_the_stalled_thread_comes_first():
    async def main(looper: Looper) -> None:
        made = await started(*(consumes() for _ in range(3)))
        await looper.blocks()
        for each in made:
            each.cancel()

    with stuck(main) as one, stuck(main) as other:
        one.thread.name, other.thread.name = "one", "other"
        for looper, name in ((one, "one"), (other, "other")):
            found = tasks.capture(looper.thread.native_id)
            assert [group.thread for group in found][:2] == [name, name]
            assert {group.thread for group in found} == {"one", "other"}


def test_a_loop_that_runs_is_read_without_harm():
    """Tasks come and go meanwhile: nothing is raised here, and nothing there."""
    stop = threading.Event()

    async def main(looper: Looper) -> None:
        looper.blocked.set()
        while not stop.is_set():
            await asyncio.gather(*(asyncio.sleep(0) for _ in range(50)))

    with stuck(main) as looper:
        looks, most = 0, 0
        while looks < 300 or most < 2:  # until both have had the interpreter in turn
            most = max(most, text.count(tasks.capture(looper.thread.native_id)))
            looks += 1
        stop.set()

    assert most > 1


def test_nothing_is_kept_alive_by_a_look():
    import weakref

    kept: list[Any] = []

    async def main(looper: Looper) -> None:
        made = await started(consumes())
        kept.append(weakref.ref(made[0]))
        await looper.blocks()
        made.pop().cancel()

    with stuck(main) as looper:
        tasks.capture(looper.thread.native_id)
    gc.collect()

    assert kept[0]() is None


CHILD = """
import os, threading
from watchdog_hook.evidence import stacks

pid = os.fork()
if pid == 0:
    name, native_id = stacks.known_threads()[threading.get_ident()]
    print(name, native_id == threading.get_native_id(), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""


def test_the_main_thread_of_a_forked_child_has_the_number_of_its_process():
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )

    assert done.stdout == "MainThread True\n"

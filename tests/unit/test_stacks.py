from __future__ import annotations

import gc
import sys
import threading
import weakref
from typing import TYPE_CHECKING

import pytest

from watchdog_hook.evidence import stacks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from watchdog_hook.core.model import ThreadStack


class Value:
    """Something whose end can be seen, and that must never be printed."""

    def __repr__(self) -> str:
        raise AssertionError("a value was looked at")


class Sleeper(threading.Thread):
    """A thread that stands still at a known place, at a known depth."""

    def __init__(self, depth: int = 0, name: str = "sleeper", value: object = None) -> None:
        super().__init__(name=name, daemon=True)
        self._depth = depth
        self._value = value
        self.standing = threading.Event()
        self.free = threading.Event()
        self.start()
        assert self.standing.wait(20)

    def run(self) -> None:
        self._go_down(self._depth, self.__dict__.pop("_value"))

    def _go_down(self, depth: int, value: object) -> None:
        if depth:
            self._go_down(depth - 1, None)
        else:
            self._stand(value)

    def _stand(self, kept: object) -> None:
        self.standing.set()
        self.free.wait()
        del kept


@pytest.fixture
def sleeper() -> Iterator[Callable[..., Sleeper]]:
    made: list[Sleeper] = []

    def make(*args: object, **kwargs: object) -> Sleeper:
        made.append(Sleeper(*args, **kwargs))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for thread in made:
        thread.free.set()
        thread.join(20)


def captured(thread: threading.Thread) -> ThreadStack:
    return next(stack for stack in stacks.capture() if stack.ident == thread.ident)


def functions(stack: ThreadStack) -> list[str]:
    return [frame.function.rpartition(".")[2] for frame in stack.frames]


def test_a_stack_is_innermost_first_and_named(sleeper):
    thread = sleeper(2, name="the-name")
    stack = captured(thread)

    assert stack.name == "the-name"
    assert stack.native_id == thread.native_id
    at = functions(stack).index("_stand")
    assert functions(stack)[at : at + 5] == ["_stand", "_go_down", "_go_down", "_go_down", "run"]
    assert stack.frames[at].file == __file__


def test_names_are_qualified_where_python_knows_them(sleeper):
    names = [frame.function for frame in captured(sleeper()).frames]

    assert ("Sleeper._stand" if sys.version_info >= (3, 11) else "_stand") in names


def test_the_stalled_thread_comes_first_and_the_caller_not_at_all(sleeper):
    one, two = sleeper(), sleeper()

    for thread in (one, two):
        captured_stacks = stacks.capture(thread.ident)
        assert captured_stacks[0].ident == thread.ident
        assert {one.ident, two.ident} <= {stack.ident for stack in captured_stacks}
        assert threading.get_ident() not in {stack.ident for stack in captured_stacks}


def test_a_deep_stack_keeps_both_ends(sleeper):
    stack = captured(sleeper(500))

    assert len(stack.frames) <= stacks.FRAMES_KEPT + 1
    assert "_stand" in functions(stack)[:5]
    assert "run" in functions(stack)[-5:]
    left_out = stack.frames[stacks.FRAMES_KEPT // 2]
    assert left_out.function.startswith("... ")
    assert left_out.function.endswith(" frames left out ...")


def test_no_value_is_looked_at_or_kept(sleeper):
    value = Value()
    gone = weakref.ref(value)
    thread = sleeper(value=value)
    del value
    kept = stacks.capture(thread.ident), stacks.stack_of(thread.ident)
    thread.free.set()
    thread.join(20)
    gc.collect()

    assert kept[0]
    assert gone() is None


def test_equal_frames_are_one_value(sleeper):
    one, two = captured(sleeper()), captured(sleeper())
    both = {stack.ident: stack for stack in stacks.capture()}

    assert both[one.ident].frames[-1] is both[two.ident].frames[-1]


def test_the_lock_of_threading_is_not_needed(sleeper):
    thread = sleeper(name="known")
    with threading._active_limbo_lock:  # type: ignore[attr-defined]
        done = threading.Event()
        found: list[ThreadStack] = []

        def capture() -> None:
            found.extend(stacks.capture(thread.ident))
            done.set()

        import _thread

        _thread.start_new_thread(capture, ())
        assert done.wait(20)

    assert found[0].name == "known"


def test_a_thread_that_threading_does_not_know_is_a_question_mark():
    import _thread

    standing, free, ident = threading.Event(), threading.Event(), []

    def stand() -> None:
        ident.append(_thread.get_ident())
        standing.set()
        free.wait()

    _thread.start_new_thread(stand, ())
    assert standing.wait(20)
    names = {stack.ident: stack.name for stack in stacks.capture()}
    free.set()

    assert names[ident[0]] == "?"


def test_the_stack_of_a_thread_that_is_gone_is_empty(sleeper):
    thread = sleeper()
    thread.free.set()
    thread.join(20)

    assert stacks.stack_of(thread.ident) == ()


def test_stack_of_is_what_capture_shows(sleeper):
    thread = sleeper(3)

    while stacks.stack_of(thread.ident) != captured(thread).frames:  # until it stands in wait()
        pass

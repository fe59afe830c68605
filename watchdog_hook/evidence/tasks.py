"""
The tasks of asyncio's loops: which one runs, which could, and where each of the others waits.

The stack of a task that waits is in no thread: it hangs on the task, coroutine by coroutine. It is read without
running any code of the host's: no method of a task's own class, no representation, no value.
"""

from __future__ import annotations

import gc
import itertools
import sys
import time
import types
from typing import TYPE_CHECKING, Any

from watchdog_hook.core.observed import TaskGroup
from watchdog_hook.evidence import stacks, values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from watchdog_hook.core.model import Frame

MOST = 5000  # tasks that are looked at; more are counted
SECONDS = 0.5  # for looking at them
DEPTH = 100  # coroutines in one another
_NAMES = 8  # of tasks that stand in one place
_TRIES = 10

_RUNNING, _READY, _WAITS, _NOT_READ = "running", "ready", "waits", "not read"
_ORDER = (_RUNNING, _READY, _WAITS, _NOT_READ)

# A coroutine's frame and what it awaits, by the kind of coroutine.
_LINKS: dict[type, tuple[str, str, str]] = {
    types.CoroutineType: ("cr_frame", "cr_running", "cr_await"),
    types.GeneratorType: ("gi_frame", "gi_running", "gi_yieldfrom"),
    types.AsyncGeneratorType: ("ag_frame", "ag_running", "ag_await"),
}
# What the interpreter puts between two of them; it shows what is behind it to the garbage collector only.
_BETWEEN = frozenset(
    {"async_generator_asend", "async_generator_athrow", "anext_awaitable", "coroutine_wrapper"}
)
# In the frame of this one the task's own coroutine is a variable (greenback, which Airflow 3 uses).
_SHIM = "_greenback_shim"

_Key = tuple[str, "str | None", "str | None", "tuple[Frame, ...]"]


def capture(first: int | None = None) -> tuple[TaskGroup, ...]:
    """
    Return the tasks of all loops that are not done, those together that stand in one place.

    Those of the thread with this id (the kernel's) come first, and of them the one that runs. Nothing where
    asyncio is not in use. Reads `MOST` of them, for `SECONDS` at most.
    """
    module = sys.modules.get("asyncio.tasks")
    if module is None:
        return ()
    kinds: tuple[Any, ...] = tuple(
        kind
        for name in ("Task", "_PyTask")
        if isinstance(kind := getattr(module, name, None), type)
    )
    threads = stacks.known_threads()
    current = _copy(getattr(module, "_current_tasks", {}), dict.values)
    running = {id(task) for task in current}
    found: dict[_Key, list[Any]] = {}  # how many, and the names of the first
    until = time.monotonic() + SECONDS
    native: dict[str | None, int | None] = {}
    # Those that run first: where there are too many, these are the ones that must not be missed.
    others = (task for task in _registered(module) if id(task) not in running)
    for number, task in enumerate(itertools.chain(current, others)):
        kind = next((kind for kind in kinds if values.is_a(task, kind)), None)
        if kind is None or number >= MOST or time.monotonic() > until:
            _count(found, (_NOT_READ, None, None, ()), None)
            continue
        if kind.done(task):
            continue
        thread, native_id = threads.get(_thread_of(kind, task), (None, None))
        native[thread] = native_id
        state, waits = _state(module, kind, task, id(task) in running)
        frames = () if state == _RUNNING else _frames(kind.get_coro(task))
        _count(found, (state, waits, thread, frames), kind.get_name(task))
    groups = [
        TaskGroup(many, state, tuple(names), frames, waits, thread)
        for (state, waits, thread, frames), (many, names) in found.items()
    ]
    return tuple(
        sorted(
            groups,
            key=lambda group: (
                first is None or native.get(group.thread) != first,
                _ORDER.index(group.state),
                -group.count,
            ),
        )
    )


def _count(found: dict[_Key, list[Any]], key: _Key, name: object) -> None:
    group = found.setdefault(key, [0, []])
    group[0] += 1
    if type(name) is str and len(group[1]) < _NAMES:
        group[1].append(name)


def _registered(module: types.ModuleType) -> Iterator[Any]:
    """Give every task there is, one at a time: whoever holds the last reference runs its destructor."""
    # Up to 3.11 one set has them all; then those that were started eagerly have one of their own.
    for name in ("_all_tasks", "_scheduled_tasks"):
        weak = values.part(getattr(module, name, None), "data")
        for reference in _copy(weak, list) if type(weak) is set else ():
            task = reference()
            if task is not None:
                yield task
            del task
    yield from _copy(getattr(module, "_eager_tasks", ()), list)


def _copy(things: Any, of: Any) -> list[Any]:
    for _ in range(_TRIES):
        try:
            return list(of(things))
        except RuntimeError:  # it changed while it was copied
            continue
        except TypeError:
            break
    return []


def _thread_of(kind: Any, task: Any) -> int:
    ident = values.part(kind.get_loop(task), "_thread_id")  # of asyncio's own loops
    return ident if type(ident) is int else 0


def _state(module: Any, kind: Any, task: Any, runs: bool) -> tuple[str, str | None]:
    if runs:
        return _RUNNING, None
    waiter = _waiter(kind, task)
    if waiter is None or _is_done(module, waiter):
        return _READY, None
    return _WAITS, values.class_name(type(waiter))


def _waiter(kind: Any, task: Any) -> Any:
    entry = vars(kind).get("_fut_waiter")
    if type(entry) is types.GetSetDescriptorType:
        return entry.__get__(task)
    return values.part(task, "_fut_waiter")


def _is_done(module: Any, future: Any) -> bool:
    futures = getattr(module, "futures", None)
    for name in ("Future", "_PyFuture"):
        kind = getattr(futures, name, None)
        if isinstance(kind, type) and values.is_a(future, kind):
            return bool(vars(kind)["done"](future))
    return False


def _frames(coroutine: Any) -> tuple[Frame, ...]:
    """Return where a coroutine waits, innermost frame first."""
    found: list[Frame] = []
    for _ in range(DEPTH):
        if coroutine is None:
            break
        links = _LINKS.get(type(coroutine))
        if links is None:
            coroutine = _behind(coroutine)
            continue
        frame, runs, awaits = (getattr(coroutine, name) for name in links)
        if frame is None:
            break
        if frame.f_code.co_name == _SHIM:
            found.clear()  # of the shim itself
            coroutine = _first_of(coroutine, types.CoroutineType)
            continue
        found.append(stacks.frame_of(frame))
        # Of one that runs, in a greenlet that was left, this cannot be had.
        coroutine = None if runs else awaits
        del frame
    found.reverse()
    return tuple(found)


def _behind(thing: Any) -> Any:
    if values.class_name(type(thing)) not in _BETWEEN:
        return None  # a future, or somebody's own awaitable
    return _first_of(thing, *_LINKS)


def _first_of(holder: Any, *kinds: type) -> Any:
    """Return the first object of these kinds that another one holds, as the garbage collector sees it."""
    return next((each for each in gc.get_referents(holder) if type(each) in kinds), None)

"""Who waits for whom: threads that wait for one another in a circle will wait for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from watchdog_hook.core.observed import LockWait


def cycles(waits: Iterable[LockWait]) -> tuple[tuple[LockWait, ...], ...]:
    """
    Return each circle of waits once: the owner of one is the thread of the next, of the last that of the first.

    A thread that waits for a lock of its own is a circle of one. A wait whose owner is not known is in none. Of a
    thread that is in `waits` more than once the first wait counts: it can stand in one place only.
    """
    by_thread: dict[object, LockWait] = {}
    for wait in waits:
        by_thread.setdefault(_thread(wait), wait)
    found: list[tuple[LockWait, ...]] = []
    done: set[object] = set()
    for first in by_thread:
        path: list[object] = []
        thread: object = first
        while thread in by_thread and thread not in done:
            done.add(thread)
            path.append(thread)
            thread = _owner(by_thread[thread])
        if thread in path:
            circle = path[path.index(thread) :]
            found.append(tuple(by_thread[each] for each in circle))
    return tuple(found)


def _thread(wait: LockWait) -> object:
    return wait.thread if wait.ident is None else wait.ident


def _owner(wait: LockWait) -> object:
    return wait.owner if wait.owner_ident is None else wait.owner_ident

"""
Which thread waits for which lock, and who has it. No lock is taken, and nobody's code is run for it.

A thread waits for a lock when its innermost frame stands in a `with` or an `acquire` of one that is locked.
Waits for an event (Condition.wait, Event.wait, Queue.get, Semaphore.acquire) are none: nobody can tell who would
end them.
"""

from __future__ import annotations

import collections
import logging
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from watchdog_hook.core.model import Frame
from watchdog_hook.core.observed import LockWait
from watchdog_hook.evidence import bytecode, stacks, values
from watchdog_hook.evidence import known_locks as known

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from types import CodeType, FrameType

    from watchdog_hook.evidence.bytecode import Asked, Path, Sites
    from watchdog_hook.evidence.known_locks import Lock

BY_LOCK, BY_FRAMES, BY_JOIN = "the lock itself", "its frames", "Thread.join"

_WAIT = threading.Condition.wait.__code__
_JOINS = tuple(
    function.__code__
    for name in ("join", "_wait_for_tstate_lock")  # the second up to 3.12
    if (function := vars(threading.Thread).get(name)) is not None
)
_TAKES = frozenset({"with", "acquire", "__enter__", "_acquire_restore"})
# Their callers say better which lock it is, and where it is waited for.
_WRAPPERS = {
    "threading": frozenset(
        {"__enter__", "acquire", "_acquire_restore", "wait", "join", "_wait_for_tstate_lock"}
    ),
    "multiprocessing.synchronize": frozenset({"__enter__", "acquire"}),
    "logging": frozenset({"acquire", "_acquireLock"}),
}


_WATCHDOGS = stacks.OURS.rstrip("-")  # names of their threads
_SCOPES = {"local": values.local_of, "global": values.global_of, "name": values.name_of}


@dataclass(frozen=True, slots=True)
class _Waiting:
    ident: int
    lock: Lock
    text: str
    place: Frame
    position: tuple[int, int, int]


def waits() -> tuple[LockWait, ...]:
    """
    Return the threads that wait for a lock or for another thread's end, and where known who they wait for.

    The calling thread, our throw-away ones and those of other watchdogs are left out as waiters, but named as
    owners.
    Where several threads may have a lock, or none is seen to, no owner is named. An RLock knows its owner by a
    number that a later thread may have got too: where the owner ended without a release, that one is named.
    """
    return _Look().waits()


class _Look:
    """One look at all threads. Lets go of their frames when it is over."""

    def __init__(self) -> None:
        self._names = stacks.known_threads()
        self._tops = sys._current_frames()
        self._tops.pop(threading.get_ident(), None)
        self._sites: dict[int, Sites | None] = {}

    def waits(self) -> tuple[LockWait, ...]:
        found: list[LockWait] = []
        waiting: list[_Waiting] = []
        for ident, top in self._tops.items():
            if self._name(ident).startswith(_WATCHDOGS):
                continue
            if any(top.f_code is code for code in _JOINS):
                found += self._join(ident, top)
            elif (each := self._waiting(ident, top)) is not None:
                waiting.append(each)
        unowned = {id(each.lock.itself) for each in waiting if each.lock.asks_frames}
        holders = self._holders(unowned) if unowned else {}
        # What was looked at in one place is true only of who still stands there.
        now = sys._current_frames()
        found += [
            self._as_value(each, holders)
            for each in waiting
            if (there := now.get(each.ident)) is not None and _position(there) == each.position
        ]
        return tuple(found)

    # --- who waits ------------------------------------------------------------------------------------

    def _waiting(self, ident: int, top: FrameType) -> _Waiting | None:
        asked = self._asked(top)
        if asked is None or asked.method not in _TAKES:
            return None
        if top.f_code is _WAIT and asked.method == "acquire":
            return None  # for a notify(), by a lock of its own that nobody has
        path = asked.path[:-1] if asked.path[-1] == "_semlock" else asked.path
        position = _position(top)
        lock = known.owned(_holder(top, path), path[-1]) or known.lock_of(_value(top, path))
        if lock is None or not known.taken(lock, ident):
            return None
        text, place = self._words(top, path, lock)
        return _Waiting(ident, lock, text, place, position)

    def _join(self, ident: int, top: FrameType) -> Iterator[LockWait]:
        asked = self._asked(top)
        awaited = values.local_of(top, "self")
        owner = values.part(awaited, "_ident")
        if asked is None or type(owner) is not int or owner not in self._tops:
            return  # it is about to go on
        yield LockWait(
            thread=self._name(ident),
            lock=f"the end of thread {self._name(owner)}",
            place=stacks.frame_of(_beyond_wrappers(top)),
            owner=self._name(owner),
            owner_place=stacks.frame_of(self._tops[owner]),
            by=BY_JOIN,
            kind="thread",
            ident=ident,
            owner_ident=owner,
        )

    def _words(self, top: FrameType, path: Path, lock: Lock) -> tuple[str, Frame]:
        """Return what a lock is called where it is waited for, and that place."""
        frame, best = top, (top, path)
        while _is_wrapper(frame) and (outer := frame.f_back) is not None:
            frame = outer
            asked = self._asked(frame)
            same = None if asked is None else known.lock_of(_value(frame, asked.path))
            if asked is not None and same is not None and same.itself is lock.itself:
                best = (frame, asked.path)
        text = _text(*best)
        return f"multiprocessing lock {text}" if lock.shared else text, stacks.frame_of(frame)

    def _as_value(self, each: _Waiting, holders: dict[int, set[int]]) -> LockWait:
        owner, by = each.lock.owner, BY_LOCK
        candidates = holders.get(id(each.lock.itself), set())
        if len(candidates) == 1:
            (owner,), by = candidates, BY_FRAMES
        top = None if owner is None else self._tops.get(owner)
        name = None if owner is None else self._name(owner)
        if owner is not None and top is None:
            name = f"thread {owner}, which has ended"
        return LockWait(
            thread=self._name(each.ident),
            lock=each.text,
            place=each.place,
            owner=name,
            owner_place=None if top is None else stacks.frame_of(top),
            by="" if owner is None else by,
            ident=each.ident,
            owner_ident=owner,
        )

    # --- who has it -----------------------------------------------------------------------------------

    def _holders(self, wanted: set[int]) -> dict[int, set[int]]:
        """Return by lock the threads with a frame inside a `with` of it, or between its acquire and release."""
        found: dict[int, set[int]] = collections.defaultdict(set)
        for ident, top in self._tops.items():
            given: set[int] = set()  # for the time of a Condition.wait
            frame: FrameType | None = top
            for _ in range(stacks.FRAMES_KEPT):
                if frame is None:
                    break
                if frame.f_code is _WAIT:
                    lock = known.lock_of(values.local_of(frame, "self"))
                    given |= set() if lock is None else {id(lock.itself)}
                for path in self._held(frame):
                    lock = known.lock_of(_value(frame, path))
                    if lock is not None and id(lock.itself) in wanted - given:
                        found[id(lock.itself)].add(ident)
                frame = frame.f_back
        return found

    def _held(self, frame: FrameType) -> Collection[Path]:
        sites = self._sites_of(frame.f_code)
        return () if sites is None else bytecode.held(sites, frame.f_lasti)

    def _asked(self, frame: FrameType) -> Asked | None:
        sites = self._sites_of(frame.f_code)
        return None if sites is None else sites.at.get(frame.f_lasti)

    def _sites_of(self, code: CodeType) -> Sites | None:
        # By id: comparing two codes compares all they contain. The frames keep them alive meanwhile.
        if id(code) not in self._sites:
            self._sites[id(code)] = bytecode.sites(code) if bytecode.concerns_locks(code) else None
        return self._sites[id(code)]

    def _name(self, ident: int) -> str:
        return self._names.get(ident, ("?", None))[0]


# --- frames -----------------------------------------------------------------------------------------------


def _value(frame: FrameType, path: Path) -> Any:
    """Return what a path leads to in a frame; None where that cannot be had without running code."""
    scope, root, *attributes = path
    value = _SCOPES[scope](frame, root)
    for attribute in attributes:
        value = values.part(value, attribute)
    return value


def _holder(frame: FrameType, path: Path) -> Any:
    return _value(frame, path[:-1]) if len(path) > 2 else None


def _position(top: FrameType) -> tuple[int, int, int]:
    return id(top), id(top.f_code), top.f_lasti


def _module(frame: FrameType) -> str:
    name = dict.get(frame.f_globals, "__name__")
    return name if type(name) is str else "?"


def _is_wrapper(frame: FrameType) -> bool:
    return frame.f_code.co_name in _WRAPPERS.get(_module(frame), ())


def _beyond_wrappers(frame: FrameType) -> FrameType:
    while _is_wrapper(frame) and (outer := frame.f_back) is not None:
        frame = outer
    return frame


def _text(frame: FrameType, path: Path) -> str:
    """Return "self._lock of airflow.x.Y" and the like: names in code and of classes, no value."""
    holder, expression = _holder(frame, path), ".".join(path[1:])
    if values.is_a(holder, logging.Handler) and path[-1] == "lock":
        return f"handler lock of {values.class_name(type(holder))}"
    if path[-1] == "wakeup" and known.owned(holder, "wakeup"):
        return f"import lock of {values.part(holder, 'name')}"
    if len(path) > 2:
        if holder is None:
            return expression
        if values.is_a(holder, type):
            return f"{expression} of {values.full_name(holder)}"
        if values.is_a(holder, type(sys)):
            return expression
        return f"{expression} of {values.full_name(type(holder))}"
    if path[0] != "local":
        return f"{expression} of {_module(frame)}"
    function = getattr(frame.f_code, "co_qualname", frame.f_code.co_name)
    return f"{expression} of {_module(frame)}.{function}"

"""The locks that Python has: which objects are one, whether somebody has it, and who, where it says so itself."""

from __future__ import annotations

import _thread
import re
import sys
import threading
from dataclasses import dataclass
from typing import Any

from watchdog_hook.evidence import values

_LOCK: Any = type(_thread.allocate_lock())
_RLOCK: Any = _thread.RLock
_PYTHON_RLOCK: type = threading._RLock
_OWNER = re.compile(r"owner=(\d+) count=([1-9]\d*)")


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock, and what is known of its owner."""

    itself: Any
    owner: int | None = None  # ident
    asks_frames: bool = False  # whose owner only the frames can tell
    shared: bool = False  # with other processes


def lock_of(thing: Any, depth: int = 3) -> Lock | None:
    """Return the lock that a `with` of this, or its acquire(), takes; None for what is no lock."""
    if type(thing) is _LOCK:
        return Lock(thing, asks_frames=True)
    if values.is_a(thing, _RLOCK):
        # Its repr says who has it and takes nothing; that of a subclass could be anything.
        found = _OWNER.search(_RLOCK.__repr__(thing))
        return Lock(thing, int(found[1]) if found else None)
    if values.is_a(thing, _PYTHON_RLOCK):
        return owned(thing, "_block")
    if values.is_a(thing, threading.Condition):
        return lock_of(values.part(thing, "_lock"), depth - 1) if depth else None
    synchronize = sys.modules.get("multiprocessing.synchronize")
    for name in ("Lock", "RLock"):
        kind = values.part(synchronize, name)
        if isinstance(kind, type) and values.is_a(thing, kind):
            return Lock(values.part(thing, "_semlock"), shared=True)
    kind = values.part(synchronize, "Condition")
    if isinstance(kind, type) and values.is_a(thing, kind):
        return lock_of(values.part(thing, "_lock"), depth - 1) if depth else None
    return None


def owned(holder: Any, attribute: str) -> Lock | None:
    """Return the plain lock inside of a lock that is written in Python and notes its owner itself."""
    for kind, inner, note in (
        (_PYTHON_RLOCK, "_block", "_owner"),
        (values.part(sys.modules.get("_frozen_importlib"), "_ModuleLock"), "wakeup", "owner"),
    ):
        if attribute == inner and isinstance(kind, type) and values.is_a(holder, kind):
            owner = values.part(holder, note)
            return Lock(values.part(holder, inner), owner if type(owner) is int else None)
    return None


def taken(lock: Lock, waiter: int) -> bool:
    """Say whether somebody has this lock, other than who seems to wait for it and is about to go on."""
    if lock.shared:
        try:
            return lock.itself is not None and bool(lock.itself._is_zero())
        except (AttributeError, OSError, NotImplementedError):  # a system that does not say
            return True
    if lock.owner == waiter:
        return False
    return _LOCK.locked(lock.itself) if type(lock.itself) is _LOCK else lock.owner is not None

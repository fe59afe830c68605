"""
Forks of the host: never while the watchdog may hold a lock, and without the watchdog in the child.

A lock inherited at fork is the commonest stall of Airflow's processes; ours must never cause one.

Python prints what a hook of a fork raises, and forgets it: where the handler of a signal leaves by an exception
within one, as Airflow's do at SIGTERM, the request to end would be lost. Ours hand it to the thread afterwards.
"""

from __future__ import annotations

import _thread
import ctypes
import os
import time
import weakref
from typing import TYPE_CHECKING

from watchdog_hook.core.model import StuckCallTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchdog_hook.watchdog import Watchdog

PATIENCE = 0.1  # seconds a fork waits for the watchdog's working part to end
PAUSE = 0.001

# os.register_at_fork has no undo, so it is called once and finds the watchdogs here.
_watched: weakref.WeakSet[Watchdog] = weakref.WeakSet()
_registered = False
_raised: list[BaseException] = []  # by handlers of signals, within a fork's hooks


def watch(dog: Watchdog) -> None:
    """Have forks of this process wait for this watchdog, and their children be rid of it."""
    global _registered
    _watched.add(dog)
    if not _registered:
        _registered = True
        os.register_at_fork(
            before=lambda: _whole(_wait), after_in_parent=_after, after_in_child=_forget
        )


def _wait() -> None:
    for dog in list(_watched):
        # The watchdog looks at this after it has said that it is busy: one of the two sees the other.
        dog.forking = True
        deadline = time.monotonic() + PATIENCE
        while dog.working and time.monotonic() < deadline:
            time.sleep(PAUSE)
        dog.deputies.before_fork()


def _go_on() -> None:
    for dog in list(_watched):
        dog.forking = False
        dog.deputies.after_fork()


def _after() -> None:
    _whole(_go_on)
    if _raised:
        error = _raised.pop()
        _raised.clear()
        # Of our own interrupts none is late: the call they are for may be over by then.
        if not isinstance(error, StuckCallTimeout):
            _thread.start_new_thread(_raise_again, (_thread.get_ident(), _like(error)))


def _whole(part: Callable[[], None]) -> None:
    """Do a part of a fork to its end, also where the handler of a signal raises within it."""
    try:
        part()
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the host's
        _raised.append(error)
        part()


def _raise_again(ident: int, error: type[BaseException]) -> None:
    # Raised at once it would come while the fork's hooks still run, and be lost again.
    time.sleep(PAUSE)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(error))


def _like(error: BaseException) -> type[BaseException]:
    """Return a class whose exceptions are like this one: another thread can be given a class only."""
    kind = type(error)

    def begin(self: BaseException) -> None:
        kind.__init__(self, *error.args)

    names = {"__init__": begin, "__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (kind,), names)


def _forget() -> None:
    # No logging and no lock here: whoever held it may not exist in this process.
    _raised.clear()
    for dog in list(_watched):
        dog.forget()
    _watched.clear()

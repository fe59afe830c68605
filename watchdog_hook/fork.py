"""
Forks of the host: never while the watchdog may hold a lock, and without the watchdog in the child.

A lock inherited at fork is the commonest stall of Airflow's processes; ours must never cause one.
"""

from __future__ import annotations

import os
import time
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watchdog_hook.watchdog import Watchdog

PATIENCE = 0.1  # seconds a fork waits for the watchdog's working part to end
PAUSE = 0.001

# os.register_at_fork has no undo, so it is called once and finds the watchdogs here.
_watched: weakref.WeakSet[Watchdog] = weakref.WeakSet()
_registered = False


def watch(dog: Watchdog) -> None:
    """Have forks of this process wait for this watchdog, and their children be rid of it."""
    global _registered
    _watched.add(dog)
    if not _registered:
        _registered = True
        os.register_at_fork(before=_wait, after_in_parent=_go_on, after_in_child=_forget)


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


def _forget() -> None:
    # No logging and no lock here: whoever held it may not exist in this process.
    for dog in list(_watched):
        dog.forget()
    _watched.clear()

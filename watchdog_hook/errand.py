"""Work that may never return: done on a throw-away thread, and waited for only so long."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

# Seconds of a wait, after which the waiting thread wants the interpreter again. Seldom enough not to look as if it
# asked in vain (sentinel/case.py, ASKING), soon enough for a silence of seconds.
STEP = 0.2
SPARES = 4  # threads for what one dump sends at a time: evidence, files, log, a question


class Errands:
    """
    Runs one errand at a time on a daemon thread of its own.

    An errand that has been away for more than `patience` seconds is lost: until it returns after all,
    no other one is sent. A lost errand costs one thread, and nobody waits for it.
    """

    def __init__(self, name: str, patience: float) -> None:
        self._name = name
        self._patience = patience
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Forget the thread and the lock of the parent. Takes no lock."""
        self._turn = threading.Lock()
        self._thread: threading.Thread | _Lent | None = None
        self._sent = 0.0

    def send(self, errand: Callable[[], object], *, wait: float | None = None) -> bool:
        """
        Run an errand; return True when it came back within `wait` seconds (None: our patience).

        False: it is still away, or was not sent at all because one before it is lost; `lost` tells which,
        before sending. Whatever the errand raises is swallowed: it has to see to that itself.
        """
        if not self._turn.acquire(timeout=self._patience):
            return False
        try:
            if self._away(self._patience):
                return False
            thread = _Messenger(target=_quietly, args=(errand,), name=self._name, daemon=True)
            self._sent = time.monotonic()
            try:
                thread.start()
                self._thread = thread
            except RuntimeError:  # no more threads, or the interpreter is going down
                spare = _idle_spare()
                if spare is None:
                    return False
                self._thread = spare.take(errand)
            return not self._away(self._patience if wait is None else wait)
        finally:
            self._turn.release()

    def wait(self) -> bool:
        """Wait for the errand that is away, within our patience; say whether it came back."""
        return not self._away(self._patience)

    def away(self) -> bool:
        """Say whether an errand has not come back yet. Waits for nothing."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def lost(self) -> bool:
        """Say whether an errand is away for longer than our patience."""
        return self.away() and time.monotonic() - self._sent >= self._patience

    def working(self) -> bool:
        """Say whether an errand is under way and expected back."""
        return self.away() and not self.lost()

    def _away(self, wait: float) -> bool:
        """Wait for the errand until `wait` seconds after it was sent; say whether it is still away."""
        thread = self._thread
        if thread is None:
            return False
        until = self._sent + wait
        while thread.is_alive() and (left := until - time.monotonic()) > 0:
            thread.join(min(left, STEP))
        return thread.is_alive()


class _Asking(threading.Event):
    """
    An event whose wait without a limit wants the interpreter every now and then.

    A thread that asks for the interpreter in vain is how the sentinel knows that somebody keeps it. One that waits
    for another thread to begin, which asks in its place, looks as if it waited for anything.
    """

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is not None:
            return super().wait(timeout)
        while not super().wait(STEP):
            pass
        return True


class _Messenger(threading.Thread):
    """A thread whose starter, and whoever waits for its end in steps, goes on wanting the interpreter."""

    def __init__(self, **about: Any) -> None:
        super().__init__(**about)
        # What CPython's Thread.start waits for, without a limit; were it called otherwise, nothing would change.
        self._started = _Asking()


class _Lent:
    """One errand of a spare thread; asked like a thread that has nothing else to do."""

    def __init__(self, errand: Callable[[], object]) -> None:
        self._errand = errand
        self._done = threading.Event()

    def run(self) -> None:
        _quietly(self._errand)
        self._done.set()

    def join(self, seconds: float) -> None:
        self._done.wait(seconds)

    def is_alive(self) -> bool:
        return not self._done.is_set()


class _Spare:
    """A thread that was started while threads could be, and takes one errand after the other."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lent: _Lent | None = None
        self._given: queue.SimpleQueue[_Lent] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="watchdog-hook-spare", daemon=True).start()

    def take(self, errand: Callable[[], object]) -> _Lent:
        self.lent = lent = _Lent(errand)
        self._given.put(lent)
        return lent

    def _run(self) -> None:
        while True:
            self._given.get().run()


_spares: list[_Spare] = []


def keep_ready() -> None:
    """
    Have some threads ready for the errands of the interpreter's end, where no new one can be started then.

    So it is from CPython 3.12 on, as soon as the main thread has begun to leave. Those that wait are kept.
    """
    if sys.version_info >= (3, 12):
        _spares.extend(_Spare() for _ in range(SPARES - len(_idle_spares())))


def _idle_spare() -> _Spare | None:
    return next(iter(_idle_spares()), None)


def _idle_spares() -> list[_Spare]:
    here = os.getpid()  # a forked child has the list, and not the threads
    return [
        spare
        for spare in _spares
        if spare.pid == here and not (spare.lent is not None and spare.lent.is_alive())
    ]


def _quietly(errand: Callable[[], object]) -> None:
    # A traceback of ours on the host's standard error helps nobody.
    with contextlib.suppress(Exception):
        errand()

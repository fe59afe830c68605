"""Work that may never return: done on a throw-away thread, and waited for only so long."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable


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
        self._thread: threading.Thread | None = None
        self._sent = 0.0

    def send(self, errand: Callable[[], None], *, wait: float | None = None) -> bool:
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
            thread = threading.Thread(target=_quietly, args=(errand,), name=self._name, daemon=True)
            self._sent = time.monotonic()
            try:
                thread.start()
            except RuntimeError:  # no more threads, or the interpreter is going down
                return False
            self._thread = thread
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
        thread.join(max(0.0, self._sent + wait - time.monotonic()))
        return thread.is_alive()


def _quietly(errand: Callable[[], None]) -> None:
    # A traceback of ours on the host's standard error helps nobody.
    with contextlib.suppress(Exception):
        errand()

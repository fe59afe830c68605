"""
What a pod watcher leaves for its parent: moments in a page of memory that both have, and nothing else.

Written in the child without a lock, a call or a pipe, and read in the parent at any time. Moments are of the
monotonic clock, which the processes of a machine share.
"""

from __future__ import annotations

import functools
import math
import mmap
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from watchdog_hook.core.watchers import CONNECT, READ, RESOLVE, SLEEP

if TYPE_CHECKING:
    from watchdog_hook.core.observed import Watcher

_SIGN_AT = (
    0  # it read or connected, or came back from that; an event came; the watch began; 0: no hook
)
_DOING = 1
_TIMEOUT = 2  # of that; NaN: none
_HEARD_AT = 3  # an event of the API server
_HEARD = 4  # events so far
_WATCHES = 5  # times the watch was begun
_BEGAN_AT = 6  # the process
_SIZE = 7 * 8
_TRIES = 5  # to read it while it is not being written

_NOTHING, _READS, _CONNECTS, _RESOLVES, _SLEEPS = range(5)
_WORDS = {_READS: READ, _CONNECTS: CONNECT, _RESOLVES: RESOLVE, _SLEEPS: SLEEP}


class Marks:
    """One watcher's page."""

    def __init__(self) -> None:
        # Anonymous and shared: a fork's child writes into the very page that its parent reads.
        self.numbers = memoryview(mmap.mmap(-1, _SIZE)).cast("d")

    @property
    def sign_at(self) -> float:
        """Moment of the last sign of life; 0: the hook is not in that process, as with the start method spawn."""
        return self.numbers[_SIGN_AT]

    @property
    def heard_at(self) -> float:
        """Moment of the last event of the API server; 0: none has come."""
        return self.numbers[_HEARD_AT]

    def added_to(self, watcher: Watcher, now: float, paused_s: float) -> Watcher:
        """Return it with what it has left. `paused_s`: of the time since `sign_at`, in which nothing ran."""
        numbers = self.numbers
        for _ in range(_TRIES):
            # What it does before the time limit of that: they are written the other way round.
            sign_at, doing, timeout = numbers[_SIGN_AT], numbers[_DOING], numbers[_TIMEOUT]
            heard_at = numbers[_HEARD_AT]
            if numbers[_SIGN_AT] == sign_at:
                break
        if not sign_at:
            return watcher
        return replace(
            watcher,
            silent_s=max(0.0, now - sign_at - paused_s),
            doing=_WORDS.get(int(doing)),
            timeout_s=None if math.isnan(timeout) else timeout,
            heard_s=max(0.0, now - heard_at) if heard_at else None,
            heard=int(numbers[_HEARD]),
            watches=int(numbers[_WATCHES]),
            age_s=max(0.0, now - numbers[_BEGAN_AT]),
        )


def leave(marks: Marks, kind: type) -> None:
    """
    In a watcher's own process, just forked: have it leave its marks from now on. Takes no lock.

    `kind` is its class. Its reads are seen where each of them waits for bytes, so that one which trickles, is
    retried by urllib3 or belongs to a new watch counts as what it is, and with the timeout that it really has.
    So are the pauses between urllib3's retries, which may be long where the server asks for that.
    """
    hook = _Hook(marks.numbers)
    hook.numbers[_BEGAN_AT] = hook.numbers[_SIGN_AT] = time.monotonic()
    hook.numbers[_TIMEOUT] = math.nan
    for owner, name, around in (
        (socket.SocketIO, "readinto", hook.waiting(_READS, lambda reader, _: _limit(reader._sock))),
        (socket.socket, "connect", hook.waiting(_CONNECTS, lambda sock, _: _limit(sock))),
        (socket, "getaddrinfo", hook.waiting(_RESOLVES, lambda *_, **__: None)),
        (time, "sleep", hook.waiting(_SLEEPS, lambda seconds: seconds)),
        (kind, "_run", hook.counting(_WATCHES)),
        (kind, "process_status", hook.counting(_HEARD, _HEARD_AT)),
        (kind, "process_error", hook.counting(_HEARD, _HEARD_AT)),
    ):
        original = getattr(owner, name, None)
        if original is not None:
            setattr(owner, name, around(original))
    os.register_at_fork(after_in_child=hook.leave_off)


class _Hook:
    """Marks around methods. What the method returns or raises passes; no mistake of ours reaches it."""

    def __init__(self, numbers: memoryview[float]) -> None:
        self.numbers = numbers
        self._main = threading.get_ident()

    def leave_off(self) -> None:
        """In a child of the watcher's: that one's signs are not the watcher's."""
        self._main = -1

    def waiting(
        self, doing: int, limit: Callable[..., float | None]
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Return a wrapper of a method that waits; `limit` gets its arguments, and returns its time limit."""

        def around(original: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(original)
            def method(*args: Any, **kwargs: Any) -> Any:
                self._begin(doing, limit, args, kwargs)
                try:
                    return original(*args, **kwargs)
                finally:
                    self._end()

            return method

        return around

    def counting(
        self, counter: int, moment: int = _SIGN_AT
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Return a wrapper of a method whose calls are counted, with the moment of the last."""

        def around(original: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(original)
            def method(*args: Any, **kwargs: Any) -> Any:
                try:
                    self._count(counter, moment)
                except Exception:  # noqa: BLE001, S110 - there is no one to tell, and the watcher has to go on
                    pass
                return original(*args, **kwargs)

            return method

        return around

    def _count(self, counter: int, moment: int) -> None:
        if threading.get_ident() == self._main:
            numbers = self.numbers
            numbers[counter] += 1
            numbers[moment] = numbers[_SIGN_AT] = time.monotonic()

    def _begin(
        self, doing: int, limit: Callable[..., float | None], args: Any, kwargs: Any
    ) -> None:
        try:
            if threading.get_ident() == self._main:
                numbers, seconds = self.numbers, limit(*args, **kwargs)
                numbers[_TIMEOUT] = math.nan if seconds is None else seconds
                numbers[_DOING] = doing
                numbers[_SIGN_AT] = time.monotonic()
        except Exception:  # noqa: BLE001, S110 - as above; such a wait counts as none
            pass

    def _end(self) -> None:
        try:
            if threading.get_ident() == self._main:
                self.numbers[_DOING] = _NOTHING
                self.numbers[_SIGN_AT] = time.monotonic()
        except Exception:  # noqa: BLE001, S110 - as above
            pass


def _limit(sock: Any) -> float | None:
    timed = sock if hasattr(sock, "gettimeout") else sock.socket  # pyOpenSSL's, of urllib3
    limit: float | None = timed.gettimeout()
    return limit

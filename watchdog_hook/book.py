"""The book of calls: which thread is in which call, and the last ones before."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable

from watchdog_hook.actions import interrupt
from watchdog_hook.core.model import Call, CallRecord, InFlight, StuckCallTimeout

KEPT = 200


class Book:
    """
    One slot per thread for the call it is in; calls nest. Written by the calling threads, read by the watchdog.

    No lock: every step is one dictionary or deque operation, whole by itself in CPython.
    """

    def __init__(self, now: Callable[[], float], kept: int = KEPT) -> None:
        self._now = now
        self._slots: dict[int, InFlight] = {}
        self._past: deque[InFlight] = deque(maxlen=kept)
        self._serials = itertools.count(1)
        self.entered = 0
        self.left = 0

    def enter(
        self,
        call: Call,
        *,
        guarded: bool = False,
        limit: float | None = None,
        error: type[StuckCallTimeout] = StuckCallTimeout,
    ) -> InFlight:
        """Write down that this thread begins a call. A guarded one may be ended by the watchdog."""
        thread = threading.get_ident()
        flight = InFlight(
            next(self._serials),
            call,
            thread,
            self._now(),
            guarded=guarded,
            limit=limit,
            error=error,
            outer=self.current(thread),
        )
        self._slots[thread] = flight
        self.entered = flight.serial
        return flight

    def leave(self, flight: InFlight, answer: str | None = None) -> None:
        """Write down that a call ended, and how. After this it cannot be interrupted any more. Idempotent."""
        interrupt.leave(flight)
        if flight.ended is not None:
            return
        flight.ended = self._now()
        flight.answer = answer
        flight.owner = _thread_name(flight.thread)  # an ident may be used again later
        current = self._slots.get(flight.thread)
        if flight.fired and current is not flight and _holds(current, flight):
            # What was nested in it ended with it, perhaps too abruptly to say so.
            while current is not None and current is not flight:
                current.closed, current.ended = True, flight.ended
                current.answer = current.answer or answer
                current = current.outer
        if current is flight:
            if flight.outer is None:
                self._slots.pop(flight.thread, None)
            else:
                self._slots[flight.thread] = flight.outer
        else:
            # A streamed answer may be closed after a later call began.
            while current is not None:
                if current.outer is flight:
                    current.outer = flight.outer
                    break
                current = current.outer
        self._past.append(flight)
        self.left += 1

    def current(self, thread: int) -> InFlight | None:
        """Return the innermost call this thread is in."""
        flight = self._slots.get(thread)
        while flight is not None and flight.closed:
            flight = flight.outer  # an exception came between closing it and taking it out
        return flight

    def in_flight(self) -> tuple[InFlight, ...]:
        """Return the innermost call of every thread that is in one."""
        found = (self.current(thread) for thread in self._slots.copy())
        return tuple(flight for flight in found if flight is not None)

    def records(
        self, names: dict[int, str] | None = None
    ) -> tuple[tuple[CallRecord, ...], tuple[CallRecord, ...]]:
        """Return the calls in flight, and the last ones that ended (newest last)."""
        now, names = self._now(), names or {}

        def record(flight: InFlight) -> CallRecord:
            return CallRecord(
                call=flight.call.name,
                peer=str(flight.call.peer) if flight.call.peer else None,
                thread=flight.owner or names.get(flight.thread, str(flight.thread)),
                started_ago_s=now - flight.started,
                duration_s=None if flight.ended is None else flight.ended - flight.started,
                answer=flight.answer,
                guarded=flight.guarded,
                bytes=flight.bytes,
            )

        open_ones = []
        for flight in self.in_flight():
            nested: InFlight | None = flight
            while nested is not None:
                open_ones.append(record(nested))
                nested = nested.outer
        return tuple(open_ones), tuple(record(flight) for flight in self._past.copy())

    def forget(self) -> None:
        """In a forked child: no call is in flight here."""
        self._slots = {}


def _holds(current: InFlight | None, flight: InFlight) -> bool:
    while current is not None and current is not flight:
        current = current.outer
    return current is flight


class Guard:
    """
    `with dog.guard("name"):` around a call that may be interrupted. Raises StuckCallTimeout when it was.

    Once the watchdog has fired, the outcome is unknown, whatever the call then returns or raises.
    """

    def __init__(self, book: Book, name: str) -> None:
        self._book = book
        self._name = name
        self._flight: InFlight | None = None

    def __enter__(self) -> Guard:
        self._flight = self._book.enter(Call(self._name, kind="guard"), guarded=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        flight = self._flight
        if flight is None:
            return
        answer = "returned" if kind is None else kind.__name__
        try:
            self._book.leave(flight, answer)
        except flight.error:  # at the very first instruction of leaving; a second one cannot come
            self._book.leave(flight, answer)
        if flight.fired and not isinstance(error, StuckCallTimeout) and _ordinary(error):
            raise flight.error(flight.call.name, (flight.ended or 0.0) - flight.started) from error

    def __del__(self) -> None:
        # An asynchronous exception may arrive at the very first instruction of __exit__: the with
        # statement then drops us unleft. The caller has its StuckCallTimeout; the book must not keep us.
        if self._flight is not None and self._flight.ended is None:
            self._book.leave(self._flight, "StuckCallTimeout")


def _thread_name(ident: int) -> str | None:
    # Not current_thread(): it makes an entry for a thread that threading does not know.
    thread = getattr(threading, "_active", {}).get(ident)
    return None if thread is None else str(thread.name)


def _ordinary(error: BaseException | None) -> bool:
    """SystemExit and KeyboardInterrupt are stronger than a timeout of ours."""
    return error is None or isinstance(error, Exception)

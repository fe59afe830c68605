"""
End one call in flight, and no other code.

Two halves of one protocol. The watchdog's half proves that the call is stuck, and fires. The victim's half
decides at delivery whether the shot still means this call: in the main thread inside the signal handler, in
any other thread by two flags with one writer each (`closed`, `firing`) when the call is left.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from watchdog_hook.core.model import InFlight, ThreadReading

# Its default action is to be ignored, so a stray one cannot kill a child or an exec'ed program.
SIGNAL = signal.SIGURG

# As the first part of a position: any frame of that code will do. Between two bytes of a trickling answer
# the innermost frame is made anew.
ANY_FRAME = 0


def leave(flight: InFlight) -> None:
    """
    Close a call, in the thread that made it. After this returns no exception of this call can come.

    An asynchronous exception that was under way is absorbed: the call had already ended.
    """
    while True:
        try:
            flight.closed = True
            while flight.firing:
                time.sleep(0.0002)
            if flight.fired and flight.thread != threading.main_thread().ident:
                _set_async(flight.thread, None)
            return
        except flight.error:
            continue


class Interrupter:
    """The levers of this process. `current` tells which call a thread is in, for the check at delivery."""

    def __init__(self, current: Callable[[int], InFlight | None]) -> None:
        self._current = current
        self._pid = 0
        self._pending: tuple[InFlight, tuple[int, int, int], str | None] | None = None
        self._previous: Any = None
        self._action = b""
        self.unavailable: str | None = "not armed"

    def arm(self) -> None:
        """Take the signal. Only the main thread can; elsewhere the other levers remain."""
        self._pid = os.getpid()
        if threading.current_thread() is not threading.main_thread():
            self.unavailable = "not armed in the main thread"
            return
        self._previous = signal.signal(SIGNAL, self._deliver)
        self._action = installed_action()
        self.unavailable = None

    def disarm(self) -> None:
        """Give the signal back, if it is still ours."""
        self._pending = None
        if self.unavailable is not None:
            return
        self.unavailable = "disarmed"
        if threading.current_thread() is not threading.main_thread():
            return  # the handler stays, and does nothing without a pending call
        if signal.getsignal(SIGNAL) == self._deliver:
            signal.signal(SIGNAL, signal.SIG_DFL if self._previous is None else self._previous)

    def forget(self) -> None:
        """In a forked child: the signal gets its default action, nothing is pending."""
        self._pending = None
        if self.unavailable is None:
            self.unavailable = "forked"
            signal.signal(SIGNAL, signal.SIG_DFL)

    def levers(self, flight: InFlight, reading: ThreadReading) -> tuple[str, ...]:
        """Return the levers that can reach this call where it stands, best first."""
        main = flight.thread == threading.main_thread().ident
        found = []
        if main and self.unavailable is None and self._still_ours():
            found.append("signal")
        if reading.descriptor is not None:
            found.append("shutdown")
        return tuple(found)

    def fire(
        self, lever: str, flight: InFlight, reading: ThreadReading, incident: str | None, age: float
    ) -> str:
        """Pull a lever. Return what happened: `fired`, or why not. Whether it lands is seen at the next look."""
        if os.getpid() != self._pid:
            return "another process"
        flight.incident = incident
        if lever == "signal":
            self._pending = (flight, reading.position, incident)
            signal.pthread_kill(flight.thread, SIGNAL)
            return "fired"
        flight.firing = True
        try:
            if flight.closed:
                return "call had ended"
            if flight.thread != threading.main_thread().ident:
                if flight.fired:
                    # The exception may be out already, and the thread at some other socket.
                    return "fired before"
                # Unique to this call, so that the victim can tell a late one from anything else.
                error = flight.error
                flight.error = type(
                    error.__name__,
                    (error,),
                    {
                        "call": flight.call.name,
                        "age_s": age,
                        "incident": incident,
                        "__module__": error.__module__,
                    },
                )
                flight.fired = True
                _set_async(flight.thread, flight.error)
            flight.fired = True
            return "fired" if _shut_down(reading.descriptor) else "socket gone"
        finally:
            flight.firing = False

    def _deliver(self, signum: int, frame: FrameType | None) -> None:
        # Runs in the main thread between two instructions, or inside the blocked system call.
        pending, self._pending = self._pending, None
        if pending is None or os.getpid() != self._pid:
            if callable(self._previous):
                self._previous(signum, frame)
            return
        flight, position, incident = pending
        if (
            frame is None
            or flight.closed
            or not _within(self._current(flight.thread), flight)
            or (id(frame.f_code), frame.f_lasti) != position[1:]
            or position[0] not in (ANY_FRAME, id(frame))
        ):
            return  # late: the call ended or went on by itself
        flight.fired = True
        raise flight.error(flight.call.name, time.monotonic() - flight.started, incident)

    def _still_ours(self) -> bool:
        # A native library may take the signal behind Python's back: compare the kernel's own entry.
        return signal.getsignal(SIGNAL) == self._deliver and installed_action() == self._action


def _within(current: InFlight | None, flight: InFlight) -> bool:
    while current is not None:
        if current is flight:
            return True
        current = current.outer
    return False


def _set_async(ident: int, error: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(ident), ctypes.py_object(error) if error is not None else None
    )


def _shut_down(descriptor: int | None) -> bool:
    # On a duplicate: the descriptor may be closed and reused by its owner at any time, and
    # SSLSocket.shutdown would forget the TLS state. Never a datagram socket: its reader would spin.
    if descriptor is None:
        return False
    # The object is made for another socket first: made from the descriptor, it would set the original
    # non-blocking where somebody has set a default timeout.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as twin:
        try:
            twin.settimeout(None)
            os.dup2(descriptor, twin.fileno(), inheritable=False)
            if twin.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) != socket.SOCK_STREAM:
                return False
            twin.shutdown(socket.SHUT_RDWR)
            return True
        except OSError:
            return False


def installed_action(number: int = SIGNAL) -> bytes:
    """Return the address of the handler that the kernel has for a signal; empty where libc does not say."""
    try:
        entry = ctypes.create_string_buffer(512)
        if _sigaction()(int(number), None, entry) != 0:
            return b""
        return entry.raw[: ctypes.sizeof(ctypes.c_void_p)]
    except (OSError, AttributeError):
        return b""


@functools.cache  # a forked child must not wait for the loader's lock
def _sigaction() -> Any:
    return ctypes.CDLL(None).sigaction

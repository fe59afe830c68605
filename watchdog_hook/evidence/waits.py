"""What a system call waits for: its descriptors, its child, its timeout, by its number and arguments."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from watchdog_hook.core.observed import Descriptor, Wait
from watchdog_hook.evidence import descriptors, memory, sockets, syscalls

if TYPE_CHECKING:
    from watchdog_hook.evidence.descriptors import Describer

SET_KEPT = 32  # descriptors of a set that are described

_POLLFDS_READ = 4096
_PAGE_FAULT = -1  # instead of a number: the thread sleeps outside of a system call
# What a thread sleeps in while a call goes on that a signal or a stop had interrupted.
_RESTARTED = {
    "poll_schedule": "poll",
    "do_poll": "poll",
    "do_sys_poll": "poll",
    "futex": "futex",
    "nanosleep": "nanosleep",
    "nsleep": "nanosleep",
}
_P_PID, _P_PIDFD = 1, 3
_AT_FDCWD = -100
_TIMER_ABSTIME = 1
_FUTEX_COMMAND, _FUTEX_CLOCK_REALTIME = 0x7F, 0x100
_FUTEX_WAIT = 0
_FUTEX_MOMENTS = (6, 9, 11, 13)  # LOCK_PI, WAIT_BITSET, WAIT_REQUEUE_PI, LOCK_PI2: until, not for
_FUTEX_LOCK_PI = 6


def read(
    number: int,
    arguments: tuple[int, ...],
    wchan: str | None,
    task: str,
    describer: Describer,
    missed: dict[str, str],
) -> Wait:
    """
    Return what a call waits for. Never raises; what cannot be read is left out.

    `restart_syscall` has the arguments of the call that it goes on with, but not its number: where `wchan`
    tells which one, that one is named.
    """
    if number == _PAGE_FAULT:
        return Wait("page fault")
    name = syscalls.name_of(number)
    restarted = name == "restart_syscall"
    if restarted:
        name = next((call for sign, call in _RESTARTED.items() if sign in (wchan or "")), name)
    wait = Wait(name, arguments)
    if restarted and name == "nanosleep":
        return wait  # of whichever kind: their arguments differ
    try:
        timeout, deadline = _timeout(name, arguments)
        wait = replace(wait, timeout_s=timeout, deadline=deadline)
    except (OSError, ValueError, OverflowError) as error:
        missed["timeouts of system calls"] = why(error)
    try:
        return _awaited(wait, task, describer)
    except (OSError, ValueError, OverflowError) as error:
        missed["what system calls wait for"] = why(error)
        return wait


def why(error: Exception) -> str:
    """Say in a word why something of this process could not be read."""
    if isinstance(error, PermissionError):
        with contextlib.suppress(OSError):
            # Then the files under it belong to root (proc(5)).
            if os.stat("/proc/self/mem").st_uid != os.geteuid():
                return f"{error.strerror}: this process is not dumpable"
    return getattr(error, "strerror", None) or type(error).__name__


def _awaited(wait: Wait, task: str, describer: Describer) -> Wait:
    name, arguments = wait.syscall, wait.arguments
    if name in syscalls.POLLS:
        count = arguments[1]
        table = memory.polled(arguments[0], min(count, _POLLFDS_READ))
        return _with_set(wait, [fd for fd, _ in table if fd >= 0], count - len(table), describer)
    if name in syscalls.SELECTS:
        bits = memory.selected(_signed(arguments[0]), arguments[1:4])
        return _with_set(
            wait, [fd for fd in range(bits.bit_length()) if bits >> fd & 1], 0, describer
        )
    if name in syscalls.EPOLLS:
        return _with_set(wait, descriptors.in_epoll(_signed(arguments[0])), 0, describer)
    if name == "wait4":
        pid = _signed(arguments[0])
        return replace(wait, child=pid if pid > 0 else None)
    if name == "waitid":
        return _waitid(wait, describer)
    if name == "close":
        # Its number is free already: whatever has it now is not what this call is about.
        return replace(wait, descriptors=(Descriptor(_signed(arguments[0]), "gone"),))
    if name in ("flock", "fcntl"):
        number = _signed(arguments[0])
        held = replace(describer.describe(number), holders=describer.lockers(number))
        return replace(wait, descriptors=(held,))
    if name in syscalls.DESCRIPTORS:
        numbers = [_signed(arguments[at]) for at in syscalls.DESCRIPTORS[name]]
        return _with_set(wait, numbers, 0, describer)
    if name in syscalls.PATHS:
        return _with_path(wait, *syscalls.PATHS[name], task, describer)
    return wait


def _with_set(wait: Wait, numbers: list[int], more: int, describer: Describer) -> Wait:
    different = list(dict.fromkeys(numbers))
    described = tuple(describer.describe(fd) for fd in itertools.islice(different, SET_KEPT))
    return replace(wait, descriptors=described, more=more + len(different) - len(described))


def _waitid(wait: Wait, describer: Describer) -> Wait:
    kind, number = _signed(wait.arguments[0]), _signed(wait.arguments[1])
    if kind == _P_PID:
        return replace(wait, child=number)
    if kind == _P_PIDFD:
        described = (describer.describe(number),)
        return replace(wait, descriptors=described, child=descriptors.child_of(number))
    return wait


def _with_path(wait: Wait, folder: int | None, at: int, task: str, describer: Describer) -> Wait:
    path = memory.path(wait.arguments[at])
    if not path:  # the call is about the descriptor itself, as fstat() is
        return (
            wait
            if folder is None
            else _with_set(wait, [_signed(wait.arguments[folder])], 0, describer)
        )
    if not path.startswith("/"):
        start = _AT_FDCWD if folder is None else _signed(wait.arguments[folder])
        base = f"{task}/cwd" if start == _AT_FDCWD else f"/proc/self/fd/{start}"
        path = f"{sockets.read_link(base).rstrip('/')}/{path}"
    return replace(wait, descriptors=(describer.named(path),))


def _timeout(name: str, arguments: tuple[int, ...]) -> tuple[float | None, bool]:
    """Return the seconds that a call has, and whether they count from now because it names a moment."""
    if name in syscalls.MILLISECONDS:
        milliseconds = _signed(arguments[syscalls.MILLISECONDS[name]])
        return (milliseconds / 1000 if milliseconds >= 0 else None), False
    address, clock = _time_of(name, arguments)
    if not address:
        return None, False
    seconds = memory.seconds(address, microseconds=name == "select")
    return (seconds, False) if clock is None else (_until(seconds, clock), True)


def _time_of(name: str, arguments: tuple[int, ...]) -> tuple[int, int | None]:
    """Return where a call's timeout stands, 0 for nowhere, and the clock if it is a moment of one."""
    if name == "clock_nanosleep":
        return arguments[2], arguments[0] if arguments[1] & _TIMER_ABSTIME else None
    if name == "futex":
        command = arguments[1] & _FUTEX_COMMAND
        if command == _FUTEX_WAIT:
            return arguments[3], None
        if command not in _FUTEX_MOMENTS:  # what stands there is no timeout
            return 0, None
        by_the_wall = arguments[1] & _FUTEX_CLOCK_REALTIME or command == _FUTEX_LOCK_PI
        return arguments[3], time.CLOCK_REALTIME if by_the_wall else time.CLOCK_MONOTONIC
    if name in syscalls.MOMENTS:
        at, clock_at = syscalls.MOMENTS[name]
        return arguments[at], time.CLOCK_REALTIME if clock_at is None else _signed(
            arguments[clock_at]
        )
    return (arguments[syscalls.DURATIONS[name]], None) if name in syscalls.DURATIONS else (0, None)


def _until(moment: float, clock: int) -> float:
    return max(0.0, moment - time.clock_gettime(clock))


def _signed(argument: int) -> int:
    """Return an argument as the int that it is in C: the upper half of its register means nothing."""
    return (argument & 0x7FFF_FFFF) - (argument & 0x8000_0000)

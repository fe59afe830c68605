"""What the kernel says about one thread of this process, from /proc/self."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType

from watchdog_hook.core.observed import ThreadInKernel, Wait
from watchdog_hook.evidence import memory, sockets, syscalls, waits
from watchdog_hook.evidence.descriptors import Describer

# What `descriptor_waited_for` understands: calls with the descriptor as their first argument, then the ones
# that wait for several.
_DIRECT = syscalls.numbers("read", "write", "connect", "sendto", "recvfrom", "sendmsg", "recvmsg")
_POLL = syscalls.numbers(*syscalls.POLLS)
_SELECT = syscalls.numbers(*syscalls.SELECTS)
_READABLE_OR_WRITABLE = 0x1 | 0x4

_NOBODY: Mapping[int, str] = MappingProxyType({})
_CALLS = "system calls of threads"
_TRIES = 3  # at a thread that moves while it is looked at
_TICKS = os.sysconf("SC_CLK_TCK")


def voluntary_switches(native_id: int, missed: dict[str, str]) -> int | None:
    """Return how often the thread gave up the processor by itself: unchanged means it never woke."""
    try:
        status = _content(f"/proc/self/task/{native_id}/status")
        return int(status.rpartition(b"\nvoluntary_ctxt_switches:")[2].split(None, 1)[0])
    except (OSError, ValueError, IndexError) as error:
        missed["wake-ups of threads"] = waits.why(error)
    return None


def descriptor_waited_for(native_id: int, missed: dict[str, str]) -> int | None:
    """Return the one stream socket that the thread's system call waits on; None for none or several."""
    machine = syscalls.MACHINE
    if machine not in _DIRECT:
        missed[_CALLS] = f"unknown machine {machine}"
        return None
    try:
        number, arguments = _call(_words(native_id))
        if number is None:
            return None
        if number in _DIRECT[machine]:
            descriptor: int | None = arguments[0]
        elif number in _POLL[machine]:
            descriptor = _polled(arguments[0], arguments[1])
        elif number in _SELECT[machine]:
            descriptor = _selected(arguments[0], arguments[1:3])
        else:
            return None
    except (OSError, ValueError, IndexError, OverflowError) as error:
        missed[_CALLS] = waits.why(error)
        return None
    return descriptor if descriptor is not None and sockets.is_stream(descriptor) else None


def thread_in_kernel(
    native_id: int, missed: dict[str, str], *, children: Mapping[int, str] = _NOBODY
) -> ThreadInKernel | None:
    """
    Return the state of a thread and what it waits on; None for a thread that has ended. Never raises.

    `children`, name by pid, are the processes that may hold the other end of a pipe.
    """
    task = f"/proc/self/task/{native_id}"
    failed: dict[str, str] = {}
    seen = _read(native_id, task, children, failed)
    if failed and not os.path.exists(task) and os.path.exists("/proc/self"):
        return None  # it has ended: no gap
    missed.update(failed)
    return seen


def _read(
    native_id: int, task: str, children: Mapping[int, str], missed: dict[str, str]
) -> ThreadInKernel | None:
    try:
        # pid (name) state …: the name may hold anything, brackets too. utime and stime are 14 and 15, proc(5).
        words = _content(f"{task}/stat").rpartition(b")")[2].split()
        state, cpu_s = (
            words[0].decode("ascii", "replace"),
            (int(words[11]) + int(words[12])) / _TICKS,
        )
    except (OSError, ValueError, IndexError) as error:
        missed["states of threads"] = waits.why(error)
        return None
    wchan = _wchan(task, missed)
    wait = _wait(native_id, task, wchan, Describer(children, missed), missed)
    voluntary, involuntary = _switches(task, missed)
    return ThreadInKernel(native_id, state, wchan, wait, voluntary, involuntary, cpu_s)


def _wait(
    native_id: int, task: str, wchan: str | None, describer: Describer, missed: dict[str, str]
) -> Wait | None:
    try:
        words = _words(native_id)
        for _ in range(_TRIES):
            number, arguments = _call(words)
            if number is None:
                return None
            failed: dict[str, str] = {}
            wait = waits.read(number, arguments, wchan, task, describer, failed)
            # Last whether it is in the same call still: what lies between is about one call, and an address
            # of one that is over leads to whatever is there now.
            before, words = words, _words(native_id)
            if words == before:
                missed.update(failed)
                if syscalls.MACHINE not in syscalls.NAMES:
                    missed[_CALLS] = f"unknown machine {syscalls.MACHINE}"
                return wait
        # It wakes and waits again all the time: the name of the call is what can be relied on.
        return Wait(wait.syscall, wait.arguments)
    except (OSError, ValueError, IndexError) as error:
        missed[_CALLS] = waits.why(error)
        return None


def _words(native_id: int) -> list[bytes]:
    return _content(f"/proc/self/task/{native_id}/syscall").split()


def _call(words: list[bytes]) -> tuple[int | None, tuple[int, ...]]:
    """Return number and arguments of a call; -1 while it sleeps outside of one, None while it runs."""
    # proc(5): "running", or "-1 SP PC", or the number, six arguments, SP and PC.
    if len(words) >= 7:
        return int(words[0]), tuple(int(word, 16) for word in words[1:7])
    return (-1 if words[0] == b"-1" else None), ()


def _wchan(task: str, missed: dict[str, str]) -> str | None:
    try:
        name = _content(f"{task}/wchan").decode("ascii", "replace").strip()
    except OSError as error:
        missed["wait channels of threads"] = waits.why(error)
        return None
    return None if name in ("", "0") else name


def _switches(task: str, missed: dict[str, str]) -> tuple[int | None, int | None]:
    found: dict[bytes, int] = {}
    try:
        for row in _content(f"{task}/status").splitlines():
            name, _, value = row.partition(b":")
            if name.endswith(b"voluntary_ctxt_switches"):
                found[name] = int(value)
    except (OSError, ValueError) as error:
        missed["wake-ups of threads"] = waits.why(error)
    return found.get(b"voluntary_ctxt_switches"), found.get(b"nonvoluntary_ctxt_switches")


def _content(path: str) -> bytes:
    # No file object: this is asked at every look.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)


def _polled(address: int, count: int) -> int | None:
    if count != 1:
        return None
    ((descriptor, wanted),) = memory.polled(address, 1)
    return descriptor if wanted & _READABLE_OR_WRITABLE else None


def _selected(limit: int, sets: tuple[int, ...]) -> int | None:
    bits = memory.selected(limit, sets) if limit <= 1024 else 0
    return bits.bit_length() - 1 if bits and bits & (bits - 1) == 0 else None

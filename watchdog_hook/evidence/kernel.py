"""What the kernel says about one thread of this process, from /proc/self."""

from __future__ import annotations

import os
import struct

from watchdog_hook.evidence import sockets

# Calls with the descriptor as their first argument, then the ones that wait for several: by machine.
_DIRECT: dict[str, frozenset[int]] = {
    # read, write, connect, sendto, recvfrom, sendmsg, recvmsg
    "x86_64": frozenset({0, 1, 42, 44, 45, 46, 47}),
    "aarch64": frozenset({63, 64, 203, 206, 207, 211, 212}),
}
_POLL = {"x86_64": frozenset({7, 271}), "aarch64": frozenset({73})}  # poll, ppoll
_SELECT = {"x86_64": frozenset({23, 270}), "aarch64": frozenset({72})}  # select, pselect6
_POLLFD = struct.Struct("=ihh")
_READABLE_OR_WRITABLE = 0x1 | 0x4


def voluntary_switches(native_id: int, missed: dict[str, str]) -> int | None:
    """Return how often the thread gave up the processor by itself: unchanged means it never woke."""
    try:
        with open(f"/proc/self/task/{native_id}/status", "rb") as file:
            for line in file:
                if line.startswith(b"voluntary_ctxt_switches:"):
                    return int(line.split()[1])
    except (OSError, ValueError, IndexError) as error:
        missed["wake-ups of threads"] = _why(error)
    return None


def descriptor_waited_for(native_id: int, missed: dict[str, str]) -> int | None:
    """Return the one stream socket that the thread's system call waits on; None for none or several."""
    machine = os.uname().machine
    if machine not in _DIRECT:
        missed["system calls of threads"] = f"unknown machine {machine}"
        return None
    try:
        with open(f"/proc/self/task/{native_id}/syscall", "rb") as file:
            words = file.read().split()
        if len(words) < 7:  # "running", or "-1" while it waits outside of a system call
            return None
        number, arguments = int(words[0]), [int(word, 16) for word in words[1:7]]
        if number in _DIRECT[machine]:
            descriptor: int | None = arguments[0]
        elif number in _POLL[machine]:
            descriptor = _polled(arguments[0], arguments[1])
        elif number in _SELECT[machine]:
            descriptor = _selected(arguments[0], arguments[1:3])
        else:
            return None
    except (OSError, ValueError, struct.error) as error:
        missed["system calls of threads"] = _why(error)
        return None
    return descriptor if descriptor is not None and sockets.is_stream(descriptor) else None


def _polled(address: int, count: int) -> int | None:
    if count != 1:
        return None
    descriptor, wanted, _ = _POLLFD.unpack(_memory(address, _POLLFD.size))
    return int(descriptor) if wanted & _READABLE_OR_WRITABLE else None


def _selected(limit: int, sets: list[int]) -> int | None:
    if not 0 < limit <= 1024:
        return None
    size = (limit + 7) // 8
    bits = 0
    for address in sets:
        if address:
            bits |= int.from_bytes(_memory(address, size), "little")
    bits &= (1 << limit) - 1
    return bits.bit_length() - 1 if bits and bits & (bits - 1) == 0 else None


def _memory(address: int, size: int) -> bytes:
    # Through the file, not through ctypes: an address that is no longer mapped is an error here, not a crash.
    with open("/proc/self/mem", "rb", buffering=0) as file:
        file.seek(address)
        data = file.read(size)
    if len(data) != size:
        raise ValueError(f"only {len(data)} of {size} bytes")
    return data


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__

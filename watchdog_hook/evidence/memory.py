"""What a waiting thread handed to its system call, from this process's own memory. Addresses are never trusted."""

from __future__ import annotations

import struct

_POLLFD = struct.Struct("=ihh")
_TIME = struct.Struct("=qq")  # of a 64-bit program: seconds, then micro- or nanoseconds
_PAGE = 4096
_SELECT_LIMIT = 1 << 16  # descriptors; more are not believed


def read(address: int, size: int) -> bytes:
    """Return bytes of this process. Raises OSError where nothing is mapped, ValueError where too little is."""
    # Through the file, not through ctypes: an address that is no longer mapped is an error here, not a crash.
    with open("/proc/self/mem", "rb", buffering=0) as file:
        file.seek(address)
        data = file.read(size)
    if len(data) != size:
        raise ValueError(f"only {len(data)} of {size} bytes")
    return data


def polled(address: int, count: int) -> list[tuple[int, int]]:
    """Return descriptor and wanted events of each `struct pollfd`."""
    return [(fd, wanted) for fd, wanted, _ in _POLLFD.iter_unpack(read(address, count * 8))]


def selected(limit: int, addresses: tuple[int, ...]) -> int:
    """Return what is in any of these sets of select(), as bits; 0 for a limit that cannot be."""
    if not 0 < limit <= _SELECT_LIMIT:
        return 0
    bits = 0
    for address in addresses:
        if address:
            bits |= int.from_bytes(read(address, (limit + 7) // 8), "little")
    return bits & ((1 << limit) - 1)


def seconds(address: int, *, microseconds: bool = False) -> float:
    """Return a timespec, or with `microseconds` a timeval, in seconds."""
    whole, part = _TIME.unpack(read(address, _TIME.size))
    return float(whole + part * (1e-6 if microseconds else 1e-9))


def path(address: int) -> str:
    """Return a path as the call was given it; of a very long one nothing."""
    data = b""
    while len(data) < _PAGE:
        # Never past the end of a page: what lies behind it may not be mapped.
        data += read(address + len(data), _PAGE - (address + len(data)) % _PAGE)
        if b"\0" in data:
            return data[: data.index(b"\0")].decode("utf-8", "replace")
    return ""

"""Descriptors of ours among those of the host: never one of the standard three, never taken for one of its own."""

from __future__ import annotations

import fcntl
import os

BACKSTOP = "watchdog_hook.backstop"  # the memory into which faulthandler writes
STANDARD = 3  # numbers that every program takes for its input, its output and its errors


class Own:
    """
    One of ours. The host may close whatever it does not know, and give the number to a file of its own.

    So it is looked at before it is written to, cut off or closed. Of a file that the host may open too, as that
    behind its standard error, this tells nothing: `witness` is one of ours that was opened before it, of a file
    that nobody else can open. Who closes what he does not know closes both.
    """

    __slots__ = ("_file", "_witness", "fd")

    def __init__(self, fd: int, witness: Own | None = None) -> None:
        self.fd = fd
        self._file = _file(fd)
        self._witness = witness

    def is_ours(self) -> bool:
        """Tell whether the number still stands for our file."""
        if self._witness is not None and not self._witness.is_ours():
            return False
        return self._file is not None and _file(self.fd) == self._file

    def size(self) -> int:
        """Return how many bytes our file has; 0 where the number does not stand for it any more."""
        try:
            found = os.fstat(self.fd)
        except OSError:
            return 0
        return found.st_size if (found.st_dev, found.st_ino) == self._file else 0

    def is_same_file(self, other: Own) -> bool:
        """Tell whether both were opened of the same file."""
        return self._file is not None and self._file == other._file

    def close(self) -> None:
        """Give it back, if it is still ours. Never raises."""
        if self.is_ours():
            try:
                os.close(self.fd)
            except OSError:
                pass
        self._file = None


def memory(name: str) -> int:
    """Return memory that is a file, which nobody else can open. Raises OSError where the kernel has none."""
    return beyond_standard(os.memfd_create(name, os.MFD_CLOEXEC))


def duplicate(fd: int) -> int:
    """Duplicate a descriptor. Raises OSError."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, STANDARD)


def without_waiting(fd: int) -> int:
    """Open a pipe or terminal anew, so that no write to it waits. Raises OSError, as for another user's pipe."""
    # Not O_NONBLOCK on a duplicate: the flag would be shared with the host's own descriptor.
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    return beyond_standard(os.open(f"/proc/self/fd/{fd}", flags))


def beyond_standard(fd: int) -> int:
    """Return a new descriptor of ours, under another number where it got one of the standard three's."""
    # Whoever puts these in order later would close it.
    if fd >= STANDARD:
        return fd
    try:
        return duplicate(fd)
    finally:
        os.close(fd)


def occupy_standard() -> list[int]:
    """
    Open what is closed of the standard three, for as long as ours are opened: to be closed afterwards.

    Raises OSError, and leaves nothing open then.
    """
    taken: list[int] = []
    try:
        while (fd := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) < STANDARD:
            taken.append(fd)
    except OSError:
        for each in taken:
            os.close(each)
        raise
    os.close(fd)
    return taken


def _file(fd: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(fd)
    except (OSError, OverflowError):
        return None
    return found.st_dev, found.st_ino

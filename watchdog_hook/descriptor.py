"""Descriptors of ours among those of the host: never one of the standard three, never taken for one of its own."""

from __future__ import annotations

import os


class Own:
    """
    One of ours. The host may close whatever it does not know, and give the number to a file of its own.

    So it is looked at before it is written to, cut off or closed.
    """

    __slots__ = ("_file", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._file = _file(fd)

    def is_ours(self) -> bool:
        """Tell whether the number still stands for our file."""
        return self._file is not None and _file(self.fd) == self._file

    def close(self) -> None:
        """Give it back, if it is still ours. Never raises."""
        if self.is_ours():
            try:
                os.close(self.fd)
            except OSError:
                pass
        self._file = None


def occupy_standard() -> list[int]:
    """Open what is closed of the standard three, for as long as ours are opened: to be closed afterwards."""
    taken: list[int] = []
    while True:
        fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        if fd > 2:
            os.close(fd)
            return taken
        taken.append(fd)


def _file(fd: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(fd)
    except (OSError, OverflowError):
        return None
    return found.st_dev, found.st_ino

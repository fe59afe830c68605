"""Files in a folder that is held open: made whole or not at all, and no link is followed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[int]:
    """Hold an incident's folder open, by descriptor: the name may lead elsewhere later. Raises OSError."""
    fd = os.open(folder, _FOLDER)
    try:
        yield fd
    finally:
        os.close(fd)


def make(folder: int, name: str, fill: Callable[[int], None]) -> None:
    """Make a new file and have it filled; what cannot be written whole is removed. Raises what `fill` does."""
    file = os.open(name, _NEW, 0o600, dir_fd=folder)
    try:
        fill(file)
    except BaseException:
        os.unlink(name, dir_fd=folder)
        raise
    finally:
        os.close(file)


def append(folder: int, name: str, text: str) -> None:
    """Put text at the end of a file; what cannot be written whole is taken off again. Raises OSError."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        before = os.fstat(file).st_size
        try:
            put(file, ["\n", text, "\n"])
        except OSError:
            os.ftruncate(file, before)
            raise
    finally:
        os.close(file)


def put(file: int, chunks: Iterable[str]) -> None:
    """Write all of it, in pieces of some size."""
    pending: list[bytes] = []
    size = 0
    for chunk in chunks:
        pending.append(chunk.encode("utf-8", "replace"))
        size += len(pending[-1])
        if size >= 64 * 1024:
            write_all(file, b"".join(pending))
            pending, size = [], 0
    write_all(file, b"".join(pending))


def write_all(file: int, data: bytes) -> None:
    """Write all of it, however little a write takes."""
    while data:
        data = data[os.write(file, data) :]

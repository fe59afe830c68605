"""A file for its owner's eyes, which takes nothing away that is there."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from watchdog_hook.cli import UsageError


def write(path: Path, content: bytes, *, force: bool) -> None:
    """Write a file with mode 0600. One that is there stays as it is without `force`. Raises UsageError."""
    try:
        if path.is_dir():
            raise UsageError(f"{path} is a directory: name a file in it")
        if _is_a_way(path):
            path.write_bytes(content)
        elif force:
            _replace(path.resolve(), content)
        else:
            _make(path, content)
    except FileExistsError:
        raise UsageError(f"{path} is there already: say --force to overwrite it") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror})") from None


def _is_a_way(path: Path) -> bool:
    """Tell whether this is a pipe or a device, which has nothing to lose and is not to be replaced."""
    with contextlib.suppress(OSError):
        kind = path.stat().st_mode
        return stat.S_ISFIFO(kind) or stat.S_ISCHR(kind)
    return False


def _make(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as out:
            out.write(content)
    except BaseException:
        os.unlink(path)
        raise


def _replace(path: Path, content: bytes) -> None:
    """Put it in a file's place: a reader sees the old one or the new one, never half of one."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as out:
            out.write(content)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise

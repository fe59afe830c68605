"""An incident's files, as `actions.record` writes them: schema 1, folders 0700, files 0600, no link followed."""

from __future__ import annotations

import os
import select
import time

TYPE_CHECKING = False  # as typing has it, which takes memory to import
if TYPE_CHECKING:
    from collections.abc import Mapping

PATIENCE = 10.0  # seconds for all files of one report: a disk may hang
LOST = f"the disk has not answered for {PATIENCE:.0f} s"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Files:
    """The incidents of one watched process, in the directory of all. An empty directory: none are written."""

    def __init__(self, directory: str, host: str, pid: int, retention: int) -> None:
        self._dir = directory
        self._host = host
        self._pid = pid
        self._retention = retention
        self._count = 0
        self._child = 0  # that has been at it for longer than our patience; 0: none

    def new_id(self, wall: float) -> str:
        """Return the id of a new incident, which is also its folder's name."""
        self._count += 1
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall))
        # The watchdog counts its own in the same second, from 1 and without a zero in front.
        return f"{moment}-{self._host}-{self._pid}-0{self._count}"

    def path(self, incident: str) -> str:
        """Return where its files are, or would be."""
        return os.path.join(self._dir, incident)

    def write(self, incident: str, files: Mapping[str, str]) -> str | None:
        """
        Write files of an incident, each whole or not at all. Return why they could not be written, if so.

        A child does it: what the kernel does not let go of a disk that hangs is that one, and not we.
        """
        if self._child and not _has_ended(self._child):
            return LOST
        self._child = 0
        reading, writing = os.pipe()
        try:
            child = os.fork()
        except OSError:  # no more processes: then we do it
            os.close(writing)
            os.close(reading)
            return self._write(incident, files)
        if not child:
            try:
                # Who reads the scheduler's standard error to its end would wait for us.
                os.closerange(0, 3)
                os.write(writing, b"=" + (self._write(incident, files) or "").encode())
            finally:
                os._exit(0)
        os.close(writing)
        try:
            return self._answer(child, reading)
        finally:
            os.close(reading)

    def _answer(self, child: int, reading: int) -> str | None:
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        if poll.poll(PATIENCE * 1000):
            told = os.read(reading, 4096)
            _has_ended(child, wait=True)
            return (told[1:].decode() or None) if told else "the child that writes them was killed"
        os.kill(child, 9)
        self._child = child
        return LOST

    def _write(self, incident: str, files: Mapping[str, str]) -> str | None:
        try:
            os.makedirs(self._dir, mode=0o700, exist_ok=True)
            first = not os.path.isdir(self.path(incident))
            if first:
                os.mkdir(self.path(incident), 0o700)
            folder = os.open(self.path(incident), _FOLDER)
            try:
                for name, text in files.items():
                    _replace(folder, name, text)
            finally:
                os.close(folder)
            if first:
                self._prune(incident)
        except OSError as error:
            return error.strerror or str(error)
        return None

    def _prune(self, newest: str) -> None:
        """Remove this host's oldest beyond the number that is kept; their sizes are the watchdog's to look at."""
        for name in sorted(filter(self._is_ours, os.listdir(self._dir)))[: -self._retention]:
            if name != newest:
                try:
                    _remove(self.path(name))
                except OSError:  # another user's, or one that another process removes meanwhile
                    pass

    def _is_ours(self, name: str) -> bool:
        """Tell whether a name is a moment, our host, a pid and a number; a host's own name may end in numbers."""
        parts = name[16:].removeprefix(f"-{self._host}-").split("-")
        return name[15:17] == "Z-" and len(parts) == 2 and all(map(str.isdigit, parts))


def _has_ended(child: int, *, wait: bool = False) -> bool:
    try:
        return os.waitpid(child, 0 if wait else os.WNOHANG)[0] == child
    except ChildProcessError:  # whoever ignores SIGCHLD has no children to wait for
        return True


def _replace(folder: int, name: str, text: str) -> None:
    # A reader sees the old file or the new one, never half of one.
    temporary = f".{name}.new"
    try:
        os.unlink(temporary, dir_fd=folder)
    except FileNotFoundError:
        pass
    file = os.open(temporary, _NEW, 0o600, dir_fd=folder)
    try:
        data = text.encode("utf-8", "replace")
        while data:
            data = data[os.write(file, data) :]
    finally:
        os.close(file)
    os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)


def _remove(path: str) -> None:
    """Remove a folder of plain files."""
    folder = os.open(path, _FOLDER)
    try:
        for name in os.listdir(folder):
            os.unlink(name, dir_fd=folder)
    finally:
        os.close(folder)
    os.rmdir(path)

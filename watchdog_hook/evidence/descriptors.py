"""
What a file descriptor of this process is.

Only the kernel's own memory is asked: no fstat(), no open() and no close() of what is described. On a network
file system whose server is silent each of those may wait with the thread that waits already.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import stat
from typing import TYPE_CHECKING, NamedTuple

from watchdog_hook.core.observed import Descriptor
from watchdog_hook.evidence import file_locks, sockets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

US = "this process"  # among the holders of a pipe's other end

_CHILDREN = 64  # whose descriptors are looked at
_LINKS = 4096  # of all of them together, and as many of our own
_FDINFO = 1 << 18  # bytes: of an epoll that holds thousands
_F_GETPIPE_SZ = getattr(fcntl, "F_GETPIPE_SZ", 1032)
_ANONYMOUS = {
    "anon_inode:[eventpoll]": "epoll",
    "anon_inode:[eventfd]": "eventfd",
    "anon_inode:[timerfd]": "timerfd",
    "anon_inode:[signalfd]": "signalfd",
    "anon_inode:[pidfd]": "pidfd",
    "anon_inode:inotify": "inotify",
}
_NO_DEVICES = ("/dev/shm/", "/dev/mqueue/")  # noqa: S108 - nothing is written there
_READ, _WRITE = stat.S_IRUSR, stat.S_IWUSR  # on a link under /proc/PID/fd: how it was opened
_OTHER_MODE = {0: 0, _READ: _WRITE, _WRITE: _READ, _READ | _WRITE: _READ | _WRITE}
_ESCAPED = re.compile(r"\\([0-7]{3})")  # a blank in a mount point


class _Mount(NamedTuple):
    kind: str  # of file system
    point: str
    device: str  # major:minor


def describe(
    fd: int, *, children: Mapping[int, str] | None = None, missed: dict[str, str] | None = None
) -> Descriptor:
    """Return what a descriptor is, `gone` if closed. `children`, name by pid, may hold a pipe's other end."""
    return Describer(children or {}, {} if missed is None else missed).describe(fd)


class Describer:
    """Describes the descriptors of one wait: mounts and children are read once, and only if they are needed."""

    def __init__(self, children: Mapping[int, str], missed: dict[str, str]) -> None:
        self._children = children
        self._missed = missed
        self._mounts: dict[str, _Mount] | None = None
        self._holders: dict[str, list[tuple[str, int]]] | None = None

    def describe(self, fd: int) -> Descriptor:
        """Return what a descriptor is. Never raises."""
        link = sockets.link_of(fd)
        if link is None:
            return Descriptor(fd, "gone")
        if link.startswith("socket:"):
            # No socket any more, or no descriptor left to look at it.
            return sockets.describe(fd, self._missed) or Descriptor(fd, "other", path=link)
        if link.startswith("pipe:"):
            return Descriptor(fd, "pipe", holders=self._other_end(fd, link))
        if link in _ANONYMOUS or link.startswith("pidfd:"):
            kind = _ANONYMOUS.get(link, "pidfd")
            return Descriptor(fd, kind, peer=self._process(fd) if kind == "pidfd" else None)
        if not link.startswith("/"):
            return Descriptor(fd, "other", path=link)
        if link.startswith("/dev/") and not link.startswith(_NO_DEVICES):
            return Descriptor(fd, "device", path=link)
        if _is_pipe(fd):
            return Descriptor(fd, "pipe", path=link, holders=self._other_end(fd, link))
        return Descriptor(fd, "file", path=link, mount=self._mount_of(fd))

    def named(self, path: str) -> Descriptor:
        """Return what can be said of an absolute path without touching it: it, and the mount it leads through."""
        mount = None
        if ".." not in path.split("/"):
            table = self._table().values()
            inside = [mount.point for mount in table if _is_under(path, mount.point)]
            # Of the root nothing is said: a symbolic link may lead anywhere from there.
            longest = max(inside, key=len, default="/")
            if longest != "/":
                # The last one that was mounted there lies on top.
                types = [mount.kind for mount in table if mount.point == longest]
                mount = f"{types[-1]} on {longest}"
        return Descriptor(-1, "file", path=path, mount=mount)

    def _process(self, fd: int) -> str | None:
        pid = child_of(fd)
        if pid is None:
            return None
        return f"{self._children[pid]}, pid {pid}" if pid in self._children else f"pid {pid}"

    # --- pipes --------------------------------------------------------------------------------------

    def _other_end(self, fd: int, link: str) -> tuple[str, ...]:
        with contextlib.suppress(OSError):
            wanted = _OTHER_MODE[os.lstat(f"/proc/self/fd/{fd}").st_mode & (_READ | _WRITE)]
            if self._holders is None:
                self._holders = self._all_ends()
            found = self._holders.get(link, [])
            return tuple(dict.fromkeys(name for name, mode in found if mode & wanted))
        return ()

    def _all_ends(self) -> dict[str, list[tuple[str, int]]]:
        """Return who holds which pipe or path and how: our children, then we ourselves."""
        left = _LINKS
        ends: dict[str, list[tuple[str, int]]] = {}
        for pid, name in itertools.islice(self._children.items(), _CHILDREN):
            for link, mode in self._links(str(pid), left):
                left -= 1
                ends.setdefault(link, []).append((f"{name}, pid {pid}", mode))
        for link, mode in self._links("self", _LINKS):
            ends.setdefault(link, []).append((US, mode))
        return ends

    def _links(self, pid: str, limit: int) -> Iterator[tuple[str, int]]:
        try:
            with os.scandir(f"/proc/{pid}/fd") as entries:
                for entry in itertools.islice(entries, limit):
                    with contextlib.suppress(OSError):  # closed meanwhile
                        link = sockets.read_link(entry.path)
                        if link.startswith(("pipe:", "/")):
                            yield link, entry.stat(follow_symlinks=False).st_mode
        except FileNotFoundError:  # it has ended
            return
        except OSError as error:
            self._missed["descriptors of child processes"] = error.strerror or "not readable"

    # --- files --------------------------------------------------------------------------------------

    def _mount_of(self, fd: int) -> str | None:
        mount = self._table().get(_fdinfo(fd, b"mnt_id:") or "")
        return None if mount is None else f"{mount.kind} on {mount.point}"

    def lockers(self, fd: int) -> tuple[str, ...]:
        """Return who holds a lock of an open file, as far as the kernel says."""
        mount, inode = self._table().get(_fdinfo(fd, b"mnt_id:") or ""), _fdinfo(fd, b"ino:")
        if mount is None or inode is None or not inode.isdigit():  # no ino before Linux 5.14
            return ()
        return file_locks.holders(file_locks.Place(mount.device, int(inode)), self._children)

    def _table(self) -> dict[str, _Mount]:
        """Return the mounts by their ids."""
        if self._mounts is None:
            self._mounts = {}
            try:
                with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
                    for row in file:
                        # 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
                        words, _, behind = row.partition(" - ")
                        number, _, device, _, point = words.split(" ")[:5]
                        kind = behind.split(" ")[0]
                        self._mounts[number] = _Mount(kind, _unescaped(point), device)
            except (OSError, ValueError) as error:
                self._missed["mounts"] = getattr(error, "strerror", None) or type(error).__name__
        return self._mounts


def child_of(fd: int) -> int | None:
    """Return the pid that a pidfd is about; None for one that has been reaped."""
    pid = _fdinfo(fd, b"Pid:")
    return int(pid) if pid is not None and pid.isdigit() and pid != "0" else None


def in_epoll(fd: int) -> list[int]:
    """Return what an epoll waits for, without those whose number now means something else."""
    found = []
    for row in _fdinfo_rows(fd):
        # tfd:        5 events:       19 data:                5  pos:0 ino:1b2c sdev:9
        words = row.decode("ascii", "replace").replace(":", ": ").split()
        if words[:1] != ["tfd:"] or len(words) < 2:
            continue
        number = int(words[1])
        inode = int(words[words.index("ino:") + 1], 16) if "ino:" in words else None
        link = sockets.link_of(number) or ""
        # A closed descriptor stays in the set while a duplicate of it is open.
        if inode is None or not link.startswith(("socket:", "pipe:")) or f"[{inode}]" in link:
            found.append(number)
    return sorted(set(found))


def _fdinfo(fd: int, name: bytes) -> str | None:
    for row in _fdinfo_rows(fd):
        if row.startswith(name):
            return row[len(name) :].strip().decode("ascii", "replace")
    return None


def _fdinfo_rows(fd: int) -> list[bytes]:
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
            return file.read(_FDINFO).splitlines()
    except OSError:
        return []


def _is_pipe(fd: int) -> bool:
    # A FIFO, which has a path like any file. Asked of a file this fails at once.
    try:
        return fcntl.fcntl(fd, _F_GETPIPE_SZ) > 0
    except (OSError, ValueError):
        return False


def _is_under(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def _unescaped(point: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), point)

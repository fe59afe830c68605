"""Who holds the lock of a file that a thread waits for, by the kernel's own list (man proc_locks)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from watchdog_hook.evidence.cgroup import content

_MOST = 1 << 20  # bytes of the list


class Place(NamedTuple):
    """Where a file is: the device its mount has, and its number there."""

    device: str  # major:minor, decimal
    inode: int


def holders(place: Place, names: Mapping[int, str]) -> tuple[str, ...]:
    """
    Return who holds a lock of this file, as the list has it: "airflow, pid 7".

    A process of another container is "another container's process". `names`, by pid, come first. Nothing on the
    file system is touched; on some (overlay, btrfs) the list has other device numbers, and nobody is found.
    """
    found = {}
    for row in _list().decode("ascii", "replace").splitlines():
        # 1: FLOCK  ADVISORY  WRITE 4711 fe:00:2631360 0 EOF; one that waits has "->" behind its number.
        words = row.split()
        if len(words) < 6 or words[1] == "->" or _place(words[5]) != place:
            continue
        pid = int(words[4])
        found[pid] = _named(pid, names)
    return tuple(found.values())


def _list() -> bytes:
    try:
        with open("/proc/locks", "rb") as file:
            return file.read(_MOST)
    except OSError:
        return b""


def _place(text: str) -> Place | None:
    try:
        major, minor, inode = text.split(":")
        return Place(f"{int(major, 16)}:{int(minor, 16)}", int(inode))
    except ValueError:
        return None


def _named(pid: int, names: Mapping[int, str]) -> str:
    if (
        pid <= 0
    ):  # the kernel has no number for it in our name space, or the lock belongs to no process
        return "another container's process"
    if pid == os.getpid():
        return "this process itself"
    name = names.get(pid) or content(f"/proc/{pid}/comm").decode("utf-8", "replace").strip()
    return f"{name or 'a process'}, pid {pid}"

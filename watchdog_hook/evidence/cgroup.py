"""Limits and counters of this process's control groups, versions 1 and 2; and how such small files are read."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

_ROOT = "/sys/fs/cgroup"
_UNLIMITED = 1 << 60  # version 1 says "no limit" with the largest whole number of pages


@dataclass(frozen=True, slots=True)
class Groups:
    """Directories of this process's groups: its own first, then those above it. Empty: there is none."""

    unified: tuple[str, ...] = ()  # version 2
    cpu: tuple[str, ...] = ()  # version 1, as below
    memory: tuple[str, ...] = ()


@functools.cache
def groups(root: str = _ROOT, membership: str = "/proc/self/cgroup") -> Groups:
    """Return where this process's groups are. Looked up once: a process seldom changes its group."""
    unified: tuple[str, ...] = ()
    old: dict[str, tuple[str, ...]] = {}
    for line in content(membership).decode(errors="replace").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            mount = root if os.path.exists(f"{root}/cgroup.controllers") else f"{root}/unified"
            unified = _chain(mount, path)
        for name in {"cpu", "memory"}.intersection(controllers.split(",")):
            old[name] = _chain(f"{root}/{name}", path)
    return Groups(unified, old.get("cpu", ()), old.get("memory", ()))


def cpu_limit(found: Groups) -> float | None:
    """Return how many cores the tightest quota allows; None for no quota."""
    limits = [_ratio(content(f"{group}/cpu.max").split()) for group in found.unified]
    limits += [
        _ratio([content(f"{group}/cpu.cfs_{part}_us") for part in ("quota", "period")])
        for group in found.cpu
    ]
    return min((limit for limit in limits if limit is not None), default=None)


def memory(found: Groups) -> tuple[int | None, int | None]:
    """Return the tightest memory limit and what its group uses, in bytes; without one, what our group uses."""
    pairs = [
        (_whole(f"{group}/memory.max"), _whole(f"{group}/memory.current"))
        for group in found.unified
    ]
    pairs += [
        (_whole(f"{group}/memory.limit_in_bytes"), _whole(f"{group}/memory.usage_in_bytes"))
        for group in found.memory
    ]
    limited = [(limit, used) for limit, used in pairs if limit is not None and limit < _UNLIMITED]
    if limited:
        return min(limited, key=lambda pair: pair[0])
    return None, next((used for _, used in pairs if used is not None), None)


def throttling(found: Groups) -> str | None:
    """Return the file that counts for how long a quota stopped this process; None where no group counts it."""
    for group in (*found.unified[:1], *found.cpu[:1]):
        path = f"{group}/cpu.stat"
        if throttled(path) is not None:
            return path
    return None


def throttled(path: str | None) -> float | None:
    """Return the seconds for which a quota stopped this process, since its group was made."""
    for line in content(path).splitlines() if path else ():
        name, _, value = line.partition(b" ")
        # Microseconds in version 2, nanoseconds in version 1.
        scale = {b"throttled_usec": 1e6, b"throttled_time": 1e9}.get(name)
        if scale is not None and value.strip().isdigit():
            return int(value) / scale
    return None


def pressure(found: Groups, resource: str) -> str | None:
    """Return the file with the pressure of `cpu`, `memory` or `io`: our group's, or else the machine's."""
    for path in (
        *(f"{group}/{resource}.pressure" for group in found.unified[:1]),
        f"/proc/pressure/{resource}",
    ):
        if content(path):
            return path
    return None


def content(path: str) -> bytes:
    """Return a small file of the kernel's, 4 KiB of it at most; nothing where it cannot be read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(file, 4096)
        finally:
            os.close(file)
    except OSError:
        return b""


def _chain(mount: str, path: str) -> tuple[str, ...]:
    own = os.path.normpath(f"{mount}/{path}")
    # In a container the path may be one of the host's, which does not exist here: our group is the mount.
    if not f"{own}/".startswith(f"{mount}/") or not os.path.isdir(own):
        return (mount,) if os.path.isdir(mount) else ()
    chain = [own]
    while chain[-1] != mount:
        chain.append(os.path.dirname(chain[-1]))
    return tuple(chain)


def _ratio(words: list[bytes]) -> float | None:
    try:
        quota, period = (int(word) for word in words)
    except ValueError:  # "max", or no such file
        return None
    return quota / period if quota > 0 and period > 0 else None


def _whole(path: str) -> int | None:
    text = content(path).strip()
    return int(text) if text.isdigit() else None

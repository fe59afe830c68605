"""What /proc and the cgroup files tell of another process. Nothing here raises, or reads what may block."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False  # as typing has it, which takes memory to import
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CGROUPS = "/sys/fs/cgroup"
_MAJFLT = 9  # of what `stat` returns; for a thread its own (fs/proc/array.c, do_task_stat)
_TICK = 1 / os.sysconf("SC_CLK_TCK")


class Thread:
    """One thread at one moment: its state in the kernel's letter, processor seconds, times it went to sleep."""

    __slots__ = ("cpu", "faults", "sleeps", "state", "wchan")

    def __init__(
        self,
        state: str,
        cpu: float,
        sleeps: int | None = None,
        wchan: str = "",
        faults: int = 0,
    ) -> None:
        self.state = state
        self.cpu = cpu
        self.sleeps = sleeps  # voluntary context switches
        self.wchan = wchan  # where in the kernel it waits; empty where that is not told
        self.faults = faults  # pages that it had to have brought from swap or a disk


class Reading:
    """A process at one moment. What cannot be read is None; `threads` is None where the process is hidden."""

    __slots__ = (
        "at",
        "faults",
        "frozen",
        "memory_wait",
        "stops",
        "swapped",
        "threads",
        "tracer",
    )

    def __init__(
        self,
        at: float,
        threads: dict[int, Thread] | None,
        *,
        tracer: int = 0,
        frozen: bool | None = None,
        stops: Sequence[tuple[int, int]] = (),
        faults: int = 0,
        swapped: int = 0,
        memory_wait: float | None = None,
    ) -> None:
        self.at = at
        self.threads = threads
        self.tracer = tracer
        self.frozen = frozen
        # Of the CPU limits of its cgroup and those above: periods so far, and in how many the limit stopped it.
        self.stops = stops
        self.faults = faults  # pages that had to be brought from swap or a disk
        self.swapped = swapped  # kB of it that are in swap
        self.memory_wait = memory_wait  # seconds in all in which somebody waited for memory


def read(pid: int, detailed: tuple[int, ...]) -> Reading:
    """Return a process as it is now; `detailed` are the threads of which it matters where they wait."""
    own = pairs(f"/proc/{pid}/status")
    groups = cgroups(pid)
    fields = stat(f"/proc/{pid}/stat")
    return Reading(
        time.monotonic(),
        _threads(pid, detailed),
        tracer=int(own.get("TracerPid", "0")),
        frozen=_frozen(groups),
        stops=_stops(groups),
        faults=int(fields[_MAJFLT]) if fields else 0,
        swapped=int(own.get("VmSwap", "0").split()[0]),
        memory_wait=_memory_wait(groups),
    )


def catches(pid: int, number: int) -> bool | None:
    """Tell whether a process has a handler for a signal; None where that cannot be read."""
    mask = pairs(f"/proc/{pid}/status").get("SigCgt")
    return None if mask is None else bool(int(mask, 16) >> (number - 1) & 1)


def handles(pid: int, tid: int, number: int) -> bool | None:
    """
    Tell whether a thread is inside its handler of a signal, or yet to enter it; None where that cannot be read.

    The kernel blocks a signal for as long as its handler runs (signal(7)), and so it does with faulthandler's,
    unless that calls another one after itself.
    """
    found = pairs(f"/proc/{pid}/task/{tid}/status")
    masks = [found[name] for name in ("SigPnd", "SigBlk") if name in found]
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks) if masks else None


def pairs(path: str) -> dict[str, str]:
    """Return the `key: value` or `key value` lines of a file; empty where it cannot be read."""
    found = {}
    for line in _text(path).splitlines():
        words = line.replace(":", " ", 1).split(None, 1)
        if len(words) == 2:
            found[words[0]] = words[1]
    return found


def cgroups(pid: int) -> dict[str, str]:
    """Return a process's cgroups by controller; that of version 2 under the empty name."""
    found = {}
    for line in _text(f"/proc/{pid}/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            found[name] = path
    return found


def _threads(pid: int, detailed: tuple[int, ...]) -> dict[int, Thread] | None:
    folder = f"/proc/{pid}/task"
    try:
        names = os.listdir(folder)
    except OSError:
        return None
    found = {}
    for name in names:
        fields = stat(f"{folder}/{name}/stat")
        if not fields:
            continue
        tid, state = int(name), fields[0]
        sleeps = pairs(f"{folder}/{name}/status").get("voluntary_ctxt_switches")
        wchan = _text(f"{folder}/{name}/wchan") if tid in detailed or state == "D" else ""
        found[tid] = Thread(
            state,
            _cpu(f"{folder}/{name}/schedstat", fields),
            None if sleeps is None else int(sleeps),
            "" if wchan == "0" else wchan,
            int(fields[_MAJFLT]),
        )
    return found


def _cpu(path: str, fields: list[str]) -> float:
    exact = _text(path).split()
    return int(exact[0]) / 1e9 if exact else (int(fields[11]) + int(fields[12])) * _TICK


def stat(path: str) -> list[str]:
    """Return the fields of a stat file from the state on (man proc_pid_stat, field 3)."""
    return _text(path).rpartition(") ")[2].split()


def _frozen(groups: dict[str, str]) -> bool | None:
    state = _of_group(groups, "freezer", "freezer.state").strip()
    if state:
        return state != "THAWED"
    told = _of_group(groups, "", "cgroup.events")
    return "frozen 1" in told.splitlines() if told else None


def _stops(groups: dict[str, str]) -> list[tuple[int, int]]:
    # Not the seconds beside them: these are added up when it may run again, which may be many periods later
    # (kernel/sched/fair.c, unthrottle_cfs_rq and do_sched_cfs_period_timer).
    found = []
    for folder in _folders(groups, "cpu"):
        told = pairs(f"{folder}/cpu.stat")
        if "nr_periods" in told:
            found.append((int(told["nr_periods"]), int(told.get("nr_throttled", "0"))))
    return found


def _memory_wait(groups: dict[str, str]) -> float | None:
    told = _of_group(groups, "", "memory.pressure") or _text("/proc/pressure/memory")
    for line in told.splitlines():
        if line.startswith("some "):
            return int(line.rpartition("total=")[2]) / 1e6
    return None


def _of_group(groups: dict[str, str], controller: str, name: str) -> str:
    """Return a file of a process's cgroup, or else of the nearest above it that has such a file."""
    texts = (_text(f"{folder}/{name}") for folder in _folders(groups, controller))
    return next(filter(None, texts), "")


def _folders(groups: dict[str, str], controller: str) -> Iterator[str]:
    """
    Yield where a process's cgroup may be, in version 1 or 2, and then those above it.

    In a container its own may be the root, and none above is to be seen.
    """
    for base, path in (
        (f"{CGROUPS}/{controller}", groups.get(controller)),
        (f"{CGROUPS}/unified", groups.get("")),
        (CGROUPS, groups.get("")),
    ):
        if path is not None:
            names = [base, *filter(None, path.split("/"))]
            yield from ("/".join(names[:depth]) for depth in range(len(names), 0, -1))


def _text(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(65536).decode("utf-8", "replace")
    except OSError:
        return ""

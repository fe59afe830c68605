"""The children of this process, direct and further down: what each is, and what it waits on."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass

from watchdog_hook.core.observed import Child
from watchdog_hook.evidence import blocked, values
from watchdog_hook.evidence.cgroup import content

SHOWN = 200
# Seconds from the first process looked at. Enough for thousands, unless another thread computes all the time: then
# each file that is read costs three times the 5 ms after which the interpreter changes threads.
FIND_FOR = 0.5
LOOK_FOR = (
    0.8  # at what they wait on; what is found is given within the second that a collector has
)
# A child that waits for a lock of its parent's does so from its first moments on. One that has worked for
# longer got every lock it needed, and one that is younger than any stall is none's cause.
NEVER_WAKES_AFTER = 5.0  # seconds of age
NEVER_WAKES_BELOW = 1.0  # seconds of processor time

_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "disk-sleep",
    "T": "stopped",
    "t": "tracing-stop",
    "Z": "zombie",
    "X": "dead",
    "I": "idle",
}
_NOT_WAITING = ("R", "Z", "X")
_PLAIN = ("Process", "ForkProcess", "SpawnProcess", "ForkServerProcess")
_ROLE_LENGTH = 60


@dataclass(frozen=True, slots=True)
class Stat:
    """What /proc/PID/stat says (man proc_pid_stat): one file, and none of its fields waits for a lock."""

    pid: int
    name: str
    state: str
    parent: int
    cpu_ticks: int
    threads: int
    started: int  # ticks since the machine started
    image: tuple[
        int, ...
    ]  # where code and stack were laid by exec; zeros or ones: not ours to know


def children(missed: dict[str, str]) -> tuple[tuple[Child, ...], int]:
    """
    Return the children of this process, those of children too, and how many there are beyond the first 200.

    Asks no child and reaps none. Opens `stat`, `syscall` and `wchan` of a child and reads the names of its
    descriptors: none of them waits for the child's memory map, as `cmdline`, `environ` and `maps` do.
    """
    begun = time.monotonic()
    for name in (
        "other children",
        "waits of children",
    ):  # that time ran out once says nothing of today
        missed.pop(name, None)
    family = _family(begun + FIND_FOR, missed)
    roles = multiprocessing_roles()
    found: list[Child] = []
    for stat, parent in family[:SHOWN]:
        waits, never = None, False
        if stat.state not in _NOT_WAITING:
            if time.monotonic() > begun + LOOK_FOR:
                missed["waits of children"] = f"only {len(found)} children were looked at in time"
            else:
                waits, never = _wait(stat, parent, missed)
        found.append(_child(stat, roles.get(stat.pid), waits, never))
    return tuple(found), max(0, len(family) - SHOWN)


def one(pid: int) -> Child | None:
    """
    Return one direct child as `children` does; None when it is gone, or no child of this process.

    Asks it nothing and reaps nothing: one that has ended is a zombie until the host notices.
    """
    stat, parent = read_stat(pid), read_stat(os.getpid())
    if stat is None or parent is None or stat.parent != parent.pid:
        return None
    asked = stat.state not in _NOT_WAITING
    waits, never = _wait(stat, parent, {}) if asked else (None, False)
    return _child(stat, multiprocessing_roles().get(pid), waits, never)


def multiprocessing_roles() -> dict[int, str]:
    """
    Return names of processes by pid, from multiprocessing's own notes: "KubernetesJobWatcher", "SyncManager-1".

    Calls nothing of theirs: `is_alive`, `join` and `active_children` would reap a child whose end the host
    is waiting for.
    """
    module = sys.modules.get("multiprocessing.process")
    known = values.part(module, "_children")
    if type(known) is not set:
        return {}
    roles = {}
    # copy() is one step: it runs no code of the processes, and nobody can start or end one in its middle.
    for process in known.copy():
        pid = values.part(values.part(process, "_popen"), "pid")
        if type(pid) is int:
            roles[pid] = _role(process)
    return roles


def read_stat(pid: int) -> Stat | None:
    """Return what the kernel says of a process; None when it is gone."""
    head, _, tail = content(f"/proc/{pid}/stat").rpartition(b") ")
    fields = tail.split()
    if len(fields) < 26:
        return None
    return Stat(
        pid=pid,
        name=head.partition(b"(")[2].decode(errors="replace"),
        state=fields[0].decode(errors="replace"),
        parent=int(fields[1]),
        cpu_ticks=int(fields[11]) + int(fields[12]),
        threads=int(fields[17]),
        started=int(fields[19]),
        image=tuple(int(field) for field in fields[23:26]),
    )


def _family(until: float, missed: dict[str, str]) -> list[tuple[Stat, Stat]]:
    """Return each descendant with its parent, the nearest first."""
    # One pass over /proc: the kernel's own lists of children are one file for each of our threads, and those
    # of a process are in many files. A container has few processes that are no children of the scheduler.
    own = os.getpid()
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    below: dict[int, list[Stat]] = {}
    # Those that began after us first, as children do, until the numbers start again.
    for count, pid in enumerate(sorted(pids, key=lambda pid: (pid < own, pid)), 1):
        if (stat := read_stat(pid)) is not None:
            below.setdefault(stat.parent, []).append(stat)
        if time.monotonic() > until and count < len(pids):
            missed["other children"] = (
                f"only {count} of {len(pids)} processes were looked at in time"
            )
            break
    family: list[tuple[Stat, Stat]] = []
    level = [stat for stats in below.values() for stat in stats if stat.pid == own]
    seen = {own}
    while level:
        pairs = [(child, parent) for parent in level for child in below.get(parent.pid, ())]
        # A pid that was given out anew while we read could close a circle.
        pairs = [(child, parent) for child, parent in pairs if child.pid not in seen]
        seen.update(child.pid for child, _ in pairs)
        family += sorted(pairs, key=lambda pair: pair[0].pid)
        level = [child for child, _ in pairs]
    return family


def _child(stat: Stat, role: str | None, waits: str | None, never: bool) -> Child:
    ticks = os.sysconf("SC_CLK_TCK")
    return Child(
        pid=stat.pid,
        name=role or stat.name,
        state=_STATES.get(stat.state, stat.state),
        age_s=_age(stat),
        threads=stat.threads,
        waits=waits,
        cpu_s=stat.cpu_ticks / ticks,
        parent=stat.parent,
        never_wakes=never,
    )


def _age(stat: Stat) -> float:
    # The kernel counts from its start on, and in time that the machine slept (man proc_pid_stat, starttime).
    up = time.clock_gettime(time.CLOCK_BOOTTIME)
    return max(0.0, up - stat.started / os.sysconf("SC_CLK_TCK"))


def _wait(stat: Stat, parent: Stat, missed: dict[str, str]) -> tuple[str | None, bool]:
    """Say what a child waits on, and whether it can never wake."""
    call = blocked.read(stat.pid, missed)
    if call is None:
        return blocked.kernel_function(stat.pid), False
    never = call.waits_for_itself and _stuck_since_fork(stat, parent)
    # Read again: what stood in two files was not read at one moment.
    if never and (read_stat(stat.pid) != stat or blocked.read(stat.pid, missed) != call):
        never = False
    return blocked.describe(stat.pid, call), never


def _stuck_since_fork(stat: Stat, parent: Stat) -> bool:
    """Say whether this is one sleeping thread that is what its parent was, and has hardly run since its fork."""
    # A fork copies the places of code and stack, an exec draws new ones: so this tells the two apart where the
    # program is the same again (an interpreter that starts an interpreter), without a further file.
    return (
        stat.state == "S"
        and stat.threads == 1
        and stat.image == parent.image
        and min(stat.image) > 1
        and stat.cpu_ticks < NEVER_WAKES_BELOW * os.sysconf("SC_CLK_TCK")
        and _age(stat) >= NEVER_WAKES_AFTER
    )


def _role(process: object) -> str:
    kind = values.class_name(type(process))
    name = values.part(process, "_name")
    if type(name) is not str or (kind not in _PLAIN and name.startswith(kind)):
        return kind
    return (name if kind in _PLAIN else f"{kind} {name}")[:_ROLE_LENGTH]

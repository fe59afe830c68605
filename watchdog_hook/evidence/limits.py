"""This process and its host in numbers: how much of what, and how much was allowed."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from typing import Any

from watchdog_hook.core.observed import Child, ProcessFacts
from watchdog_hook.evidence import cgroup

# Of the processor not even a healthy machine lets all tasks run at once, so there "some" is what tells.
_PRESSURE = (("cpu", "some"), ("memory", "full"), ("io", "full"))


@dataclass(frozen=True, slots=True)
class Clocks:
    """The wall clock and the monotonic one, read together."""

    wall: float
    monotonic: float

    @classmethod
    def read(cls) -> Clocks:
        """Return both, now."""
        return cls(time.time(), time.monotonic())


@dataclass(frozen=True, slots=True)
class Since:
    """What was counted when something began, to tell what has grown since."""

    armed: Clocks | None = None
    # (processor seconds, monotonic time) when the silence began
    cpu: tuple[float, float] | None = None
    throttled_s: float | None = None
    late_s: float | None = None  # the watchdog's worst lateness in this silence; passed on as it is


def load_psutil() -> Any:
    """Return psutil, imported when this is called; None where it cannot be had."""
    try:
        import psutil
    except Exception:  # noqa: BLE001 - a psutil built for another machine raises all kinds of things
        return None
    return psutil


def process_facts(
    psutil: Any,
    missed: dict[str, str],
    since: Since = Since(),
    children: tuple[Child, ...] = (),
    more_children: int = 0,
    groups: cgroup.Groups | None = None,
) -> ProcessFacts:
    """
    Return this process and its host in numbers; None for what cannot be read, with the reason in `missed`.

    Opens nothing but files of the kernel's. `groups`: where the control groups are; None looks them up.
    """
    groups = cgroup.groups() if groups is None else groups
    own = _own(psutil, missed)
    now, cpu_s = Clocks.read(), time.process_time()
    memory_limit, memory_used = cgroup.memory(groups)
    throttled = cgroup.throttled(cgroup.throttling(groups))
    return ProcessFacts(
        cpu_s=cpu_s,
        cpu_share=_share(since.cpu, cpu_s, now.monotonic),
        cpu_limit=cgroup.cpu_limit(groups),
        memory=own.get("memory"),
        memory_limit=memory_limit,
        memory_used=memory_used,
        throttled_s=_grown(since.throttled_s, throttled),
        pressure=_pressure(groups, missed),
        descriptors=own.get("descriptors"),
        descriptor_limit=_descriptor_limit(),
        threads=own.get("threads"),
        children=children,
        more_children=more_children,
        load=_load(missed),
        clock_jump_s=_jump(since.armed, now),
        late_s=since.late_s,
    )


def _own(psutil: Any, missed: dict[str, str]) -> dict[str, int]:
    if psutil is None:
        missed["memory, threads and descriptors"] = "psutil is not installed"
        return {}
    found: dict[str, int] = {}
    try:
        # Made anew each time: it remembers the pid, which is another one after a fork.
        process = psutil.Process()
        with process.oneshot():
            for name, read in (
                ("memory", lambda: process.memory_info().rss),
                ("threads", process.num_threads),
                ("descriptors", process.num_fds),
            ):
                try:
                    found[name] = int(read())
                except Exception as error:  # noqa: BLE001 - psutil has exceptions of its own
                    missed[f"{name} of this process"] = type(error).__name__
    except Exception as error:  # noqa: BLE001 - as above
        missed["memory, threads and descriptors"] = type(error).__name__
    return found


def _share(before: tuple[float, float] | None, cpu_s: float, now: float) -> float | None:
    if before is None or now <= before[1]:
        return None
    return (cpu_s - before[0]) / (now - before[1])


def _grown(before: float | None, now: float | None) -> float | None:
    return None if before is None or now is None else max(0.0, now - before)


def _pressure(groups: cgroup.Groups, missed: dict[str, str]) -> tuple[tuple[str, float], ...]:
    """Return ("memory full", per cent of the last ten seconds) and so on, as far as the kernel counts it."""
    found = []
    for what, kind in _PRESSURE:
        path = cgroup.pressure(groups, what)
        for line in cgroup.content(path).decode(errors="replace").splitlines() if path else ():
            word, _, rest = line.partition(" avg10=")
            if word == kind:
                try:
                    found.append((f"{what} {kind}", float(rest.partition(" ")[0])))
                except ValueError:
                    missed[f"pressure of {what}"] = "in a form not known here"
    if not found:
        missed["pressure"] = "the kernel does not count stalls for resources (PSI)"
    return tuple(found)


def _descriptor_limit() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def _load(missed: dict[str, str]) -> tuple[float, float, float] | None:
    try:
        return os.getloadavg()
    except OSError:
        missed["load"] = "the kernel does not say"
        return None


def _jump(armed: Clocks | None, now: Clocks) -> float | None:
    """Return by how much the wall clock went further than the monotonic one: it was set, or the machine slept."""
    if armed is None:
        return None
    return (now.wall - armed.wall) - (now.monotonic - armed.monotonic)

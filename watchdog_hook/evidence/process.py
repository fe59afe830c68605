"""This process as a whole: its debugger, its processor time, and what stopped it from running."""

from __future__ import annotations

import functools
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from watchdog_hook.evidence import stacks

_DEBUGGER_THREADS = ("pydevd.", "debugpy.", "ptvsd.")
_PROMPT_FRAMES = 20  # from the leaf on, in which a prompt is looked for
_EXPLAINS = 0.5  # of a pause, spent throttled, suspended or without memory


@dataclass(frozen=True, slots=True)
class Pressure:
    """What the kernel has counted so far, in seconds; None where it does not say."""

    suspended_s: float | None = None  # the machine slept
    throttled_s: float | None = None  # the cgroup's processor quota was used up
    starved_s: float | None = None  # all tasks of the cgroup waited for memory


def pressure(missed: dict[str, str]) -> Pressure:
    """Read the counters that explain a pause. Never raises."""
    throttling, memory = _counters()
    return Pressure(
        suspended_s=_suspended(),
        throttled_s=_throttled(throttling, missed),
        starved_s=_starved(memory),
    )


def pause_cause(before: Pressure, after: Pressure, seconds: float) -> str:
    """Say what a pause of so many seconds came from: what grew by half of it since a reading before it."""
    causes = (
        ("suspended", before.suspended_s, after.suspended_s),
        ("cpu throttled by its cgroup", before.throttled_s, after.throttled_s),
        ("waiting for memory", before.starved_s, after.starved_s),
    )
    for cause, earlier, later in causes:
        if earlier is None or later is None:
            continue
        if later - earlier >= _EXPLAINS * seconds:
            return f"{cause} for {later - earlier:.1f} s"
    # Nothing of that: SIGSTOP, a frozen container or a paused virtual machine all look the same from inside.
    return "stopped"


def cpu_seconds() -> float:
    """Return the processor time of this process so far, user and system."""
    return time.process_time()


def started(missed: dict[str, str]) -> float | None:
    """Return when this process began, in seconds since the epoch."""
    try:
        import psutil

        return float(psutil.Process().create_time())
    except ImportError:
        missed["process start"] = "psutil is not installed"
    except Exception as error:  # noqa: BLE001 - psutil has exceptions of its own for a missing /proc
        missed["process start"] = type(error).__name__
    return None


def debugger_attached() -> bool:
    """Say whether a debugger holds or traces this process, or waits at its prompt. Never raises."""
    return _traced_by_another() or _traces_itself() or _at_a_prompt()


def _traced_by_another(status: str = "/proc/self/status") -> bool:
    # Also true for the moment in which py-spy or strace looks.
    for line in _content(status).splitlines():
        if line.startswith(b"TracerPid:"):
            return line.split()[1] != b"0"
    return False


def _traces_itself() -> bool:
    trace = sys.gettrace()
    if trace is not None and not _is_coverage(trace):
        return True
    monitoring = getattr(sys, "monitoring", None)  # Python 3.12
    if monitoring is not None and monitoring.get_tool(monitoring.DEBUGGER_ID) is not None:
        return True
    return any(name.startswith(_DEBUGGER_THREADS) for name, _ in stacks.known_threads().values())


def _is_coverage(trace: object) -> bool:
    module = getattr(trace, "__module__", None) or type(trace).__module__
    return str(module).partition(".")[0] == "coverage"


def _at_a_prompt() -> bool:
    # pdb traces the thread it stands in, which another thread cannot see; its frames can be seen.
    if "bdb" not in sys.modules:
        return False
    return any(_in_pdb(ident) for ident in stacks.known_threads())


def _in_pdb(ident: int) -> bool:
    # The code alone, no values: something imports bdb in most schedulers, and this is asked at every look.
    frame = stacks.top_frame(ident)
    for _ in range(_PROMPT_FRAMES):
        if frame is None:
            return False
        if frame.f_code.co_filename.endswith(("/bdb.py", "/pdb.py")):
            return True
        frame = frame.f_back
    return False


def _suspended() -> float | None:
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return None
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


@functools.cache
def _counters() -> tuple[str | None, str | None]:
    """Return the files that count throttling and memory pressure; None for what this machine does not have."""
    # Looked for once: opening files that stay where they are was most of what a look cost.
    group = _cgroup()
    own, all_of_it = str(group / "memory.pressure"), "/proc/pressure/memory"
    throttling = str(group / "cpu.stat")
    return (
        throttling if _content(throttling) else None,
        own if _content(own) else all_of_it if _content(all_of_it) else None,
    )


def _cgroup() -> Path:
    root = Path("/sys/fs/cgroup")
    try:
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                # In a container the path may be one of the host's, which does not exist here.
                group = root / line[3:].strip().lstrip("/")
                return group if (group / "cpu.stat").exists() else root
    except OSError:
        pass
    return root


def _throttled(path: str | None, missed: dict[str, str]) -> float | None:
    found = _number(path, b"throttled_usec ")
    if found is None:
        missed["processor throttling"] = "no quota is set, or cgroup version 1"
    return found


def _starved(path: str | None) -> float | None:
    return _number(path, b"full ", b"total=")


def _number(path: str | None, line: bytes, mark: bytes = b" ") -> float | None:
    """Return the seconds that stand, as microseconds, behind the last `mark` of the line that begins so."""
    for found in _content(path).splitlines() if path else ():
        if found.startswith(line):
            try:
                return int(found.rpartition(mark)[2]) / 1e6
            except ValueError:
                return None
    return None


def _content(path: str) -> bytes:
    """Return a small file of the kernel's; nothing where it cannot be read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(file, 4096)
        finally:
            os.close(file)
    except OSError:
        return b""

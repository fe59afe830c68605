"""This process as a whole: its debugger, its processor time, and what stopped it from running."""

from __future__ import annotations

import functools
import resource
import sys
import time
from dataclasses import dataclass
from typing import Any

from watchdog_hook.evidence import cgroup, stacks

_DEBUGGER_THREADS = ("pydevd.", "debugpy.", "ptvsd.")
_PROMPT_FRAMES = 20  # from the leaf on, in which a prompt is looked for
_EXPLAINS = 0.5  # of a pause, spent throttled, suspended or without memory
_ASKS = 0.5  # of the times that a thread which waits for the interpreter asks for it


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


def wakes() -> int:
    """Return how often the calling thread has slept so far (voluntary context switches, man getrusage)."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def waited_for_interpreter(woken: int, seconds: float) -> bool:
    """
    Tell whether the calling thread, which slept `woken` times in these seconds, spent them waiting for the GIL.

    A thread that wants it asks again at every switch interval (take_gil in CPython's ceval_gil.h). One whose
    process is stopped, or that gets no processor, does not wake at all.
    """
    return woken >= _ASKS * seconds / sys.getswitchinterval()


def started(psutil: Any, missed: dict[str, str]) -> float | None:
    """Return when this process began, in seconds since the epoch; None where psutil is None."""
    if psutil is None:
        missed["process start"] = "psutil is not installed"
        return None
    try:
        return float(psutil.Process().create_time())
    except Exception as error:  # noqa: BLE001 - psutil has exceptions of its own for a missing /proc
        missed["process start"] = type(error).__name__
    return None


def is_gone(psutil: Any, pid: int, moment: float | None) -> bool:
    """Tell whether the process that had this number at that moment is no more. In doubt it is still there."""
    if psutil is None or moment is None:
        return False
    try:
        found = psutil.Process(pid)
        # Another one has its number since: in a container that starts again this is the rule, and may be we.
        return bool(found.create_time() > moment or found.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return not psutil.pid_exists(pid)  # it may be there, and hidden
    except Exception:  # noqa: BLE001 - psutil has exceptions of its own for a missing /proc
        return False


def debugger_attached() -> bool:
    """Say whether a debugger holds or traces this process, or waits at its prompt. Never raises."""
    return _traced_by_another() or _traces_itself() or _at_a_prompt()


def is_coverage(trace: object) -> bool:
    """Say whether a trace function counts lines and does nothing else."""
    module = getattr(trace, "__module__", None) or type(trace).__module__
    return str(module).partition(".")[0] == "coverage"


def _traced_by_another(status: str = "/proc/self/status") -> bool:
    # Also true for the moment in which py-spy or strace looks.
    for line in cgroup.content(status).splitlines():
        if line.startswith(b"TracerPid:"):
            return line.split()[1] != b"0"
    return False


def _traces_itself() -> bool:
    trace = sys.gettrace()
    if trace is not None and not is_coverage(trace):
        return True
    monitoring = getattr(sys, "monitoring", None)  # Python 3.12
    if monitoring is not None and monitoring.get_tool(monitoring.DEBUGGER_ID) is not None:
        return True
    return any(name.startswith(_DEBUGGER_THREADS) for name, _ in stacks.known_threads().values())


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
    found = cgroup.groups()
    return cgroup.throttling(found), cgroup.pressure(found, "memory")


def _throttled(path: str | None, missed: dict[str, str]) -> float | None:
    found = cgroup.throttled(path)
    if found is None:
        missed["processor throttling"] = "no group of this process has a processor quota"
    return found


def _starved(path: str | None) -> float | None:
    for line in cgroup.content(path).splitlines() if path else ():
        total = line.rpartition(b"total=")[2]
        if line.startswith(b"full ") and total.isdigit():
            return int(total) / 1e6
    return None

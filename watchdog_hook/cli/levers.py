"""What this process may do to itself: the signal, /proc, ptrace. Read only."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from watchdog_hook.actions.backstop import free_signal
from watchdog_hook.integrations.airflow.doctor import Check
from watchdog_hook.sentinel.start import find_py_spy

if TYPE_CHECKING:
    from watchdog_hook.config import Config

CAP_SYS_PTRACE = 19
TRIED = ((3, 10), (3, 13))


def checks(config: Config) -> Iterator[Check]:
    """Look at this process and its machine."""
    yield python()
    yield from (library(name) for name in ("wrapt", "psutil"))
    yield incident_dir(config)
    yield urgent_signal()
    yield syscall_files()
    yield outside(config)
    yield py_spy(config)


def python() -> Check:
    """Tell whether the hook is tried with this Python."""
    found = sys.version_info[:2]
    text = f"{sys.implementation.name} {'.'.join(map(str, sys.version_info[:3]))}"
    if sys.implementation.name == "cpython" and TRIED[0] <= found <= TRIED[1]:
        return Check("ok", text, "the hook is tried with CPython 3.10 to 3.13")
    return Check("warn", text, "the hook is tried with CPython 3.10 to 3.13 only")


def library(name: str) -> Check:
    """Tell whether a library can be imported that the watchdog needs."""
    try:
        module = importlib.import_module(name)
    except Exception as error:  # noqa: BLE001 - a broken build raises what it likes
        return Check(
            "problem",
            f"{name} cannot be imported",
            f"the watchdog is not armed without it ({type(error).__name__}: {error})",
            f"pip install {name}",
        )
    return Check("ok", f"{name} {getattr(module, '__version__', '')}".strip(), "can be imported")


def incident_dir(config: Config) -> Check:
    """Tell whether incident files can be written, without writing any."""
    if config.incident_dir is None:
        return Check(
            "warn",
            "no incident directory",
            "a dump goes to the log and to standard error only",
            "set [watchdog_hook] incident_dir",
        )
    path = Path(config.incident_dir)
    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    remedy = (
        "make it writable for the scheduler's user, or set [watchdog_hook] incident_dir elsewhere"
    )
    if not there.is_dir():
        return Check("problem", f"{there} is a file", f"{path} cannot be made", remedy)
    if not os.access(there, os.W_OK | os.X_OK):
        return Check(
            "problem",
            f"{there} is not writable for user {os.geteuid()}",
            "a dump goes to the log and to standard error only",
            remedy,
        )
    disk = os.statvfs(there)
    free = disk.f_bavail * disk.f_frsize / 1e6
    if free < config.incident_max_mb:
        return Check(
            "warn",
            f"{there} has {free:.0f} MB free",
            f"incidents may take {config.incident_max_mb:g} MB",
            "free some space, or lower [watchdog_hook] incident_max_mb",
        )
    return Check("ok", f"{path} is writable", f"{free:.0f} MB free")


def urgent_signal() -> Check:
    """Tell whether SIGURG is free: it ends a call that is stuck in the main thread."""
    what = "SIGURG"
    elsewhere = "without it a stuck call of the main thread is dumped, not ended"
    if signal.SIGURG in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
        return Check(
            "problem",
            f"{what} is blocked here",
            f"a scheduler started from here inherits that; {elsewhere}",
            "start it from a shell or supervisor that does not block signals",
        )
    handler = signal.getsignal(signal.SIGURG)
    if handler in (signal.SIG_DFL, signal.SIG_IGN) and _is_caught(signal.SIGURG):
        handler = None  # Python was not told: a library called sigaction by itself
    if handler in (signal.SIG_DFL, signal.SIG_IGN):
        return Check("ok", f"{what} is free", "nobody handles it in this process")
    if handler is None:
        return Check(
            "warn",
            f"{what} belongs to code that is not Python's",
            f"a Go library, most likely; {elsewhere}",
            "find which library of the scheduler brings its own runtime",
        )
    owner = (
        f"{getattr(handler, '__module__', '?')}.{getattr(handler, '__qualname__', repr(handler))}"
    )
    return Check(
        "ok", f"{what} has a handler, {owner}", "it is called for signals that are not ours"
    )


def _is_caught(number: int, proc: Path = Path("/proc")) -> bool:
    return int(status(proc / "self/status").get("SigCgt", "0"), 16) >> (number - 1) & 1 == 1


def status(path: Path) -> dict[str, str]:
    """Return a status file of /proc by its names; empty where it cannot be read."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def syscall_files() -> Check:
    """Tell whether a report can name the system call that a thread waits in."""
    path = Path(f"/proc/self/task/{os.getpid()}/syscall")
    try:
        path.read_text()
    except OSError as error:
        return Check(
            "warn",
            f"/proc/self/task/*/syscall cannot be read ({error.strerror})",
            "reports do not name the system call of a thread; nothing else is lost",
            "" if sys.platform.startswith("linux") else "only Linux has it",
        )
    return Check(
        "ok", "/proc/self/task/*/syscall can be read", "reports name each thread's system call"
    )


def outside(config: Config) -> Check:
    """Tell whether the sentinel can speak when the watchdog cannot."""
    if not config.sentinel:
        return Check(
            "warn",
            "[watchdog_hook] sentinel is False",
            "a stall that holds the interpreter is shown by faulthandler's timer only, without its cause",
            "set it to True",
        )
    if not hasattr(os, "memfd_create") or not sys.executable:
        return Check(
            "warn", "the sentinel cannot be started here", "it needs Linux and a Python of its own"
        )
    number = free_signal()
    if not number:
        return Check(
            "warn",
            "no real-time signal is free",
            "beyond 100 threads the sentinel cannot show the loop's stack without py-spy",
            "find which library of the scheduler takes them all",
        )
    name = f"signal {number}"
    return Check(
        "ok", f"the sentinel can ask for the loop's stack by {name}", "nobody handles it here"
    )


def py_spy(config: Config) -> Check:
    """Tell whether py-spy is there, and whether it might look into a process of this user."""
    if config.py_spy == "off":
        return Check(
            "ok", "py-spy is off", "a stall that holds the interpreter has no native frames"
        )
    found = find_py_spy(config.py_spy)
    if not os.access(found, os.X_OK):
        return Check(
            "warn",
            f"{found or 'py-spy'} is not here",
            "only needed for the native frames of a stall that holds the interpreter itself",
            "pip install 'watchdog-hook[py-spy]'",
        )
    hindrance = ptrace_hindrance()
    if hindrance:
        return Check("warn", f"{found} may not look into a process", *hindrance)
    return Check(
        "ok", f"{found} may look into a process of this user", "nothing forbids ptrace here"
    )


def ptrace_hindrance(proc: Path = Path("/proc")) -> tuple[str, str] | None:
    """Return why ptrace is not possible and what would help; None if nothing known forbids it."""
    own = status(proc / "self/status")
    if not own:
        return "/proc/self/status cannot be read", ""
    if int(own.get("CapEff", "0"), 16) >> CAP_SYS_PTRACE & 1:
        return None
    try:
        scope = int((proc / "sys/kernel/yama/ptrace_scope").read_text())
    except (OSError, ValueError):
        scope = 0  # a kernel without Yama
    grant = "give the container the capability SYS_PTRACE"
    if scope >= 3:
        return "kernel.yama.ptrace_scope is 3: nobody may", "lower it and restart the node"
    if scope == 2:
        return "kernel.yama.ptrace_scope is 2, and CAP_SYS_PTRACE is missing", grant
    if scope == 1:
        return "kernel.yama.ptrace_scope is 1: a process may only look into its children", grant
    if (proc / "self").stat().st_uid != os.geteuid():
        return "this process is not dumpable, and CAP_SYS_PTRACE is missing", grant
    return None

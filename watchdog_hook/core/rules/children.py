"""Waits for another process, mostly a child: for its end, for the other end of a pipe, for a Manager's answer."""

from __future__ import annotations

from watchdog_hook.core.observed import Child
from watchdog_hook.core.rules.rule import Rule
from watchdog_hook.core.signs import Case, both, calls, either, innermost, neither, on, passes

_WAITS_FOR_CHILD = either(
    calls("wait4", "waitid"),
    innermost("/multiprocessing/popen_fork.py", "poll", "wait"),
    innermost("/subprocess.py", "_try_wait", "_wait", "wait"),
)
# Until the new process has begun its program, its parent may not go on: vfork(2).
STARTS_PROGRAM = both(calls("vfork"), passes("/subprocess.py", "_execute_child"))
POOL = either(
    passes("/concurrent/futures/"), passes("/multiprocessing/pool.py"), passes("/billiard/pool.py")
)
_MANAGER = passes("/multiprocessing/managers.py", "_callmethod", "_incref", "_decref", "connect")
_CHILDREN_NAMED = 3


def never_woken(case: Case) -> Child | None:
    """Return the child that can never wake by itself, where the stalled thread waits for it or may do so."""
    awaited = case.awaited
    if awaited is not None:
        return awaited if awaited.never_wakes else _never_woken_below(case, awaited)
    if not either(_WAITS_FOR_CHILD, on("pipe"), _MANAGER, POOL)(case):
        return None
    return next((child for child in case.children if child.never_wakes), None)


def _never_woken_below(case: Case, child: Child) -> Child | None:
    """Return the child that an awaited one waits for in its turn, if that one can never wake."""
    for below in case.children:
        if below.parent == child.pid and (child.waits or "").endswith(f"for process {below.pid}"):
            return below if below.never_wakes else _never_woken_below(case, below)
    return None


def name_of(child: Child | None) -> str:
    """Return who a child is."""
    return "?" if child is None else f"{child.name}, pid {child.pid}"


def _child_text(child: Child) -> str:
    """Return who a child is, what it does and what it waits for."""
    text = f"{child.name}, pid {child.pid}, {child.state}"
    return f"{text} in {child.waits}" if child.waits else text


def _manager_text(case: Case) -> str:
    manager = next((child for child in case.children if "Manager" in child.name), None)
    if manager is None:
        return f"it waits for the answer of a multiprocessing Manager, in {case.leaf}"
    if manager.state == "zombie":
        return "it waits for a multiprocessing Manager, whose process has ended"
    return f"it waits for the answer of a multiprocessing Manager: {_child_text(manager)}"


def _child(case: Case) -> str:
    if STARTS_PROGRAM(case):
        # The parent stands still since: nobody is younger.
        new = min(case.children, key=lambda child: child.age_s, default=None)
        which = f": {_child_text(new)}" if new else ""
        return f"it starts a program, and the new process has not come to run it{which}"
    if case.awaited is not None:
        return f"it waits for a child process to end: {_child_text(case.awaited)}"
    pid = case.wait.child if case.wait else None
    if pid is not None and pid > 0:
        return f"it waits for child process {pid} to end"
    known = "; ".join(_child_text(child) for child in case.children[:_CHILDREN_NAMED])
    return f"it waits for a child process to end, in {case.leaf}" + (
        f"; there are: {known}" if known else ""
    )


def _pipe(case: Case) -> str:
    holders = case.descriptor.holders if case.descriptor else ()
    writes = case.wait is not None and case.wait.syscall in (
        "write",
        "writev",
        "sendfile",
        "splice",
    )
    way = "writes into a pipe that is full" if writes else "reads from a pipe that is empty"
    if holders:
        return f"it {way}; its other end is open in {' and '.join(holders)}"
    return f"it {way}, in {case.leaf}; its other end is open in none of our children"


RULES = (
    Rule(
        "manager",
        both(_MANAGER, neither(lambda case: never_woken(case) is not None)),
        _manager_text,
        "The KubernetesExecutor keeps its queues in that process. Where it is gone or stuck, only a restart of the"
        " scheduler helps: look in the pod's events for a process that was killed (out of memory).",
        raise_helps=False,
    ),
    Rule(
        "child-process",
        both(
            either(_WAITS_FOR_CHILD, STARTS_PROGRAM),
            lambda case: never_woken(case) is None,
        ),
        _child,
        "Look at what that child waits for. A wait without a time limit is a mistake of whoever waits.",
        confidence="medium",
        raise_helps=False,
        known=("apache/airflow#52284", "apache/airflow#67870"),
    ),
    Rule(
        "pipe",
        both(on("pipe"), neither(_MANAGER, lambda case: never_woken(case) is not None)),
        _pipe,
        "Look at the process at the other end. A pipe that is full and that nobody reads stops whoever writes:"
        " is it the scheduler's own log?",
        confidence="medium",
        raise_helps=False,
    ),
)

"""Waits for a lock: inherited by a child at its fork, taken in different orders, or held by another thread."""

from __future__ import annotations

from watchdog_hook.core.locks import cycles
from watchdog_hook.core.observed import LockWait
from watchdog_hook.core.rules.children import POOL, name_of, never_woken
from watchdog_hook.core.rules.rule import Rule, span
from watchdog_hook.core.signs import Case, both, ends_by_itself, on
from watchdog_hook.core.text import frame_text


def _inherited(case: Case) -> str:
    child = never_woken(case)
    if child is None:
        return "a child process waits for a lock that was held when it was forked"
    what = "a child process that can never wake by itself"
    if case.awaited not in (None, child):
        what = f"{name_of(case.awaited)}, which waits for one that can never wake by itself"
    elif case.awaited is None and POOL(case):
        what = "the work of a pool of which one process can never wake by itself"
    elif case.awaited is None and on("pipe")(case):
        what = "a pipe, while a child process can never wake by itself"
    return (
        f"it waits for {what}: {name_of(child)}, has one thread, which has waited for a lock since its fork"
        f" {child.age_s:.0f} s ago; the thread that would release it was not copied with it"
    )


def _deadlock(case: Case) -> str:
    cycle = _cycle(case)
    mine = next((n for n, wait in enumerate(cycle) if wait.thread == case.thread), 0)
    parts = [
        f"{wait.thread} waits for {wait.lock}, which {wait.owner} has"
        for wait in (*cycle[mine:], *cycle[:mine])
    ]
    if len(cycle) == 1:
        return (
            f"a deadlock of one: {cycle[0].thread} waits for {cycle[0].lock}, which it has itself"
        )
    return "a deadlock: " + "; ".join(parts)


def _cycle(case: Case) -> tuple[LockWait, ...]:
    if ends_by_itself(case):
        return ()
    found = cycles(case.seen.locks)
    return next((cycle for cycle in found if any(wait.thread == case.thread for wait in cycle)), ())


def _has_lock(case: Case) -> bool:
    return case.lock is not None


def _lock(case: Case) -> str:
    lock = case.lock
    if lock is None:
        return f"it waits for a lock, in {case.leaf}"
    left = case.wait.timeout_s if case.wait else None
    most = "" if left is None else f", for {span(left)} more at most"
    stands = f", which stands in {frame_text(lock.owner_place)}" if lock.owner_place else ""
    if lock.kind == "thread":
        return f"it waits for {lock.lock}{most}{stands}"
    if lock.owner is None:
        return f"it waits for {lock.lock}{most}; who has it cannot be seen"
    return (
        f"it waits for {lock.lock}{most}; thread {lock.owner} has it (known by {lock.by}){stands}"
    )


RULES = (
    Rule(
        "inherited-lock",
        lambda case: never_woken(case) is not None,
        _inherited,
        "End that child (and only it) by hand: kill -9 its pid; what waits for it goes on. watchdog_hook ends"
        " no process of a pool or a Manager: nobody starts that work anew. A KubernetesJobWatcher, which its"
        " executor does start anew, is ended with [watchdog_hook] restart_watchers = True.\n"
        "It was forked while another thread held a lock. [celery] sync_parallelism = 1 needs no"
        " pool; unload plugins"
        " that start threads in the scheduler; [core] execute_tasks_new_python_interpreter = True or"
        " [core] mp_start_method = spawn avoid the bare fork.",
        raise_helps=False,
        known=("apache/airflow#15938", "apache/airflow#70690", "apache/airflow#71707"),
    ),
    Rule(
        "deadlock",
        lambda case: bool(_cycle(case)),
        _deadlock,
        "Locks taken in different orders. Only a restart helps; please report the stacks to the"
        " owner of that code.",
        raise_helps=False,
    ),
    Rule(
        "lock",
        both(_has_lock, lambda case: not _cycle(case)),
        _lock,
        "Look at what the owner waits for: its stack stands below.",
        raise_helps=False,
    ),
)

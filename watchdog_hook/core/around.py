"""What lies around the stalled thread, in lines for a person: executors, locks, the process and its children."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchdog_hook.core.text import WIDTH, clean, frame_text
from watchdog_hook.core.watchers import doing_text, heard_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from watchdog_hook.core.observed import (
        Child,
        ExecutorFacts,
        LockWait,
        Observed,
        ProcessFacts,
    )

_CHILDREN_SHOWN = 12
_LOCKS_SHOWN = 12
_MIB = 1024 * 1024


def lines(seen: Observed) -> list[str]:
    """Return one line for each fact; nothing for what was not seen."""
    found = [
        *(_executor(facts) for facts in seen.executors),
        *(line for facts in seen.executors for line in _watchers(facts, seen.process)),
        *(_lock(wait) for wait in seen.locks[:_LOCKS_SHOWN]),
    ]
    children: list[str] = []
    if seen.process is not None:
        found += _process(seen.process)
        children = _children(seen.process)
    return [
        *(" " + clean(line, WIDTH) for line in found),
        *("    " + clean(line, WIDTH) for line in children),
    ]


def child_text(child: Child) -> str:
    """Return who a child is, what it does and what it waits for."""
    text = f"{child.name}, pid {child.pid}, {child.age_s:.0f} s old, {child.state}"
    return f"{text}, in {child.waits}" if child.waits else text


def _executor(facts: ExecutorFacts) -> str:
    numbers = (
        ("queued", facts.queued),
        ("running", facts.running),
        ("slots open", facts.open_slots),
        ("waiting for a pod", facts.task_queue),
    )
    shown = ", ".join(f"{value} {name}" for name, value in numbers if value is not None)
    oldest = "" if facts.oldest_s is None else f" (the oldest for {facts.oldest_s:.0f} s)"
    return f"{facts.name}: {shown or 'no numbers'}{oldest}"


def _watchers(facts: ExecutorFacts, process: ProcessFacts | None) -> Iterator[str]:
    children = {child.pid: child for child in process.children} if process else {}
    for watcher in facts.watchers:
        child = children.get(watcher.pid) if watcher.pid is not None else None
        state = f"pid {watcher.pid}, {child.state}" if child else f"pid {watcher.pid}, not running"
        if process is None or watcher.pid is None:
            state = f"pid {watcher.pid}"
        said = [state]
        if watcher.event_s is not None:
            said.append(f"its last pod event came {watcher.event_s:.0f} s ago")
        elif watcher.silent_s is None:
            said.append("no pod has ended by it yet")
        if watcher.silent_s is not None:
            said += [heard_text(watcher), doing_text(watcher, child)]
            said.append(f"watches begun in {watcher.age_s or 0.0:.0f} s: {watcher.watches}")
        yield f"Pod watcher of namespace {watcher.namespace}: {'; '.join(said)}"


def _lock(wait: LockWait) -> str:
    stands = f", which stands in {frame_text(wait.owner_place)}" if wait.owner_place else ""
    if wait.kind == "thread":
        return f"{wait.thread} waits for the end of thread {wait.owner or '?'}{stands}"
    return f"{wait.thread} waits for {wait.lock}, held by {wait.owner or 'nobody that can be seen'}{stands}"


def _process(facts: ProcessFacts) -> list[str]:
    shown = ", ".join(_facts(facts))
    found = [f"This process: {shown}"] if shown else []
    count = len(facts.children) + facts.more_children
    return [*found, f"Child processes ({count}):"] if count else found


def _facts(facts: ProcessFacts) -> Iterator[str]:
    if facts.cpu_share is not None:
        limit = f" ({facts.cpu_limit:g} cores allowed)" if facts.cpu_limit else ""
        yield f"{100 * facts.cpu_share:.0f} % of a core{limit}"
    if facts.throttled_s:
        yield f"stopped by its processor quota for {facts.throttled_s:.1f} s"
    if facts.memory is not None:
        limit = f" ({_mib(facts.memory_used)} of {_mib(facts.memory_limit)} allowed)"
        yield f"memory {_mib(facts.memory)}" + (limit if facts.memory_limit else "")
    busy = [f"{name} {share:.0f} %" for name, share in facts.pressure if share >= 1]
    if busy:
        yield f"pressure: {', '.join(busy)}"
    if facts.descriptors is not None:
        of = f" of {facts.descriptor_limit}" if facts.descriptor_limit else ""
        yield f"{facts.descriptors}{of} descriptors"
    if facts.threads is not None:
        yield f"{facts.threads} threads"
    if facts.load is not None:
        yield f"load {facts.load[0]:.1f}"
    if facts.late_s is not None and facts.late_s >= 1:
        yield f"the watchdog itself was late by {facts.late_s:.1f} s"
    if facts.clock_jump_s is not None and abs(facts.clock_jump_s) >= 1:
        yield f"the wall clock jumped by {facts.clock_jump_s:.0f} s"


def _mib(size: int | None) -> str:
    return "?" if size is None else f"{size / _MIB:.0f} MiB"


def _children(facts: ProcessFacts) -> list[str]:
    # Those first that can never wake: they are why one looks here.
    order = sorted(facts.children, key=lambda child: not child.never_wakes)
    found = []
    for child in order[:_CHILDREN_SHOWN]:
        never = "; it can never wake" if child.never_wakes else ""
        found.append(f"{child_text(child)}{never}")
    more = max(0, len(order) - _CHILDREN_SHOWN) + facts.more_children
    return [*found, *([f"... {more} more"] if more > 0 else [])]

"""Why the loop is silent: the rules that fit, in sentences, with the signs that led to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchdog_hook.core.model import CallRecord, Finding, Snapshot, ThreadReading
from watchdog_hook.core.rules import RULES
from watchdog_hook.core.rules.resources import busy_share
from watchdog_hook.core.signs import Case, attempt, foreign
from watchdog_hook.core.text import frame_text
from watchdog_hook.core.waits import wait_text
from watchdog_hook.core.watchers import doing_text

if TYPE_CHECKING:
    from watchdog_hook.core.rules.rule import Rule

__all__ = ["RULES", "diagnose"]


def diagnose(
    snapshot: Snapshot,
    *,
    silence: float,
    phase: str | None = None,
    call: CallRecord | None = None,
    reading: ThreadReading | None = None,
    how: str = "silent",
    component: str | None = None,
) -> Finding:
    """
    Return the narrowest rule that fits, in a sentence; others as narrow stand beside it in `also`.

    `unknown`, with the signs, when none fits. `call` is what the stalled thread has in flight, `reading` where
    that thread stood, `how` it came to be looked at and `component` what it belongs to (see Case). Never raises
    for any stack; says nothing that the evidence does not show.
    """
    case = Case(snapshot, silence, phase, call, reading, how, component)
    fitting = [rule for rule in RULES if rule.when(case)]
    narrowest = min(rule.rank for rule in fitting)
    first, *others = [_finding(rule, case) for rule in fitting if rule.rank == narrowest]
    return first.beside(tuple(others), tuple(_signs(case)))


def _finding(rule: Rule, case: Case) -> Finding:
    return Finding(
        id=rule.id,
        confidence=rule.confidence,
        sentence=f"{_lead(case)}: {rule.says(case)}.",
        remedy=rule.remedy,
        raise_helps=rule.raise_helps,
        known=rule.known,
    )


def _lead(case: Case) -> str:
    if case.how == "turning":
        return f"The loop turns, and nothing has come of it for {case.silence_s:.0f} s"
    if case.how == "asked":
        return "A dump was asked for"
    where = f" in phase {case.phase}" if case.phase else ""
    of = f" of the {case.component.replace('_', ' ')}" if case.component else ""
    return f"{case.thread}{of} has been silent for {case.silence_s:.0f} s{where}"


def _signs(case: Case) -> list[str]:
    signs = [f"innermost frame {case.leaf}"] if case.frames else ["no Python frame could be read"]
    kernel = case.seen.kernel
    if kernel is not None:
        doing = wait_text(kernel.wait) if kernel.wait else f"state {kernel.state}"
        signs.append(f"in the kernel: {doing}")
    if case.call is not None:
        guarded = "guarded" if case.call.guarded else "not guarded, so never interrupted"
        age = f"in flight for {case.call.started_ago_s:.1f} s ({guarded})"
        to = f" to {case.call.peer}" if case.call.peer else ""
        signs.append(f"{case.call.call}{to} {age}")
    if case.received_s is not None:
        signs.append(f"last byte on its connection {case.received_s:.1f} s ago")
    if (times := attempt(case)) > 1:
        signs.append(f"attempt {times} of urllib3's own retries")
    if (share := busy_share(case)) is not None and share > 0.1:
        signs.append(f"on the processor for {100 * share:.0f} % of the sampled time")
    if case.how == "turning":
        signs += _watchers(case)
    if (guest := foreign(case)) is not None:
        signs.append(f"called by code that is not Airflow's: {frame_text(guest)}")
    return signs


def _watchers(case: Case) -> list[str]:
    signs = []
    for facts in case.seen.executors:
        for watcher in facts.watchers:
            child = next((each for each in case.children if each.pid == watcher.pid), None)
            said = "none yet" if watcher.event_s is None else f"{watcher.event_s:.0f} s ago"
            doing = "" if watcher.silent_s is None else f"; {doing_text(watcher, child)}"
            signs.append(
                f"last event of the pod watcher of namespace {watcher.namespace}: {said}{doing}"
            )
    return signs

"""Does an executor get anywhere? A loop may turn and beat while nothing that waits is started."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from watchdog_hook.core.watchers import silent_ones

if TYPE_CHECKING:
    from watchdog_hook.core.observed import ExecutorFacts

# Pods that are refused for lack of quota, and whatever else ends by itself, get this many seconds.
NO_PROGRESS_AFTER = 300.0


@dataclass(frozen=True, slots=True)
class Standstill:
    """An executor with work that it could start, or whose end it could notice, in which nothing has changed."""

    name: str
    numbers: tuple[int | None, ...]
    since: float
    said: bool = False


def watch(
    before: tuple[Standstill, ...], executors: tuple[ExecutorFacts, ...], now: float
) -> tuple[tuple[Standstill, ...], tuple[Standstill, ...]]:
    """Return the standstills of now, and those that have just become too long. Each is told once."""
    known = {standstill.name: standstill for standstill in before}
    here: list[Standstill] = []
    told: list[Standstill] = []
    for facts in executors:
        if not gets_nowhere(facts):
            continue
        numbers = (facts.queued, facts.running, facts.open_slots, facts.task_queue)
        standstill = known.get(facts.name)
        if standstill is None or standstill.numbers != numbers:
            standstill = Standstill(facts.name, numbers, now)
        elif not standstill.said and now - standstill.since >= NO_PROGRESS_AFTER:
            standstill = replace(standstill, said=True)
            told.append(standstill)
        here.append(standstill)
    return tuple(here), tuple(told)


def has_work_and_room(facts: ExecutorFacts) -> bool:
    """Tell whether something waits in an executor that it could start."""
    room = facts.open_slots is None or facts.open_slots > 0
    return bool(facts.task_queue) or (bool(facts.queued) and room)


def gets_nowhere(facts: ExecutorFacts) -> bool:
    """Tell whether an executor that does not change should: it could start something, or cannot see what ends."""
    has_any = facts.task_queue or facts.queued or facts.running
    return has_work_and_room(facts) or bool(has_any and silent_ones(facts))

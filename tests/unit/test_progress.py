"""An executor that gets nowhere while its loop turns."""

from __future__ import annotations

from dataclasses import replace

import pytest

from watchdog_hook.core.observed import ExecutorFacts
from watchdog_hook.core.progress import NO_PROGRESS_AFTER, Standstill, watch

WAITING = ExecutorFacts("KubernetesExecutor", queued=0, running=7, open_slots=25, task_queue=3)


def told(*seen: tuple[float, ExecutorFacts]) -> list[float]:
    """Return the times at which a standstill was told."""
    state: tuple[Standstill, ...] = ()
    found = []
    for at, facts in seen:
        state, now = watch(state, (facts,), at)
        found += [at for _ in now]
    return found


def test_work_with_room_for_it_that_does_not_start_is_told_once():
    looks = [(float(at), WAITING) for at in range(0, 1000, 10)]

    assert told(*looks) == [NO_PROGRESS_AFTER]


@pytest.mark.parametrize("change", [{"task_queue": 2}, {"running": 8}, {"task_queue": 4}])
def test_any_change_begins_anew(change):
    moved = replace(WAITING, **change)

    assert told((0, WAITING), (290, moved), (310, moved), (580, moved), (590, moved)) == [590]


@pytest.mark.parametrize(
    "idle",
    [
        replace(WAITING, task_queue=0),
        replace(WAITING, task_queue=None, queued=5, open_slots=0),
        ExecutorFacts("LocalExecutor"),
    ],
)
def test_nothing_to_start_or_no_room_is_no_standstill(idle):
    assert told((0, idle), (400, idle), (800, idle)) == []


def test_queued_tasks_with_open_slots_are_one_too():
    queued = ExecutorFacts("CeleryExecutor", queued=4, running=0, open_slots=16)

    assert told((0, queued), (300, queued)) == [300]

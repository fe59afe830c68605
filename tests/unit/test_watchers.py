"""A pod watcher that shows no sign of life, and everything that only looks like one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from watchdog_hook.core.observed import Child, ExecutorFacts, Watcher
from watchdog_hook.core.progress import NO_PROGRESS_AFTER, gets_nowhere, watch
from watchdog_hook.core.watchers import (
    ELSEWHERE,
    LEAST,
    NO_CONNECT_TIMEOUT,
    NO_READ_TIMEOUT,
    CameBack,
    FellSilent,
    Look,
    Standing,
    judge,
    limit,
)

READING = Watcher(812, "here", silent_s=0.0, doing="read", timeout_s=30.0)
UNTIMED = replace(READING, timeout_s=None)
CONNECTING = replace(READING, doing="connect")
BUSY = replace(READING, doing=None)
ASLEEP = Child(812, "KubernetesJobWatcher", "sleeping", 500.0, threads=1, waits="recvfrom")
STOPPED = replace(ASLEEP, state="stopped")
FOR_EVER = replace(ASLEEP, waits="futex", never_wakes=True)


def looks(watcher: Watcher, *times: float, mark: float = 0.0, **other: object) -> list[Look]:
    """Look at these times at a watcher that left its last sign at `mark`."""
    return [
        Look("here", 812, mark, replace(watcher, silent_s=at - mark), **other)  # type: ignore[arg-type]
        for at in times
    ]


def told(*seen: Look) -> list[tuple[str, float]]:
    """Return what is told at which silence, one look after the other."""
    state: tuple[Standing, ...] = ()
    found: list[tuple[str, float]] = []
    for look in seen:
        state, events = judge(state, (look,))
        for event in events:
            if isinstance(event, FellSilent):
                found.append(("silent", event.look.watcher.silent_s or 0.0))
            else:
                found.append(("back", event.silent_s))
    return found


def every(step: int, until: int) -> list[float]:
    return [float(at) for at in range(0, until, step)]


@pytest.mark.parametrize(
    ("watcher", "child", "seconds"),
    [
        (READING, None, 90.0),
        (READING, STOPPED, 90.0),
        (replace(READING, timeout_s=2.0), None, LEAST),
        (replace(READING, timeout_s=600.0), STOPPED, 1800.0),
        (CONNECTING, None, 90.0),
        (UNTIMED, None, NO_READ_TIMEOUT),
        (UNTIMED, ASLEEP, NO_READ_TIMEOUT),
        (UNTIMED, STOPPED, ELSEWHERE),
        (replace(UNTIMED, silent_s=700.0, missed_s=80.0, heard=3), ASLEEP, 710.0),
        (replace(UNTIMED, silent_s=60.0, missed_s=80.0, heard=3), ASLEEP, ELSEWHERE),
        (replace(UNTIMED, silent_s=700.0, missed_s=80.0), ASLEEP, NO_READ_TIMEOUT),
        (replace(READING, silent_s=70.0, missed_s=400.0, heard=3), ASLEEP, 90.0),
        (replace(CONNECTING, timeout_s=None), ASLEEP, NO_CONNECT_TIMEOUT),
        (replace(READING, doing="resolve", timeout_s=None), ASLEEP, NO_CONNECT_TIMEOUT),
        (replace(READING, doing="sleep", timeout_s=300.0), ASLEEP, 390.0),
        (BUSY, None, ELSEWHERE),
        (replace(BUSY, timeout_s=1.0), None, ELSEWHERE),
        (replace(BUSY, timeout_s=None), None, ELSEWHERE),
        (replace(BUSY, timeout_s=300.0), None, 900.0),
        (BUSY, FOR_EVER, LEAST),
    ],
)
def test_what_it_does_has_its_time(watcher, child, seconds):
    assert limit(watcher, child) == seconds


def test_a_read_beyond_three_timeouts_is_told_and_again_after_twice_as_long():
    assert told(*looks(READING, *every(2, 800))) == [
        ("silent", 90.0),
        ("silent", 180.0),
        ("silent", 360.0),
        ("silent", 720.0),
    ]


def test_an_idle_watch_that_begins_its_read_anew_is_never_told():
    seen = [
        look
        for begun in range(0, 4000, 31)
        for look in looks(READING, *(begun + at for at in (0.0, 10.0, 20.0, 30.0)), mark=begun)
    ]

    assert told(*seen) == []


def test_nobody_is_silent_at_the_first_look_at_a_sign():
    """After a pause of the machine that we did not notice, ours may be the first look."""
    before = looks(READING, 0.0, 2.0)
    after = looks(READING, 5000.0, mark=1.0) + looks(READING, 5002.0, 5004.0, mark=5001.0)

    assert told(*before, *after) == []
    assert told(*looks(READING, 5000.0)) == []


def test_a_watcher_that_was_not_followed_is_not_judged():
    unknown = Look("here", 812, 0.0, Watcher(812, "here"))

    assert told(unknown, unknown, unknown) == []


def test_one_that_can_never_wake_is_told_at_once():
    assert told(*looks(BUSY, *every(2, 15), child=FOR_EVER)) == [("silent", LEAST)]


def test_the_return_of_a_silent_one_is_told_once():
    silent = looks(READING, 88.0, 90.0, 92.0)
    lives = looks(READING, 94.0, 96.0, 98.0, mark=93.0)

    assert told(*silent, *lives) == [("silent", 90.0), ("back", 90.0)]


def test_a_new_process_in_its_place_is_its_return():
    (first, second) = looks(READING, 88.0, 90.0)
    new = replace(first, process=900, mark=91.0, watcher=replace(READING, pid=900, silent_s=1.0))
    state, _ = judge((), (first,))
    state, _ = judge(state, (second,))
    state, (event,) = judge(state, (new,))

    assert event == CameBack(new, 90.0, 812)
    assert state == (Standing("here", 900, 91.0),)


def test_one_that_has_ended_is_waited_for_until_another_follows():
    silent = looks(READING, 88.0, 90.0)
    gone = looks(READING, 92.0, 400.0, gone=True)
    new = looks(READING, 402.0, mark=401.0)

    assert told(*silent, *gone, *new) == [("silent", 90.0), ("back", 90.0)]


def test_one_that_ended_by_itself_is_no_silence():
    assert told(*looks(READING, 0.0), *looks(READING, *every(2, 800), gone=True)) == []


def test_two_watchers_are_judged_apart():
    (here, late) = looks(READING, 88.0, 90.0)
    there = replace(here, key="there")
    state, _ = judge((), (here, there))
    _, events = judge(state, (late, replace(there, mark=89.0)))

    assert events == (FellSilent(late),)


FULL = ExecutorFacts("KubernetesExecutor", queued=0, running=16, open_slots=0, task_queue=0)


@pytest.mark.parametrize(
    ("watcher", "nowhere"),
    [
        (replace(READING, silent_s=89.0), False),
        (replace(READING, silent_s=90.0), True),
        (Watcher(812, "here"), False),
    ],
)
def test_an_executor_without_room_stands_still_only_beside_a_silent_watcher(watcher, nowhere):
    facts = replace(FULL, watchers=(watcher,))

    assert gets_nowhere(facts) is nowhere
    assert not gets_nowhere(replace(facts, running=0))


def test_full_slots_beside_a_silent_watcher_become_a_standstill():
    facts = replace(FULL, watchers=(replace(READING, silent_s=95.0),))
    state, _ = watch((), (facts,), 0.0)
    _, now = watch(state, (facts,), NO_PROGRESS_AFTER)

    assert [standstill.name for standstill in now] == ["KubernetesExecutor"]

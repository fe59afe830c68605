"""What stands in a report beside the stacks and calls."""

from __future__ import annotations

from dataclasses import replace

import pytest

from watchdog_hook.core.around import lines
from watchdog_hook.core.model import Frame
from watchdog_hook.core.observed import (
    Child,
    ExecutorFacts,
    LockWait,
    Observed,
    ProcessFacts,
    Watcher,
)

WATCHER = Child(812, "KubernetesJobWatcher", "sleeping", 60.0, threads=1, waits="poll")
STUCK = Child(813, "worker", "sleeping", 40.0, threads=1, waits="futex", never_wakes=True)


def test_nothing_seen_is_nothing_said():
    assert lines(Observed()) == []


def test_an_executor_is_shown_in_numbers_with_its_watcher():
    facts = ExecutorFacts(
        "KubernetesExecutor", 0, 7, 25, 3, oldest_s=41.6, watchers=(Watcher(812, "here", 12.4),)
    )
    seen = Observed(executors=(facts,), process=ProcessFacts(children=(WATCHER,)))

    assert lines(seen)[:2] == [
        " KubernetesExecutor: 0 queued, 7 running, 25 slots open, 3 waiting for a pod (the oldest for 42 s)",
        " Pod watcher of namespace here: pid 812, sleeping; its last pod event came 12 s ago",
    ]


def test_a_watcher_that_is_gone_is_said_to_be():
    facts = ExecutorFacts("KubernetesExecutor", watchers=(Watcher(9, "here"),))

    (_, watchers, *_) = lines(Observed(executors=(facts,), process=ProcessFacts()))
    assert "pid 9, not running" in watchers


@pytest.mark.parametrize(
    ("watcher", "child", "said"),
    [
        (
            Watcher(812, "here", 12.4, 3.0, "read", 30.0, 12.5, 4, watches=7, age_s=200.0),
            WATCHER,
            "pid 812, sleeping; its last pod event came 12 s ago; 4 events came from the API server, the last 12 s"
            " ago; it has been in one read for 3 s, with a timeout of 30 s; watches begun in 200 s: 7",
        ),
        (
            Watcher(812, "here", None, 95.0, "read", None, 95.0, 1, watches=1, age_s=200.0),
            replace(WATCHER, state="stopped"),
            "pid 812, stopped; 1 event came from the API server, the last 95 s ago; it is stopped; it has been"
            " in one read for 95 s, with no time limit; watches begun in 200 s: 1",
        ),
        (
            Watcher(812, "here", None, 40.0, age_s=40.0),
            replace(WATCHER, never_wakes=True),
            "pid 812, sleeping; no event has come from the API server; it waits for a lock that was held at its"
            " fork, and can never wake; it has neither read nor connected for 40 s; watches begun in 40 s: 0",
        ),
    ],
)
def test_what_a_watcher_has_left_itself_is_said(watcher, child, said):
    facts = ExecutorFacts("KubernetesExecutor", watchers=(watcher,))
    seen = Observed(executors=(facts,), process=ProcessFacts(children=(child,)))

    assert lines(seen)[1] == f" Pod watcher of namespace here: {said}"


def test_the_child_that_can_never_wake_stands_first():
    text = lines(Observed(process=ProcessFacts(children=(WATCHER, STUCK), more_children=3)))

    assert text[-4:] == [
        " Child processes (5):",
        "    worker, pid 813, 40 s old, sleeping, in futex; it can never wake",
        "    KubernetesJobWatcher, pid 812, 60 s old, sleeping, in poll",
        "    ... 3 more",
    ]


def test_who_has_a_lock_and_where_it_stands_is_said():
    place = Frame("send", "/usr/lib/python3.12/ssl.py", 7)
    seen = Observed(
        locks=(
            LockWait("MainThread", "handler lock of StreamHandler", place, "exporter", place),
            LockWait("MainThread", "?", place, "worker", kind="thread"),
            LockWait("MainThread", "Lock", place),
        )
    )

    assert lines(seen) == [
        " MainThread waits for handler lock of StreamHandler, held by exporter, which stands in send (ssl.py:7)",
        " MainThread waits for the end of thread worker",
        " MainThread waits for Lock, held by nobody that can be seen",
    ]


def test_of_the_process_only_what_matters_is_said():
    quiet = ProcessFacts(
        cpu_share=0.02, memory=200 << 20, pressure=(("memory full", 0.0),), late_s=0.1
    )
    loud = ProcessFacts(
        throttled_s=12.0,
        cpu_limit=0.5,
        cpu_share=0.5,
        memory=900 << 20,
        memory_used=990 << 20,
        memory_limit=1 << 30,
        pressure=(("memory full", 31.0),),
        late_s=4.0,
        clock_jump_s=-60.0,
    )

    assert lines(Observed(process=quiet)) == [" This process: 2 % of a core, memory 200 MiB"]
    (text,) = lines(Observed(process=loud))
    assert text == (
        " This process: 50 % of a core (0.5 cores allowed), stopped by its processor quota for 12.0 s,"
        " memory 900 MiB (990 MiB of 1024 MiB allowed), pressure: memory full 31 %,"
        " the watchdog itself was late by 4.0 s, the wall clock jumped by -60 s"
    )

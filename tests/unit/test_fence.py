"""When the database is asked whether another scheduler has taken over, and what comes of its answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from watchdog_hook.config import Config
from watchdog_hook.failopen import FailOpen
from watchdog_hook.integrations.airflow.fence import Answer, Fence, forget

THRESHOLD = 30.0


class Row:
    """The row of a scheduler with the id 7."""

    job_id = 7

    def __init__(self, says: str | None = "running") -> None:
        self.says = says
        self.done: list[str] = []
        self.broken = False

    def hold(self) -> str | None:
        return self._answer("hold")

    def state(self) -> str | None:
        return self._answer("state")

    def rejoin(self, marked: str) -> None:
        self._answer("rejoin")
        self.says = "running"

    def _answer(self, question: str) -> str | None:
        self.done.append(question)
        if self.broken:
            raise ConnectionError("server closed the connection")
        return self.says


class Dog:
    """What a fence needs of a watchdog."""

    def __init__(self, **options: Any) -> None:
        self.config = Config(**options)
        self.off: list[str] = []
        self.fail = FailOpen(self.off.append)
        self.notes: list[dict[str, Any]] = []
        self.left: list[str] = []

    def note(self, event: str, **fields: Any) -> None:
        assert event == "fenced"
        self.notes.append(fields)

    def exit(self, why: str) -> None:
        self.left.append(why)


class Case:
    """A fence at the time 100, its last heartbeat just written."""

    def __init__(self, says: str | None = "running", **options: Any) -> None:
        self.now = 100.0
        self.row, self.dog = Row(says), Dog(**options)
        self.executor = SimpleNamespace(queued_tasks={"a": 1, "b": 2})
        self.fence = Fence(
            self.dog,
            self.row,
            [self.executor],
            THRESHOLD,
            lambda: self.now,  # type: ignore[arg-type]
        )
        self.job = SimpleNamespace(heartbeat_failed=False)

    def beat(self) -> None:
        self.fence.heartbeat(lambda: None, self.job, (), {})


def test_nobody_is_asked_while_the_heartbeat_is_young():
    case = Case("failed")
    case.now += THRESHOLD / 2 - 0.1

    assert case.fence.look() is Answer.OURS
    assert case.row.done == []


def test_a_row_that_still_says_running_gets_a_heartbeat_and_is_left_in_peace():
    case = Case()
    case.now += 360

    assert [case.fence.look() for _ in range(3)] == [Answer.OURS] * 3
    assert case.row.done == ["hold"]
    assert case.executor.queued_tasks
    assert case.dog.notes == []


@pytest.mark.parametrize("state", ["failed", "success"])
def test_where_another_has_marked_the_job_what_waits_is_dropped_and_said_once(state: str):
    case = Case(state)
    case.now += 360

    assert case.fence.look() is Answer.FENCED
    assert case.fence.look() is Answer.OURS
    assert case.executor.queued_tasks == {}
    assert case.row.done == ["hold", "rejoin"]
    (said,) = case.dog.notes
    assert said["silent_s"] == 360
    assert said["dropped"] == 2
    assert said["job_id"] == 7
    assert state in said["outcome"]
    assert case.dog.left == []


@pytest.mark.parametrize("state", [None, "restarting"])
def test_a_job_that_is_gone_or_asked_to_end_was_taken_over_by_nobody(state: str | None):
    case = Case(state)
    case.now += 360

    assert case.fence.look() is Answer.OURS
    assert case.executor.queued_tasks


def test_observing_only_it_is_said_once_and_nothing_changes():
    case = Case("failed", interrupt="off")
    case.now += 360

    assert [case.fence.look() for _ in range(2)] == [Answer.OURS] * 2
    assert case.row.done == ["state"]
    assert case.executor.queued_tasks
    (said,) = case.dog.notes
    assert said["action"] == "none: interrupt = off"
    assert said["dropped"] is None


@pytest.mark.parametrize("interrupt", ["api_calls", "off"])
def test_with_exit_when_fenced_the_process_leaves_after_it_was_said(interrupt: str):
    case = Case("failed", interrupt=interrupt, exit_when_fenced=True)
    case.now += 360
    case.fence.look()

    assert case.dog.left == ["fenced"]
    assert "exits with code 75" in case.dog.notes[0]["action"]


def test_without_an_answer_it_is_asked_again_and_nothing_is_dropped():
    case = Case("failed")
    case.now += 360
    case.row.broken = True

    assert [case.fence.look() for _ in range(5)] == [Answer.UNKNOWN] * 5
    assert case.row.done == ["hold"]
    assert case.executor.queued_tasks
    case.row.broken = False
    case.now += 2
    assert case.fence.look() is Answer.FENCED
    assert case.dog.off == []


def test_the_question_comes_before_the_heartbeat_that_overwrites_the_answer():
    case = Case("failed")
    case.now += 360
    seen: list[list[str]] = []
    case.fence.heartbeat(lambda: seen.append(list(case.row.done)), case.job, (), {})

    assert seen == [["hold", "rejoin"]]


def test_where_the_row_cannot_be_asked_before_a_heartbeat_each_job_is_doubted():
    case = Case("failed")
    doubted: list[bool] = []
    jobs = SimpleNamespace(doubt_all=lambda: doubted.append(True))
    case.fence.kubernetes = SimpleNamespace(recoveries=[SimpleNamespace(jobs=jobs)])  # type: ignore[assignment]
    case.now += 360
    case.row.broken = True
    case.beat()

    assert doubted == [True]


def test_a_loop_that_beats_every_five_seconds_never_asks():
    case = Case("failed")
    for _ in range(100):
        case.now += 5
        case.fence.look()
        case.beat()

    assert case.row.done == []


def test_a_heartbeat_counts_from_the_next_one_on_for_airflow_3_writes_the_one_before():
    case = Case()
    case.now += 360
    case.row.broken = True
    case.beat()
    case.row.broken = False
    case.row.says = "failed"
    case.now += 2

    assert case.fence.look() is Answer.FENCED


def test_a_heartbeat_that_failed_does_not_count():
    case = Case()
    case.job.heartbeat_failed = True
    for _ in range(10):
        case.now += 5
        case.row.broken = True
        case.beat()
    case.row.broken = False
    case.row.says = "failed"
    case.now += 2

    assert case.fence.look() is Answer.FENCED
    assert case.dog.notes[0]["silent_s"] == 52


def test_the_executors_inside_a_hybrid_one_lose_what_they_hold():
    case = Case("failed")
    parts = [SimpleNamespace(queued_tasks={"a": 1}), SimpleNamespace(queued_tasks={"b": 1})]
    hybrid = SimpleNamespace(
        queued_tasks={"a": 1, "b": 1}, kubernetes_executor=parts[0], local_executor=parts[1]
    )
    fence = Fence(case.dog, case.row, [hybrid], THRESHOLD, lambda: case.now)  # type: ignore[arg-type]
    case.now += 360
    fence.look()

    assert [part.queued_tasks for part in parts] == [{}, {}]
    assert case.dog.notes[0]["dropped"] == 2


def test_a_mistake_of_ours_is_said_and_holds_nothing_up():
    case = Case("failed")
    case.executor.queued_tasks = None
    case.now += 360

    assert case.fence.look() is Answer.OURS
    assert len(case.dog.off) == 1


def test_a_task_that_is_forgotten_leaves_no_trace_in_the_executor_but_its_end():
    executor = SimpleNamespace(
        running={"a", "b"},
        task_publish_retries={"a": 1},
        pod_launch_attempts={"a": object()},
        event_buffer={"a": ("queued", 7), "b": ("failed", None)},
    )
    forget(executor, "a")
    forget(executor, "b")

    assert executor.running == set()
    assert executor.task_publish_retries == executor.pod_launch_attempts == {}
    assert executor.event_buffer == {"b": ("failed", None)}


def test_a_heartbeat_that_was_old_at_the_start_counts_from_then():
    case = Case()
    fence = Fence(case.dog, case.row, [], THRESHOLD, lambda: case.now, age=20)  # type: ignore[arg-type]
    fence.look()

    assert case.row.done == ["hold"]

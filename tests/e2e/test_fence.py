"""The executor of the installed provider, when another scheduler has taken over what waits in it."""

from __future__ import annotations

import pytest

from tests.e2e.in_process import Bench, Started, key

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.timeout(60, func_only=True),  # not the first import of Airflow
    pytest.mark.usefixtures("bench_home"),
]


def away(bench: Bench, seconds: float = 360) -> None:
    """Let the last heartbeat be so old."""
    bench.away += seconds


def test_after_a_long_silence_what_another_took_over_is_dropped(bench: Bench) -> None:
    bench.queue("a", "b", "c")
    bench.executor.running.add(key("adopted"))
    bench.executor.running.add(key("still here"))
    bench.held.add("still here")
    away(bench)
    bench.row.says = "failed"

    bench.turn(2)

    (fenced,) = bench.events("fenced")
    assert fenced["dropped"] == 3
    assert fenced["job_id"] == bench.row.job_id
    assert fenced["silent_s"] >= 360
    assert bench.pods() == []
    assert bench.waiting == []
    assert bench.executor.running == {key("still here")}
    assert bench.executor.task_queue.unfinished_tasks == 0
    assert bench.row.says == "running"
    assert bench.is_whole(), bench.dog.fail.off


def test_what_is_queued_after_that_gets_its_pod(bench: Bench) -> None:
    away(bench)
    bench.row.says = "failed"
    bench.turn()

    bench.queue("t")
    bench.turn()

    assert len(bench.pods()) == 1
    assert len(bench.events("fenced")) == 1


def test_a_job_behind_a_creation_that_came_back_late_is_dropped_at_once(bench: Bench) -> None:
    bench.queue("a", "b", "c")
    create = bench.executor.kube_client.create_namespaced_pod

    def late(*args: object, **kwargs: object) -> object:
        pod = create(*args, **kwargs)
        away(bench)
        bench.row.says = "failed"
        return pod

    bench.executor.kube_client.create_namespaced_pod = late
    bench.turn()

    assert len(bench.pods()) == 1
    assert len(bench.events("fenced")) == 1
    assert bench.waiting == []
    assert not bench.runs("b")
    assert not bench.runs("c")
    assert bench.executor.task_queue.unfinished_tasks == 0


def test_a_creation_without_an_answer_is_dropped_as_well(bench: Bench) -> None:
    bench.break_off(applied=False, times=1)
    bench.queue("t")
    bench.turn()
    assert bench.waiting == ["t"]
    away(bench)
    bench.row.says = "failed"

    bench.turn(2)

    assert bench.waiting == []
    assert bench.pods() == []
    assert bench.recovery.jobs.attempt(key("t")) is None


def test_a_batch_that_is_created_at_once_is_dropped_as_a_whole(
    start_bench: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = start_bench({"kubernetes_executor.async_pod_creation": True})
    if not hasattr(bench.executor, "_create_pods_concurrently"):
        pytest.skip("this provider has no asyncio pod creation; it came with 10.21")
    bench.queue("a", "b", "c")
    taken = bench.executor.kube_scheduler.run_next_batch

    def late(jobs: list[object]) -> object:
        away(bench)
        bench.row.says = "failed"
        return taken(jobs)

    monkeypatch.setattr(bench.executor.kube_scheduler, "run_next_batch", late)
    bench.turn(2)

    assert bench.pods() == []
    assert len(bench.events("fenced")) == 1
    assert bench.executor.running == set()
    assert bench.executor.task_queue.unfinished_tasks == 0


def test_tasks_that_were_not_handed_to_the_executor_yet_are_dropped_too(bench: Bench) -> None:
    bench.executor.queued_tasks[key("t")] = ("command", 1, None, None)
    away(bench)
    bench.row.says = "failed"

    bench.turn()

    assert not bench.executor.queued_tasks
    assert bench.events("fenced")[0]["dropped"] == 1


def test_a_silence_that_nobody_noticed_costs_one_question_and_no_job(bench: Bench) -> None:
    bench.queue("a", "b", "c")
    asked = bench.row.asked
    away(bench)

    bench.turn(3)

    assert len(bench.pods()) == 3
    assert bench.row.asked == asked + 1
    assert not bench.events("fenced")


def test_while_the_loop_turns_nobody_is_asked(bench: Bench) -> None:
    asked = bench.row.asked
    bench.queue("a", "b")

    bench.turn(20)

    assert len(bench.pods()) == 2
    assert bench.row.asked == asked


def test_a_database_that_does_not_answer_holds_the_jobs_back_until_it_does(bench: Bench) -> None:
    bench.queue("a", "b")
    away(bench)
    bench.row.breaks = True

    bench.turn(3)
    assert bench.pods() == []
    assert sorted(bench.waiting) == ["a", "b"]
    assert not bench.events("fenced")

    bench.row.breaks = False
    away(bench, 2)
    bench.turn(2)
    assert len(bench.pods()) == 2
    assert bench.is_whole(), bench.dog.fail.off

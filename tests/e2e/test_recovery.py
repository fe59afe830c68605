"""Sequences of answers, silences and broken connections, and what the executor makes of them."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from urllib3.exceptions import ProtocolError

from tests.e2e.in_process import NAMESPACE, Bench, Started, orphan, task_instance
from tests.fakes.kube_api import Fault, KubeApi

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.timeout(60, func_only=True),  # not the first import of Airflow
    pytest.mark.usefixtures("bench_home"),
]

REFUSALS = {403: "exceeded quota: pods", 429: "slow down", 500: "oops", 503: "soon", 401: "who?"}


def needs(bench: Bench, name: str, since: str) -> None:
    """Skip where the provider has no such thing."""
    scheduler = bench.executor.kube_scheduler
    if not any(hasattr(one, name) for one in (bench.executor, scheduler)):
        pytest.skip(f"this provider has no {name}; it came with {since}")


# --- creation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", list(REFUSALS))
def test_a_refused_retry_says_nothing_of_the_creation_before(
    bench: Bench, api: KubeApi, status: int
) -> None:
    api.set_fault(Fault.APPLIED, on="create", times=1)
    api.set_fault(Fault.STATUS, on="create", times=2, status=status, message=REFUSALS[status])
    bench.queue("t")

    bench.turn(3)
    assert len(bench.requests("create")) == 3
    assert bench.state() != "failed"
    assert bench.waiting == ["t"]
    assert bench.runs()

    bench.turn()
    assert len(bench.requests("create")) == 4
    assert {seen.pod for seen in bench.requests("create")} == set(bench.pods())
    assert len(bench.pods()) == 1
    assert bench.waiting == []
    assert bench.state() == "queued"
    assert bench.is_whole()


def test_a_first_refusal_is_left_to_the_provider(bench: Bench, api: KubeApi) -> None:
    api.set_fault(Fault.STATUS, on="create", times=1, status=422, message="no such field")
    bench.queue("t")

    bench.turn()

    assert bench.state() == "failed"
    assert not bench.events("requeued")


def test_a_silent_creation_that_was_not_applied_is_made_once_more_under_its_name(
    bench: Bench, api: KubeApi
) -> None:
    api.set_fault(Fault.REQUEST, on="create", times=1)
    bench.queue("t")

    bench.turn(2)

    first, second = bench.requests("create")
    assert first.pod == second.pod
    assert bench.pods() == [first.pod]
    assert bench.waiting == []


def test_a_pod_the_watcher_reports_is_not_created_again(bench: Bench) -> None:
    from airflow.utils.state import TaskInstanceState

    bench.break_off(applied=True, times=1)
    bench.queue("t")
    bench.turn()
    assert bench.waiting == ["t"]

    bench.watch(bench.pods()[0], "t", TaskInstanceState.RUNNING)
    bench.turn(2)

    assert len(bench.requests("create")) == 1
    assert bench.waiting == []
    assert bench.runs()
    assert bench.state() == "running"
    assert [fields["outcome"] for fields in bench.events("created_already")] == [
        "seen by the watcher"
    ]


def test_a_pod_that_the_provider_launches_anew_is_a_new_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(bench, "pod_launch_attempts", "10.20")
    from airflow.utils.state import TaskInstanceState

    monkeypatch.setattr(
        bench.executor, "_get_task_instance_state", lambda *_, **__: TaskInstanceState.QUEUED
    )
    bench.break_off(applied=True, times=1)
    bench.queue("t")
    bench.turn()
    lost = bench.pods()[0]

    bench.watch(lost, "t", TaskInstanceState.FAILED, container_reason="ImagePullBackOff")
    bench.turn(3)

    assert len(bench.pods()) == 2
    assert len(set(bench.pods())) == 2
    assert bench.waiting == []
    assert bench.runs()
    assert bench.state() != "failed"


@pytest.mark.parametrize(
    ("standing", "kept"), [("TOO_LONG", False), ("NOT_OURS", False), ("STARTED", True)]
)
def test_what_the_database_says_decides_over_a_job_put_back(
    bench: Bench, standing: str, kept: bool
) -> None:
    bench.break_off(applied=kept, times=1)
    bench.queue("t")
    bench.turn()
    assert bench.asked == []

    bench.stands["t"] = bench.standing[standing]
    bench.turn(2)

    assert bench.asked == ["t"]
    assert len(bench.requests("create")) == 1
    assert bench.waiting == []
    assert bench.runs() is kept
    assert bench.state() != "failed"


def test_a_database_without_an_answer_costs_no_job(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OSError("no database")

    bench.break_off(applied=True, times=1)
    bench.queue("t")
    bench.turn()
    with monkeypatch.context() as patch:
        patch.setattr("watchdog_hook.integrations.airflow.admission.standing", broken)
        bench.turn(2)
    assert bench.waiting == ["t"]
    assert len(bench.requests("create")) == 1

    bench.turn()
    assert len(bench.pods()) == 1
    assert bench.waiting == []


def test_a_batch_in_one_event_loop_keeps_names_as_well(start_bench: Started, api: KubeApi) -> None:
    bench = start_bench({"kubernetes_executor.async_pod_creation": True})
    needs(bench, "run_next_batch", "10.23")
    bench.break_off(applied=True, times=1)
    api.set_fault(Fault.STATUS, on="create", times=1, status=429, message="slow down")
    bench.queue("t")

    bench.turn(2)
    assert len(bench.requests("create")) == 2
    assert bench.waiting == ["t"]
    assert bench.state() != "failed"

    bench.turn()
    assert len(bench.requests("create")) == 3
    assert bench.pods() == [bench.requests("create")[0].pod]
    assert bench.waiting == []
    assert bench.state() == "queued"


# --- names ---------------------------------------------------------------------------------------


def test_a_pod_name_that_a_hook_gives_every_time_is_found_to_be_ours(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hook(pod: Any) -> None:
        pod.metadata.name = "d-t-1"

    monkeypatch.setattr("airflow.settings.pod_mutation_hook", hook)
    bench.break_off(applied=True, times=1)
    bench.queue("t")

    bench.turn(2)

    assert len(bench.requests("create")) == 2
    assert bench.pods() == ["d-t-1"]
    assert bench.state() == "queued"
    assert bench.waiting == []
    assert len(bench.events("created_already")) == 1


def test_a_hook_that_leaves_the_name_to_the_server_gets_one_pod(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hook(pod: Any) -> None:
        pod.metadata.name, pod.metadata.generate_name = None, "of-hook-"

    monkeypatch.setattr("airflow.settings.pod_mutation_hook", hook)
    bench.break_off(applied=True, times=1)
    bench.queue("t", "u")

    bench.turn(3)

    assert len(bench.pods()) == 2
    assert all(name.startswith("of-hook-") for name in bench.pods())
    assert bench.waiting == []
    assert bench.is_whole()


def test_a_name_that_another_pod_has_is_given_up(bench: Bench, api: KubeApi) -> None:
    bench.break_off(applied=False, times=1)
    bench.queue("t")
    bench.turn()
    name = bench.requests("create")[0].pod
    orphan(api, "of-another", name=str(name))

    bench.turn()

    assert len(bench.pods()) == 2
    assert bench.pods()[1] != name
    assert bench.waiting == []
    assert bench.state() == "queued"


def test_a_pod_on_its_way_out_is_waited_for(start_bench: Started, api: KubeApi) -> None:
    bench = start_bench({"watchdog_hook.requeue_limit": 1})
    bench.break_off(applied=True, times=1)
    bench.queue("t")
    bench.turn()
    (name,) = bench.pods()
    api.pods.mark_deleting(NAMESPACE, name)

    for _ in range(5):
        bench.server.answered()  # to others: what counts against a job is silence
        bench.turn()
    assert bench.pods() == [name]
    assert bench.waiting == ["t"]
    assert bench.state() != "failed"

    api.pods.delete(NAMESPACE, name)
    bench.turn()
    assert bench.pods() == [name, name]
    assert bench.waiting == []


def test_where_no_pod_may_be_read_it_is_listed(bench: Bench, api: KubeApi) -> None:
    bench.break_off(applied=True, times=1)
    forbidden = api.set_fault(Fault.STATUS, on="get", status=403, message="cannot get pods")
    bench.queue("t")

    bench.turn(2)

    forbidden.wait()
    assert bench.requests("list")[-1].query["fieldSelector"] == f"metadata.name={bench.pods()[0]}"
    assert len(bench.pods()) == 1
    assert bench.waiting == []
    assert bench.state() == "queued"


# --- the queue -----------------------------------------------------------------------------------


def test_after_one_unknown_outcome_the_loop_turns_before_the_next_creation(bench: Bench) -> None:
    bench.break_off(applied=False, times=1)
    bench.queue("a", "b", "c")

    bench.turn()
    assert len(bench.requests("create")) == 1
    assert sorted(bench.waiting) == ["a", "b", "c"]

    bench.turn()
    assert len(bench.pods()) == 3
    assert bench.waiting == []


def test_a_job_that_waited_through_a_silence_is_asked_for(bench: Bench) -> None:
    bench.break_off(applied=False, times=1)
    bench.queue("a", "b")
    bench.turn()

    bench.stands["b"] = bench.standing.NOT_OURS
    bench.queue("later")
    bench.turn()

    assert sorted(bench.asked) == ["a", "b"]
    assert sorted(seen.labels["task_id"] for seen in bench.requests("create")[1:]) == ["a", "later"]
    assert not bench.runs("b")


def test_of_two_jobs_of_one_key_the_older_is_dropped(bench: Bench) -> None:
    bench.queue("t", "t")

    bench.turn()

    assert len(bench.pods()) == 1
    assert bench.waiting == []
    assert bench.runs()
    assert len(bench.events("dropped")) == 1


def test_a_job_whose_creation_never_gets_an_answer_lets_the_others_pass(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hook(pod: Any) -> None:
        if pod.metadata.labels["task_id"] == "bad":
            pod.metadata.name = "bad"

    monkeypatch.setattr("airflow.settings.pod_mutation_hook", hook)
    bench.break_off(applied=False, pod="bad")
    bench.queue("bad", "good")  # the batch is a multiple of both

    bench.turn(3)

    assert len(bench.pods()) == 1
    assert bench.waiting == ["bad"]


def test_a_task_fails_for_want_of_answers_only_if_others_got_some(start_bench: Started) -> None:
    bench = start_bench({"watchdog_hook.requeue_limit": 2})
    broken = bench.break_off(applied=False)
    bench.queue("t")
    bench.turn(6)
    assert len(bench.requests("create")) == 6
    assert bench.state() != "failed"
    assert bench.waiting == ["t"]

    for _ in range(2):
        assert bench.state() != "failed"
        bench.server.answered()
        bench.turn()

    assert not broken.over.is_set()
    assert bench.state() == "failed"
    assert bench.waiting == []
    assert bench.pods() == []


# --- adoption ------------------------------------------------------------------------------------


def half_adopted(bench: Bench, api: KubeApi, *, applied: bool, fault: Fault = Fault.CLOSE) -> None:
    """Have one of two orphans adopted, and the other without an answer."""
    orphan(api, "a")
    orphan(api, "b")
    bench.runner.orphans = (task_instance("a"), task_instance("b"))
    api.set_fault(fault, on="patch", times=1, pod="pod-b", applied=applied)
    assert bench.runner.adopt_or_reset_orphaned_tasks() == 0  # cut short, and absorbed
    assert bench.runs("a")
    assert not bench.runs("b")


def owner(api: KubeApi, pod: str) -> str:
    return str(api.pods.get(NAMESPACE, pod)["metadata"]["labels"]["airflow-worker"])


@pytest.mark.parametrize("fault", [Fault.CLOSE, Fault.APPLIED])
def test_an_adoption_without_an_answer_that_was_applied_is_not_reset(
    bench: Bench, api: KubeApi, fault: Fault
) -> None:
    half_adopted(bench, api, applied=True, fault=fault)

    assert bench.runner.adopt_or_reset_orphaned_tasks() == []
    assert bench.runs("b")
    assert len(bench.requests("get")) == 1
    assert len(bench.requests("patch")) == 2


def test_an_adoption_without_an_answer_that_was_not_applied_is_made_again(
    bench: Bench, api: KubeApi
) -> None:
    half_adopted(bench, api, applied=False)
    assert owner(api, "pod-b") == "3"

    assert bench.runner.adopt_or_reset_orphaned_tasks() == []
    assert owner(api, "pod-b") == "7"
    assert bench.runs("b")


def test_a_task_whose_doubtful_pod_is_gone_is_reset(bench: Bench, api: KubeApi) -> None:
    half_adopted(bench, api, applied=True)
    api.pods.delete(NAMESPACE, "pod-b")

    assert bench.runner.adopt_or_reset_orphaned_tasks() == ["b"]


def test_a_doubtful_adoption_is_withheld_until_its_pod_is_read(bench: Bench, api: KubeApi) -> None:
    half_adopted(bench, api, applied=True)
    api.set_fault(Fault.STATUS, on="get", times=1, status=500)
    assert bench.runner.adopt_or_reset_orphaned_tasks() == []
    assert not bench.runs("b")

    bench.break_off("get", applied=False, times=30)  # each call is tried again by urllib3
    assert bench.runner.adopt_or_reset_orphaned_tasks() == 0
    api.clear()

    assert bench.runner.adopt_or_reset_orphaned_tasks() == []
    assert bench.runs("b")


def test_a_list_whose_body_breaks_off_is_absorbed_and_counted(bench: Bench, api: KubeApi) -> None:
    orphan(api, "a")
    bench.runner.orphans = (task_instance("a"),)
    api.set_fault(Fault.CUT, on="list")

    assert bench.runner.adopt_or_reset_orphaned_tasks() == 0
    assert bench.server.breaker.failures == 1
    assert bench.events("absorbed")[0]["outcome"] == "broken"

    api.clear()
    assert bench.runner.adopt_or_reset_orphaned_tasks() == []
    assert bench.runs("a")
    assert bench.server.breaker.failures == 0


# --- the end of a pod ----------------------------------------------------------------------------


def end_without_an_answer(bench: Bench, api: KubeApi) -> str:
    """Have a task end whose pod cannot be deleted for want of an answer."""
    from airflow.utils.state import TaskInstanceState

    bench.queue("t")
    bench.turn()
    (pod,) = bench.pods()
    broken = bench.break_off("delete", applied=False)
    bench.watch(pod, "t", TaskInstanceState.SUCCESS)
    bench.turn()
    broken.clear()
    assert bench.state() == "success"
    assert not bench.runs()
    return pod


def test_a_deletion_without_an_answer_is_owed_until_it_succeeds(bench: Bench, api: KubeApi) -> None:
    pod = end_without_an_answer(bench, api)
    before = len(bench.requests("delete"))
    api.set_fault(Fault.STATUS, on="delete", times=2, status=500)

    bench.turn(2)
    assert api.pods.get(NAMESPACE, pod)
    bench.turn(3)

    assert len(bench.requests("delete")) == before + 3
    with pytest.raises(Exception, match="not found"):
        api.pods.get(NAMESPACE, pod)
    assert bench.is_whole()


def test_a_deletion_that_is_refused_again_and_again_is_given_up(bench: Bench, api: KubeApi) -> None:
    from watchdog_hook.integrations.airflow.finished import TRIES

    end_without_an_answer(bench, api)
    before = len(bench.requests("delete"))
    api.set_fault(Fault.STATUS, on="delete", status=500)
    bench.turn(TRIES + 5)
    assert len(bench.requests("delete")) == before + TRIES

    # And what lies around the heartbeat is still there.
    bench.break_off(applied=True, times=1)
    bench.queue("u")
    bench.turn(2)
    assert bench.is_whole()
    assert len(bench.pods()) == 2
    assert bench.state("u") == "queued"


# --- tasks stuck in queued -----------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "on"), [(Fault.CLOSE, "any"), (Fault.CUT, "list")])
def test_a_revocation_that_did_not_get_through_forgets_nothing(
    bench: Bench, api: KubeApi, fault: Fault, on: str
) -> None:
    needs(bench, "revoke_task", "10.0")
    bench.queue("t")
    bench.turn()
    launches = dict(getattr(bench.executor, "pod_launch_attempts", {}))
    bench.runner.stuck = (task_instance("t", 7),)
    api.set_fault(fault, on=on)

    bench.runner._handle_tasks_stuck_in_queued()

    assert bench.events("absorbed")
    assert bench.runs()
    assert getattr(bench.executor, "pod_launch_attempts", {}) == launches

    api.clear()
    bench.runner._handle_tasks_stuck_in_queued()
    assert not bench.runs()


def test_stuck_tasks_are_not_looked_for_while_the_server_is_left_alone(
    start_bench: Started, api: KubeApi
) -> None:
    bench = start_bench({"watchdog_hook.breaker_after": 1})
    bench.runner._handle_tasks_stuck_in_queued()
    bench.break_off(applied=False, times=1)
    bench.queue("t")
    bench.turn()

    bench.runner._handle_tasks_stuck_in_queued()
    assert bench.runner.looked_for_stuck == 1

    bench.server.answered()
    bench.runner._handle_tasks_stuck_in_queued()
    assert bench.runner.looked_for_stuck == 2


# --- the breaker ---------------------------------------------------------------------------------


def test_a_breaker_opens_and_closes_without_losing_a_job(
    start_bench: Started, api: KubeApi
) -> None:
    bench = start_bench({"watchdog_hook.breaker_after": 2, "watchdog_hook.breaker_open_for": 0.2})
    asked = api.set_fault(Fault.STATUS, on="version", times=1, status=401)
    broken = bench.break_off(applied=False)
    bench.queue("a", "b", "c")
    bench.turn()
    assert bench.server.allows()
    bench.turn()
    assert not bench.server.breaker.allows
    assert len(bench.events("breaker_open")) == 1

    asked.wait()  # for the probe, which is answered
    bench.server._probe.join()
    broken.clear()
    assert len(bench.requests("create")) == 2
    bench.turn()

    assert sorted(seen.labels["task_id"] for seen in bench.requests("create")[2:]) == list("abc")
    assert len(bench.pods()) == 3
    assert bench.waiting == []
    assert len(bench.events("breaker_closed")) == 1
    assert not any(bench.state(task) == "failed" for task in "abc")


def test_nothing_is_created_while_the_breaker_is_open(start_bench: Started) -> None:
    bench = start_bench({"watchdog_hook.breaker_after": 1})
    bench.break_off(applied=False, times=1)
    bench.queue("a", "b", "c")

    bench.turn(5)

    assert len(bench.requests("create")) == 1
    assert sorted(bench.waiting) == ["a", "b", "c"]
    assert all(bench.runs(task) for task in "abc")


def on_trial(bench: Bench, api: KubeApi) -> None:
    """Open the breaker, and have its probe answered: with less than the client asks of a version."""
    asked = api.set_fault(Fault.SLOW, on="version", times=1, seconds=0)
    bench.server.failed()
    asked.wait()
    bench.server._probe.join()
    assert bench.server.allows()


TRIAL = {"watchdog_hook.breaker_after": 1, "watchdog_hook.breaker_open_for": 0.1}


def test_a_trial_that_breaks_off_opens_the_breaker_again(
    start_bench: Started, api: KubeApi
) -> None:
    bench = start_bench({**TRIAL, "watchdog_hook.breaker_open_for": 20})
    bench.server.failed()
    bench.server._probed = True
    bench.break_off(applied=False, times=1)
    bench.queue("a", "b")

    bench.turn(3)

    assert len(bench.requests("create")) == 1
    assert sorted(bench.waiting) == ["a", "b"]
    assert [fields["open_s"] for fields in bench.events("breaker_open")] == [20, 40]


def test_a_trial_that_nobody_makes_use_of_ends_well(
    start_bench: Started, api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    from watchdog_hook.core import breaker

    bench = start_bench(TRIAL)
    on_trial(bench, api)
    assert bench.server.breaker.gate is breaker.Gate.TRIAL
    assert bench.server.breaker.limit == breaker.TRIAL_LIMIT

    monkeypatch.setattr(breaker, "TRIAL_LASTS", -1.0)
    bench.turn()

    assert bench.server.breaker.gate is breaker.Gate.CLOSED
    assert bench.server.breaker.limit is None


def test_a_trial_sends_one_job_of_a_batch(start_bench: Started, api: KubeApi) -> None:
    bench = start_bench({**TRIAL, "kubernetes_executor.async_pod_creation": True})
    needs(bench, "run_next_batch", "10.23")
    on_trial(bench, api)
    bench.queue("a", "b", "c")

    bench.turn()
    assert len(bench.requests("create")) == 1
    assert sorted(bench.waiting) == ["b", "c"]

    bench.turn()
    assert len(bench.pods()) == 3
    assert bench.waiting == []


# --- where a part is off -------------------------------------------------------------------------


def test_with_a_vital_part_off_no_call_is_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistake(*_: Any) -> None:
        raise ZeroDivisionError

    bench.queue("t")
    with monkeypatch.context() as patch:
        patch.setattr(bench.recovery, "run_next", mistake)
        bench.turn()
    assert len(bench.pods()) == 1  # made by the provider, as without us

    bench.break_off(applied=False, times=1)
    bench.queue("u")
    with contextlib.suppress(ProtocolError):  # crosses the heartbeat, as without us, before 10.21
        bench.turn()

    assert len(bench.requests("create")) == 2
    assert "u" not in bench.waiting
    assert not bench.events("requeued")
    assert not bench.events("absorbed")
    assert bench.server.breaker.failures == 0

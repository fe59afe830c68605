"""The API server fails while pods are being created."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.airflow_home import AIRFLOW, PROVIDER
from tests.e2e.ordeal import QUICK, SILENT, Ordeal, has_stack_of, secrets_in
from tests.fakes.kube_api import Fault

if TYPE_CHECKING:
    from tests.e2e.conftest import Start
    from tests.fakes.kube_api import KubeApi


@pytest.mark.parametrize("batch", [1, 8])
def test_every_fault_of_a_creation_ends_with_one_pod_per_task(
    start: Start, api: KubeApi, batch: int
):
    settings = {**QUICK, "kubernetes_executor.worker_pods_creation_batch_size": batch}
    scheduler = start(settings)
    ordeal = Ordeal(scheduler, api)
    ordeal.release()
    ordeal.wait_for_pods(timeout=120)

    for fault in SILENT:
        mark = scheduler.mark()
        trap = ordeal.set_fault(fault, on="create")
        ordeal.release()
        trap.wait(2 if fault is Fault.LATE else 1)
        scheduler.wait_event("requeued", since=mark)
        api.clear()
        ordeal.wait_for_pods()
        scheduler.wait_event("stall_ended", since=mark)

        assert scheduler.events("interrupt", since=mark), fault
        assert has_stack_of(scheduler.text(mark), "create_namespaced_pod"), fault
        ordeal.check()

    for fault in (Fault.RESET, Fault.CLOSE):
        for applied in (False, True):
            mark = scheduler.mark()
            api.set_fault(fault, on="create", times=1, applied=applied)
            ordeal.release()
            ordeal.wait_for_pods()
            scheduler.wait_event("requeued", since=mark)

            assert not scheduler.events("interrupt", since=mark), fault
            ordeal.check()

    mark = scheduler.mark()
    api.set_fault(Fault.SLOW, on="create", times=1, seconds=1)
    ordeal.release()
    ordeal.wait_for_pods()
    assert not scheduler.events("interrupt", "requeued", since=mark)

    assert scheduler.errors() == []
    assert secrets_in(scheduler, api) == []

    if PROVIDER < (10, 16):
        return  # up to there Airflow itself fails a task for a 429
    mark = scheduler.mark()
    api.set_fault(Fault.TOO_MANY, on="create", times=1)
    ordeal.release()
    ordeal.wait_for_pods()

    assert not scheduler.events("interrupt", "requeued", since=mark)
    ordeal.check()


def test_a_silence_that_ends_in_a_broken_connection_loses_no_task(start: Start, api: KubeApi):
    scheduler = start({**QUICK, "watchdog_hook.interrupt_after": 60})
    ordeal = Ordeal(scheduler, api)
    ordeal.release()
    ordeal.wait_for_pods(timeout=120)

    for fault in (Fault.REQUEST, Fault.APPLIED, Fault.HALF):
        mark = scheduler.mark()
        api.set_fault(fault, on="create")
        ordeal.release()
        scheduler.wait_event("dump", since=mark)
        api.clear()  # as a server does that is started anew
        scheduler.wait_event("requeued", since=mark)
        ordeal.wait_for_pods()
        scheduler.wait_event("stall_ended", since=mark)
        ordeal.check()

    assert not scheduler.events("interrupt")
    assert scheduler.errors() == []


def test_a_scheduler_in_a_silent_call_ends_when_it_is_asked_to(start: Start, api: KubeApi):
    scheduler = start(QUICK)
    ordeal = Ordeal(scheduler, api)
    ordeal.release()
    ordeal.wait_for_pods(timeout=120)
    trap = api.set_fault(Fault.REQUEST, on="any")
    ordeal.release()
    trap.wait()

    assert scheduler.terminate(timeout=30) == 0


@pytest.mark.skipif(PROVIDER < (8, 0), reason="7.9 makes every pod in the executor's namespace")
def test_pods_of_two_namespaces_come_back(start: Start, api: KubeApi):
    namespaces = {
        "kubernetes_executor.multi_namespace_mode": True,
        "kubernetes_executor.multi_namespace_mode_namespace_list": "here,there",
    }
    scheduler = start({**QUICK, **namespaces})
    ordeal = Ordeal(scheduler, api)
    ordeal.release("spread_00", tasks=6)
    ordeal.wait_for_pods(timeout=120)

    for number, namespace in enumerate(["here", "there"], start=1):
        mark = scheduler.mark()
        trap = api.set_fault(Fault.APPLIED, on="create", times=1, namespace=namespace)
        ordeal.release(f"spread_{number:02}", tasks=6)
        trap.wait()
        scheduler.wait_event("created_already", since=mark)
        ordeal.wait_for_pods()
        scheduler.wait_event("stall_ended", since=mark)
        ordeal.check()

    assert len(api.created("here")) == len(api.created("there")) == 9
    assert scheduler.errors() == []


def test_mapped_tasks_are_told_apart(start: Start, api: KubeApi):
    scheduler = start(QUICK)
    ordeal = Ordeal(scheduler, api)
    trap = api.set_fault(Fault.APPLIED, on="create", times=2)
    ordeal.release("many_00", tasks=8)
    trap.wait(2, timeout=120)
    ordeal.wait_for_pods()
    scheduler.wait_event("created_already")

    ordeal.check()
    assert {index for *_, index in api.per_try()} == {str(n) for n in range(8)}


@pytest.mark.skipif(
    PROVIDER < (10, 21) or AIRFLOW < (3, 0), reason="async_pod_creation came with provider 10.21"
)
def test_pods_created_side_by_side_come_back_without_a_signal(start: Start, api: KubeApi):
    scheduler = start({**QUICK, "kubernetes_executor.async_pod_creation": True})
    ordeal = Ordeal(scheduler, api)
    ordeal.release()
    ordeal.wait_for_pods(timeout=120)

    for fault in SILENT:
        mark = scheduler.mark()
        trap = ordeal.set_fault(fault, on="create")
        ordeal.release()
        trap.wait(2 if fault is Fault.LATE else 1)
        scheduler.wait_event("requeued", since=mark)
        api.clear()
        ordeal.wait_for_pods()

        assert not scheduler.events("interrupt", since=mark), fault
        ordeal.check()

    for fault in (Fault.RESET, Fault.CLOSE):
        for applied in (False, True):
            mark = scheduler.mark()
            api.set_fault(fault, on="create", times=1, applied=applied)
            ordeal.release()
            scheduler.wait_event("requeued", since=mark)
            ordeal.wait_for_pods()
            ordeal.check()
    assert scheduler.errors() == []

"""The API server fails while finished pods are deleted, or marked as done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.ordeal import QUICK, SILENT, Ordeal, has_stack_of
from tests.fakes.kube_api import Fault

if TYPE_CHECKING:
    from tests.e2e.conftest import Start
    from tests.fakes.kube_api import KubeApi


@pytest.mark.parametrize(
    ("operation", "deletes", "function"),
    [("delete", True, "delete_namespaced_pod"), ("patch", False, "patch_namespaced_pod")],
    ids=["delete", "patch"],
)
def test_every_fault_after_a_task_lets_the_loop_go_on(
    start: Start, api: KubeApi, operation: str, deletes: bool, function: str
):
    scheduler = start({**QUICK, "kubernetes_executor.delete_worker_pods": deletes})
    ordeal = Ordeal(scheduler, api)
    dag = ordeal.release()
    ordeal.wait_for_pods(timeout=120)

    for fault in SILENT:
        mark = scheduler.mark()
        trap = ordeal.set_fault(fault, on=operation)
        ordeal.finish(dag)
        trap.wait()
        scheduler.wait_event("absorbed", since=mark)
        api.clear()
        scheduler.wait_event("stall_ended", since=mark)
        dag = ordeal.release()
        ordeal.wait_for_pods()

        assert scheduler.events("interrupt", since=mark), fault
        assert has_stack_of(scheduler.text(mark), function), fault
        assert has_stack_of(scheduler.text(mark), "_change_state"), fault
        ordeal.check()

    for fault in (Fault.RESET, Fault.CLOSE, Fault.SLOW, Fault.TOO_MANY):
        mark = scheduler.mark()
        trap = api.set_fault(fault, on=operation, times=1)
        ordeal.finish(dag)
        trap.wait()
        dag = ordeal.release()
        ordeal.wait_for_pods()

        assert not scheduler.events("interrupt", since=mark), fault
        ordeal.check()

    assert scheduler.home.database.task_states()["success"] == ordeal.expected - 3

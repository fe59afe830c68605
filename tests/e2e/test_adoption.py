"""The API server fails while a scheduler takes over the pods of one that was killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.airflow_home import AIRFLOW
from tests.e2e.ordeal import QUICK, SILENT, Ordeal, has_stack_of
from tests.fakes.kube_api import Fault

if TYPE_CHECKING:
    from tests.e2e.conftest import Start
    from tests.fakes.kube_api import KubeApi


def test_every_fault_of_the_adoption_leaves_each_task_its_one_pod(start: Start, api: KubeApi):
    first = start(QUICK)
    before = Ordeal(first, api)
    for _ in range(4):
        before.release()
    before.wait_for_pods(timeout=120)
    first.close()
    first.home.database.forget_scheduler()

    first.home.settings["scheduler.orphaned_tasks_check_interval"] = 4
    faults = iter([*SILENT, Fault.RESET, Fault.CLOSE])
    fault: Fault | None = next(faults)
    trap = before.set_fault(fault, on="patch")
    second = start(home=first.home)
    ordeal = Ordeal(second, api, before.steps, before.expected)
    mark = 0
    while fault is not None:
        trap.wait(timeout=120)
        if fault in SILENT:
            second.wait_event("absorbed", since=mark)
            assert second.events("interrupt", since=mark), fault
            # A silence of the whole connection meets whatever call comes first, not the patch.
            if not fault.is_of_connection:
                assert has_stack_of(second.text(mark), "patch_namespaced_pod"), fault
        api.clear()
        mark = second.mark()
        fault = next(faults, None)
        if fault is not None:
            trap = ordeal.set_fault(fault, on="patch")

    ordeal.release()
    ordeal.wait_for_pods()
    job = str(second.home.database.scheduler_job()[0])
    second.wait_for(
        lambda: all(
            pod["metadata"]["labels"]["airflow-worker"] == job
            for pod in api.pods.list(None, lambda _: True)[1]
        ),
        90,
        "every pod to be adopted",
    )
    ordeal.check()
    assert second.home.database.task_states()["queued"] == ordeal.expected
    # Before 2.10 the column counts the tries that have ended.
    first_try = 0 if AIRFLOW < (2, 10) else 1
    assert set(second.home.database.tries().values()) == {first_try}

"""The API server fails while the executor looks for completed pods of dead schedulers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.airflow_home import PROVIDER
from tests.e2e.ordeal import QUICK, SILENT, Ordeal, has_stack_of
from tests.fakes.kube_api import Fault

if TYPE_CHECKING:
    from tests.e2e.conftest import Start
    from tests.fakes.kube_api import KubeApi


@pytest.mark.skipif(PROVIDER < (10, 16), reason="the executor lists at each sync from 10.16 on")
def test_every_fault_of_the_list_lets_the_loop_go_on(start: Start, api: KubeApi):
    scheduler = start({**QUICK, "scheduler.orphaned_tasks_check_interval": 4})
    ordeal = Ordeal(scheduler, api)
    ordeal.release()
    ordeal.wait_for_pods(timeout=120)

    for fault in SILENT:
        mark = scheduler.mark()
        trap = ordeal.set_fault(fault, on="list")
        trap.wait()
        scheduler.wait_event("absorbed", since=mark)
        api.clear()
        scheduler.wait_event("stall_ended", since=mark)
        ordeal.release()
        ordeal.wait_for_pods()

        assert scheduler.events("interrupt", since=mark), fault
        assert has_stack_of(scheduler.text(mark), "_adopt_completed_pods"), fault
        ordeal.check()

    for fault in (Fault.RESET, Fault.CLOSE, Fault.SLOW, Fault.TOO_MANY):
        mark = scheduler.mark()
        trap = api.set_fault(fault, on="list", times=1)
        trap.wait()
        ordeal.release()
        ordeal.wait_for_pods()

        assert not scheduler.events("interrupt", since=mark), fault
        ordeal.check()

    assert scheduler.errors() == []

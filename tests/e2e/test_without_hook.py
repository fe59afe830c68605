"""The harness itself, and the illness: what a scheduler does when nobody helps it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fakes.kube_api import Fault

if TYPE_CHECKING:
    from tests.e2e.conftest import Start
    from tests.fakes.kube_api import KubeApi

HEARTBEAT = "SELECT latest_heartbeat FROM job WHERE job_type = 'SchedulerJob'"


def test_without_the_hook_the_scheduler_stays_frozen(start: Start, api: KubeApi):
    scheduler = start(local_settings="")
    database = scheduler.home.database
    database.release("step_00")
    api.wait_for_pods(3, timeout=120)

    trap = api.set_fault(Fault.REQUEST, on="create")
    database.release("step_01")
    trap.wait()
    before = scheduler.mark()
    last, age = database.rows(HEARTBEAT), database.scheduler_job()[2]
    scheduler.wait_for(
        lambda: database.scheduler_job()[2] > age + 30, 90, "a heartbeat 30 s older than now"
    )

    assert database.rows(HEARTBEAT) == last
    assert trap.hits == 1
    assert scheduler.is_same()
    assert len(api.created()) == 3
    assert set(api.per_try().values()) == {1}
    assert not scheduler.events()
    assert scheduler.errors(before) == []

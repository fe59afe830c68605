"""The API server is silent for longer than one call."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.e2e.ordeal import QUICK, Ordeal
from tests.fakes.kube_api import Fault

if TYPE_CHECKING:
    from tests.e2e.conftest import Start
    from tests.fakes.kube_api import KubeApi


def test_the_loop_turns_while_the_server_is_silent(start: Start, api: KubeApi):
    scheduler = start(QUICK)
    ordeal = Ordeal(scheduler, api)
    ordeal.release()
    ordeal.wait_for_pods(timeout=120)

    mark = scheduler.mark()
    stay_alive_through_silence(ordeal, seconds=45)

    assert scheduler.events("breaker_closed", since=mark)
    assert scheduler.errors() == []


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_five_minutes_of_silence_cost_no_task(start: Start, api: KubeApi):
    defaults = {"kubernetes_executor.task_publish_max_retries": 5}
    scheduler = start(
        {**defaults, "watchdog_hook.interrupt_after": 15, "watchdog_hook.dump_after": 10}
    )
    ordeal = Ordeal(scheduler, api)
    ordeal.release()
    ordeal.wait_for_pods(timeout=120)

    stay_alive_through_silence(ordeal, seconds=300)


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_after_twelve_minutes_airflow_takes_over_without_a_double(start: Start, api: KubeApi):
    settings = {**QUICK, "scheduler.task_queued_timeout": 300, "watchdog_hook.breaker_open_for": 30}
    scheduler = start(settings)
    ordeal = Ordeal(scheduler, api)
    ordeal.release()
    ordeal.wait_for_pods(timeout=120)
    ordeal.finish("step_00")

    api.set_fault(Fault.REQUEST, on="any")
    ordeal.release()
    end = time.monotonic() + 720
    scheduler.wait_for(lambda: time.monotonic() > end, 800, "twelve minutes")
    api.clear()
    database = scheduler.home.database
    scheduler.wait_for(
        lambda: not database.task_states()["scheduled"] and len(api.created()) > 3, 600, "new pods"
    )

    assert scheduler.is_same()
    assert set(api.per_try().values()) <= {1}
    assert database.scheduler_job()[2] < 30


def stay_alive_through_silence(ordeal: Ordeal, seconds: float) -> None:
    """Let the server fall silent for so long, and check that Airflow is alive all the while."""
    scheduler, api = ordeal.scheduler, ordeal.api
    database = scheduler.home.database
    api.set_fault(Fault.REQUEST, on="any")
    ordeal.release()
    scheduler.wait_event("breaker_open", timeout=120)
    # Each call that was interrupted until then has cost its time; from here on none does.
    scheduler.wait_for(lambda: database.scheduler_job()[2] < 10, 30, "a heartbeat")
    ages: list[float] = []

    def time_is_up(end: float = time.monotonic() + seconds) -> bool:
        ages.append(database.scheduler_job()[2])
        return time.monotonic() > end

    scheduler.wait_for(time_is_up, seconds + 60, f"{seconds:.0f} s of silence")
    ordeal.release()
    api.clear()
    ordeal.wait_for_pods(timeout=400)
    scheduler.wait_event("breaker_closed", timeout=60)

    assert max(ages) < 30
    ordeal.check()

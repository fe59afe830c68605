"""Where nothing is stuck, or nothing may be touched, the hook leaves the scheduler alone."""

from __future__ import annotations

import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from tests.e2e.airflow_home import HOOK, PROVIDER
from tests.e2e.ordeal import QUICK, Ordeal, has_stack_of
from tests.fakes.kube_api import Fault

if TYPE_CHECKING:
    from tests.e2e.conftest import Start
    from tests.fakes.kube_api import KubeApi

DEEDS = ("interrupt", "requeued", "dropped", "absorbed", "breaker_open", "terminate")
MUTATION = """
import os
import urllib.request

import watchdog_hook

watchdog_hook.install()


def pod_mutation_hook(pod):
    if pod.metadata.annotations["dag_id"] == "step_01":
        try:
            urllib.request.urlopen("http://127.0.0.1:%d/advice").read()
        except OSError as error:
            print("no advice:", error, flush=True)
"""


def test_a_healthy_scheduler_hears_nothing(start: Start, api: KubeApi):
    scheduler = start({"scheduler.orphaned_tasks_check_interval": 4})
    ordeal = Ordeal(scheduler, api)
    for _ in range(4):
        dag = ordeal.release()
        ordeal.wait_for_pods(timeout=120)
        ordeal.finish(dag)
    scheduler.wait_for(
        lambda: not api.pods.list(None, lambda _: True)[1], 60, "the finished pods to be deleted"
    )
    ordeal.check()

    assert scheduler.said() == ["armed"]
    assert scheduler.errors() == []
    assert scheduler.terminate(60) == 0
    assert scheduler.said() == ["armed", "disarmed"]


def test_slow_answers_are_called_slow_and_are_waited_for(start: Start, api: KubeApi):
    # Three answers take longer than the patience, and one is far from being a stall on a busy machine.
    patient = {"watchdog_hook.dump_after": 8, "watchdog_hook.interrupt_after": 10}
    scheduler = start({**QUICK, **patient})
    ordeal = Ordeal(scheduler, api)
    ordeal.release()
    ordeal.wait_for_pods(timeout=120)

    mark = scheduler.mark()
    trap = api.set_fault(Fault.SLOW, on="create", seconds=3)
    ordeal.release()
    ordeal.release()
    ordeal.wait_for_pods()
    scheduler.wait_event("slow", since=mark)

    assert trap.hits == 6
    assert not scheduler.events("dump", *DEEDS, since=mark)
    ordeal.check()


@pytest.mark.skipif((10, 0) <= PROVIDER < (10, 16), reason="a turn of this provider lists no pods")
def test_a_throttled_call_is_waited_for(start: Start, api: KubeApi):
    scheduler = start({**QUICK, "scheduler.orphaned_tasks_check_interval": 4})
    ordeal = Ordeal(scheduler, api)
    ordeal.release()
    ordeal.wait_for_pods(timeout=120)

    trap = api.set_fault(Fault.TOO_MANY, on="list", times=3, seconds=5)
    trap.wait(3)
    ordeal.release()
    ordeal.wait_for_pods()

    assert not scheduler.events(*DEEDS)
    ordeal.check()


def test_a_stopped_process_is_a_pause(start: Start, api: KubeApi):
    scheduler = start(QUICK)
    ordeal = Ordeal(scheduler, api)
    ordeal.release()
    ordeal.wait_for_pods(timeout=120)

    mark = scheduler.mark()
    trap = api.set_fault(Fault.SLOW, on="create", times=1, seconds=1)
    ordeal.release()
    trap.wait()  # so that it stops in the middle of a call
    scheduler.send(signal.SIGSTOP)
    end = time.monotonic() + 20
    api.pods.wait_for(lambda: time.monotonic() > end, 20)
    scheduler.send(signal.SIGCONT)
    scheduler.wait_event("paused", since=mark)
    ordeal.wait_for_pods()

    assert not scheduler.events("dump", *DEEDS, since=mark)
    ordeal.check()


def test_a_stuck_call_in_a_pod_mutation_hook_is_shown_and_not_touched(start: Start, api: KubeApi):
    with socket.create_server(("127.0.0.1", 0)) as adviser:
        text = MUTATION % adviser.getsockname()[1]
        scheduler = start(QUICK, local_settings=text)
        ordeal = Ordeal(scheduler, api)
        ordeal.release()
        ordeal.wait_for_pods(timeout=120)

        mark = scheduler.mark()
        ordeal.release()
        stuck, _ = adviser.accept()
        with stuck:
            scheduler.wait_event("dump", since=mark, count=2)  # the second is at twice the age
    scheduler.wait_event("stall_ended", since=mark)
    ordeal.wait_for_pods()

    assert has_stack_of(scheduler.text(mark), "pod_mutation_hook")
    assert not scheduler.events(*DEEDS, since=mark)
    ordeal.check()


def test_observing_changes_nothing_but_the_log(start: Start, api: KubeApi):
    scheduler = start({**QUICK, "watchdog_hook.interrupt": "off"})
    database = scheduler.home.database
    ordeal = Ordeal(scheduler, api)
    ordeal.release()
    ordeal.wait_for_pods(timeout=120)

    mark = scheduler.mark()
    trap = api.set_fault(Fault.LATE, on="create", times=1)
    ordeal.release()
    trap.wait()
    scheduler.wait_event("dump", since=mark)
    scheduler.wait_for(lambda: database.scheduler_job()[2] > 30, 90, "a heartbeat of 30 s ago")
    assert trap.hits == 1
    assert not scheduler.events(*DEEDS)

    api.clear()
    ordeal.wait_for_pods()
    scheduler.wait_event("stall_ended", since=mark)
    assert not scheduler.events(*DEEDS)
    scheduler.wait_for(lambda: database.scheduler_job()[2] < 10, 60, "a heartbeat")
    ordeal.check()


def test_switched_off_it_is_not_there(start: Start, api: KubeApi):
    scheduler = start({**QUICK, "watchdog_hook.enabled": False})
    ordeal = Ordeal(scheduler, api)
    ordeal.release()
    ordeal.wait_for_pods(timeout=120)

    assert "watchdog_hook" not in scheduler.text()


def test_other_commands_know_nothing_of_the_hook(start: Start, api: KubeApi):
    scheduler = start(local_settings=HOOK)
    scheduler.wait_event("armed", timeout=120)
    scheduler.wait_for(lambda: scheduler.home.database.scheduler_job()[1] == "running", 60, "a job")

    for words in (["dags", "list"], ["jobs", "check"]):
        done = scheduler.home.run(*words)
        assert done.returncode == 0, done.stdout
        assert "watchdog_hook" not in done.stdout

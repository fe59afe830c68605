"""A process that watches pods for the executor and hears nothing any more: said, and ended where wanted."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.e2e.airflow_home import HOOK, PROVIDER
from tests.e2e.ordeal import PATIENT, QUICK, Ordeal, watcher_of
from tests.fakes.kube_api import Fault

if TYPE_CHECKING:
    from tests.e2e.conftest import Start
    from tests.e2e.scheduler import Scheduler
    from tests.fakes.kube_api import KubeApi

# From provider 8.3 to 10.3 it is 30 s, whatever the setting says.
FORCED = (8, 1) <= PROVIDER < (10, 4)
LONG = (
    200 if FORCED else 60
)  # seconds that a silence may take to be told: here three times that timeout
# A minute and a half otherwise; in front of the settings, as a user may write them.
SHORTER = f"from watchdog_hook.core import watchers\n\nwatchers.ELSEWHERE = 10.0\n{HOOK}"
HEARD = re.compile(r"Event: (\S+) Pending, annotations")


def read_timeout(seconds: float) -> dict[str, object]:
    """Return the settings for a read timeout of the watcher; 0 is none."""
    value = {"_request_timeout": [seconds, seconds] if seconds else 0}
    # Before provider 8 what it hears of a waiting pod is no more than a detail.
    level = {"logging.logging_level": "DEBUG"} if PROVIDER < (8, 0) else {}
    return {**QUICK, **level, "kubernetes_executor.kube_client_request_args": json.dumps(value)}


def wait_until_heard(ordeal: Ordeal) -> None:
    """Return once the watcher has heard of every pod: from then on it is silent only if it is made to be."""
    ordeal.wait_for_pods(timeout=120)
    ordeal.scheduler.wait_for(
        lambda: len(set(HEARD.findall(ordeal.scheduler.text()))) >= ordeal.expected,
        60,
        f"{ordeal.expected} pods that the watcher has heard of",
    )


def finished_pods_are_deleted(scheduler: Scheduler, api: KubeApi) -> None:
    """Return once the executor has noticed the end of every pod."""
    scheduler.wait_for(
        lambda: not api.pods.list(None, lambda _: True)[1], 60, "the finished pods to be deleted"
    )


def watches(api: KubeApi) -> int:
    return sum(seen.operation == "watch" for seen in api.requests)


def test_an_idle_watch_and_one_whose_server_is_silent_are_no_silent_watchers(
    start: Start, api: KubeApi
):
    settings = {**read_timeout(2), **PATIENT, "watchdog_hook.restart_watchers": True}
    scheduler = start(settings)
    ordeal = Ordeal(scheduler, api)
    dag = ordeal.release()
    ordeal.wait_for_pods(timeout=120)
    so_far = watches(api)
    # Its read timeout ends each of them, and it begins anew.
    scheduler.wait_for(lambda: watches(api) >= so_far + (1 if FORCED else 6), 120, "more watches")
    trap = api.set_fault(Fault.REQUEST, on="watch")
    trap.wait(1 if FORCED else 5, timeout=120)
    trap.clear()
    ordeal.finish(dag)
    finished_pods_are_deleted(scheduler, api)
    ordeal.check()

    assert scheduler.said() == ["armed"]


def test_a_stopped_watcher_is_told_and_left_alone_unless_asked(start: Start, api: KubeApi):
    # Stopped between two reads it has no timeout of its own.
    scheduler = start(read_timeout(2), local_settings=SHORTER)
    ordeal = Ordeal(scheduler, api)
    dag = ordeal.release()
    wait_until_heard(ordeal)

    watcher = watcher_of(scheduler, api)
    watcher.suspend()
    told = scheduler.wait_event("watcher_silent", timeout=LONG)
    assert told.facts["pid"] == str(watcher.pid)
    assert told.facts["namespace"] == "here"
    assert told.facts["state"] == "stopped"
    assert told.facts["action"] == "none"
    assert float(told.facts["silent_s"]) >= 10
    assert int(told.facts["events"]) >= 3  # one for each pod
    assert watcher.is_running()

    watcher.resume()
    back = scheduler.wait_event("watcher_back", timeout=60)
    assert back.facts["outcome"] == "by itself"
    ordeal.finish(dag)
    finished_pods_are_deleted(scheduler, api)
    ordeal.check()


def test_with_restart_watchers_another_one_sees_what_the_silent_one_missed(
    start: Start, api: KubeApi
):
    settings = {**read_timeout(2), "watchdog_hook.restart_watchers": True}
    scheduler = start(settings, local_settings=SHORTER)
    ordeal = Ordeal(scheduler, api)
    dag = ordeal.release()
    wait_until_heard(ordeal)

    watcher = watcher_of(scheduler, api)
    os.kill(watcher.pid, signal.SIGSTOP)
    ordeal.finish(dag)
    told = scheduler.wait_event("watcher_silent", timeout=LONG)
    assert told.facts["pid"] == str(watcher.pid)
    assert told.facts["action"] == "kill -9"
    back = scheduler.wait_event("watcher_back", timeout=60)

    assert back.facts["before"] == str(watcher.pid)
    assert back.facts["outcome"] == "a new one was started"
    finished_pods_are_deleted(scheduler, api)
    ordeal.check()
    assert len(scheduler.events("watcher_silent")) == 1


@pytest.mark.skipif(FORCED, reason="this provider gives its watcher 30 s, whatever is set")
def test_a_watch_without_a_timeout_that_misses_a_pod_is_ended(start: Start, api: KubeApi):
    settings = {**read_timeout(0), "watchdog_hook.restart_watchers": True}
    scheduler = start(settings, local_settings=SHORTER)
    ordeal = Ordeal(scheduler, api)
    dag = ordeal.release()
    wait_until_heard(ordeal)

    trap = api.set_fault(Fault.REQUEST, on="watch")
    end = time.monotonic() + 15
    scheduler.wait_for(lambda: time.monotonic() > end, 30, "nothing: an idle watch looks the same")
    assert not scheduler.events("watcher_silent")
    other = ordeal.release()
    ordeal.wait_for_pods()
    ordeal.finish(dag)
    ordeal.finish(other)
    told = scheduler.wait_event("watcher_silent")
    trap.clear()

    assert told.facts["doing"] == "read"
    assert told.facts["timeout_s"] == "none"
    assert float(told.facts["missed_s"]) >= 10
    assert float(told.facts["silent_s"]) > float(told.facts["missed_s"])
    assert told.facts["action"] == "kill -9"
    assert "127.0.0.1" in told.facts["waits"] or "poll" in told.facts["waits"]
    scheduler.wait_event("watcher_back")
    finished_pods_are_deleted(scheduler, api)
    ordeal.check()


def test_where_processes_are_spawned_it_is_as_before(start: Start, api: KubeApi):
    """Nothing is left in memory that both have, so nothing is known; and nothing breaks."""
    spawns = (
        f"import multiprocessing\n\nmultiprocessing.set_start_method('spawn', force=True)\n{HOOK}"
    )
    settings = {**read_timeout(2), **PATIENT, "watchdog_hook.restart_watchers": True}
    scheduler = start(settings, local_settings=spawns)
    ordeal = Ordeal(scheduler, api)
    dag = ordeal.release()
    ordeal.wait_for_pods(timeout=120)

    watcher = watcher_of(scheduler, api)
    watcher.suspend()
    end = time.monotonic() + 16
    scheduler.wait_for(lambda: time.monotonic() > end, 30, "nothing")
    watcher.resume()
    ordeal.finish(dag)
    finished_pods_are_deleted(scheduler, api)
    ordeal.check()

    assert scheduler.said() == ["armed"]

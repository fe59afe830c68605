"""A scheduler that is told to end, killed, or broken: what it leaves behind, and that it does leave."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.e2e.airflow_home import HOOK, PROVIDER
from tests.e2e.ordeal import QUICK, Ordeal, watcher_of
from tests.fakes.kube_api import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Start
    from tests.e2e.events import Event
    from tests.e2e.scheduler import Scheduler
    from tests.fakes.kube_api import KubeApi

# Nothing but the test ends the stall.
OBSERVE = {**QUICK, "watchdog_hook.interrupt": "off"}
EXIT_HOOK = (
    HOOK
    + """

import atexit
import sys
import threading


def flush_for_ever():
    threading.Event().wait()


if sys.argv[1:2] == ["scheduler"]:
    atexit.register(flush_for_ever)
"""
)


def stalled(scheduler: Scheduler, api: KubeApi) -> tuple[Ordeal, Event]:
    """Return once a turning scheduler stands still in a creation, and has been dumped: this is the dump."""
    ordeal = Ordeal(scheduler, api)
    ordeal.release()
    ordeal.wait_for_pods(timeout=120)
    mark = scheduler.mark()
    trap = api.set_fault(Fault.REQUEST, on="create")
    ordeal.release()
    trap.wait()
    return ordeal, scheduler.wait_event("dump", since=mark)


def bare(scheduler: Scheduler, event: str) -> list[str]:
    """Return what went to standard error past the log: lines without a date in front."""
    return [
        line
        for line in scheduler.text().splitlines()
        if line.startswith(f"watchdog_hook: event={event} ")
    ]


def stop_watcher(scheduler: Scheduler, api: KubeApi) -> int:
    """Have the pod watcher ignore whatever it is told, and return its number."""
    watcher = watcher_of(scheduler, api)
    watcher.suspend()
    return watcher.pid


def test_told_to_end_in_a_stall_it_says_why_and_leaves(start: Start, api: KubeApi, tmp_path: Path):
    message = tmp_path / "termination-log"
    message.touch()
    scheduler = start({**OBSERVE, "watchdog_hook.termination_message": message})
    _, dump = stalled(scheduler, api)
    assert f"event=dump incident={dump.facts['incident']} " in message.read_text()

    assert scheduler.terminate(90) == 0
    told = scheduler.events("told_to_end")[0]
    assert told.facts["incident"] == dump.facts["incident"]
    assert told.facts["signal"] == "SIGTERM"
    assert bare(scheduler, "told_to_end")
    said = scheduler.text(dump.at)
    assert said.index("watchdog_hook: event=told_to_end") < said.index("event=stall_ended")
    assert scheduler.events("stall_ended", since=dump.at)[0].facts["outcome"] == "told to end"
    left = message.read_text()
    assert left.startswith("watchdog_hook: event=told_to_end ")
    assert "Verdict: kubernetes-api-silent, high confidence." in left
    assert "sent its request" in left
    assert scheduler.events("disarmed")
    assert not scheduler.events("part_off", "unfinished")


def test_a_stall_that_ends_takes_its_account_back(start: Start, api: KubeApi, tmp_path: Path):
    message = tmp_path / "termination-log"
    message.touch()
    scheduler = start({**QUICK, "watchdog_hook.termination_message": message})
    ordeal, dump = stalled(scheduler, api)
    api.clear()
    scheduler.wait_event("stall_ended", since=dump.at)
    ordeal.wait_for_pods()
    scheduler.wait_for(lambda: not message.read_text(), 30, "an empty file")

    ordeal.check()


def test_killed_in_a_stall_the_next_start_says_so(start: Start, api: KubeApi, tmp_path: Path):
    message = tmp_path / "termination-log"
    message.touch()
    scheduler = start({**OBSERVE, "watchdog_hook.termination_message": message})
    _, dump = stalled(scheduler, api)
    incident = dump.facts["incident"]
    scheduler.close()
    api.clear()
    assert f"event=dump incident={incident} " in message.read_text()

    following = start(home=scheduler.home)
    found = following.wait_event("unfinished", timeout=120)
    assert found.facts["incident"] == incident
    assert found.facts["cause"] == "kubernetes-api-silent"
    assert found.facts["count"] == "1"
    folder = scheduler.home.folder / "logs" / "watchdog_hook" / incident
    following.wait_for(
        lambda: json.loads((folder / "incident.json").read_text())["ended"], 30, "its mark"
    )
    assert len(following.events("unfinished")) == 1


@pytest.mark.skipif(
    PROVIDER < (10, 16),
    reason="no list breaks its loop, or nothing limits how long it waits for a watcher",
)
def test_a_loop_that_broke_says_by_what_while_its_executor_does_not_end(start: Start, api: KubeApi):
    scheduler = start({**OBSERVE, "scheduler.orphaned_tasks_check_interval": 4})
    scheduler.wait_event("armed", timeout=120)
    watcher = stop_watcher(scheduler, api)
    mark = scheduler.mark()
    api.set_fault(Fault.STATUS, on="list")
    found = scheduler.wait_event("dump", since=mark, timeout=90)

    assert found.facts["phase"] == "executor.end (KubernetesExecutor)"
    assert found.facts["cause"] == "shutdown"
    said = scheduler.text(found.at)
    assert "the loop is over (ended by InternalServerError: 500)" in said
    assert f"KubernetesJobWatcher, pid {watcher}" in said
    assert scheduler.wait(90) == 1


@pytest.mark.skipif(
    (10, 0) <= PROVIDER < (10, 16), reason="no list breaks the loop of this provider"
)
def test_an_executor_that_does_not_end_is_ended(start: Start, api: KubeApi):
    limits = {"watchdog_hook.terminate_after": 5, "scheduler.orphaned_tasks_check_interval": 4}
    scheduler = start({**OBSERVE, **limits})
    scheduler.wait_event("armed", timeout=120)
    stop_watcher(scheduler, api)
    mark = scheduler.mark()
    api.set_fault(Fault.STATUS, on="list")

    assert scheduler.wait(120) == 75
    assert scheduler.events("dump", since=mark)[0].facts["cause"] == "shutdown"
    assert scheduler.events("terminate")[0].facts["phase"] == "executor.end (KubernetesExecutor)"
    (summary,) = bare(scheduler, "terminate")
    assert "exit_code=75" in summary


def test_an_exit_hook_that_hangs_is_dumped_and_ended(start: Start, api: KubeApi):
    # Without tasks this executor ends at once: the other one needs twenty seconds. One worker: of several one may
    # miss its closing message, and never end (apache/airflow#45329).
    settings = {
        "core.executor": "LocalExecutor",
        "core.parallelism": 1,
        # Airflow 2's own parser of DAGs loses a SIGTERM that comes while it starts, and is waited for a minute.
        "scheduler.standalone_dag_processor": True,
        "watchdog_hook.terminate_after": 6,
    }
    scheduler = start({**OBSERVE, **settings}, local_settings=EXIT_HOOK)
    scheduler.wait_text("Adopting or resetting orphaned tasks", timeout=120)
    scheduler.tell_to_end()

    assert scheduler.wait(90) == 75
    at_exit = [each for each in scheduler.events("dump") if each.facts["phase"] == "exit"]
    (dump,) = [each for each in at_exit if "repeated" not in each.facts]
    assert dump.facts["cause"] == "shutdown"
    said = scheduler.text(dump.at)
    assert "ended by SIGTERM: the scheduler was told to end" in said
    assert "flush_for_ever" in said
    assert not scheduler.events("part_off")
    folder = scheduler.home.folder / "logs" / "watchdog_hook" / dump.facts["incident"]
    assert "flush_for_ever" in (folder / "dump.txt").read_text()
    deeds = [deed["deed"] for deed in json.loads((folder / "incident.json").read_text())["actions"]]
    assert deeds == ["terminate"]

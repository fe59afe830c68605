"""A real scheduler, asked from a shell beside it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.e2e.ordeal import QUICK, Ordeal
from tests.fakes.kube_api import Fault

if TYPE_CHECKING:
    from tests.e2e.conftest import Start
    from tests.fakes.kube_api import KubeApi


def test_a_scheduler_says_whether_it_turns_and_what_it_does(start: Start, api: KubeApi):
    scheduler = start({**QUICK, "watchdog_hook.interrupt": "off"})
    scheduler.wait_event("armed", timeout=120)
    assert scheduler.ask("live").returncode == 0  # it may still be starting
    ordeal = Ordeal(scheduler, api)
    ordeal.release()
    ordeal.wait_for_pods(timeout=120)

    turns = f"turning: the loop of pid {scheduler.pid} beat "
    scheduler.wait_for(
        lambda: scheduler.ask("live").stdout.startswith(turns), 60, "the start to be over"
    )
    mark = scheduler.mark()
    dumped = scheduler.ask("dump", "--json")

    assert dumped.returncode == 0, dumped.stderr
    told = json.loads(dumped.stdout)
    assert (told["verdict"]["id"], told["pid"]) == ("no-stall", scheduler.pid)
    assert told["ended"]
    asked = scheduler.wait_event("dump", since=mark)
    assert asked.facts["asked"] == "true"

    mark = scheduler.mark()
    trap = api.set_fault(Fault.LATE, on="create", times=1)
    ordeal.release()
    trap.wait()
    stall = scheduler.wait_event("dump", since=mark)
    stalled = scheduler.ask("live", "--max-silence", "1")
    waits = scheduler.ask("dump")

    assert stalled.returncode == 1
    assert stalled.stdout.startswith(
        f"stalled: the loop of pid {scheduler.pid} has been silent for "
    )
    assert f"Incident {stall.facts['incident']}: MainThread has been silent" in stalled.stdout
    assert "pods to 127.0.0.1:" in stalled.stdout
    assert waits.returncode == 0, waits.stderr
    assert "cause=kubernetes-api-silent asked=true" in waits.stdout.splitlines()[0]

    api.clear()
    scheduler.wait_event("stall_ended", since=mark)
    ordeal.wait_for_pods()
    assert scheduler.ask("live").returncode == 0
    assert len(scheduler.events("stall_began", since=mark)) == 1
    assert not scheduler.events("interrupt", "part_off", "terminate")
    ordeal.check()


def test_a_probe_spares_a_scheduler_that_is_not_watched(start: Start, api: KubeApi):
    scheduler = start({**QUICK, "watchdog_hook.enabled": False})
    ordeal = Ordeal(scheduler, api)
    ordeal.release()
    ordeal.wait_for_pods(timeout=120)

    ours = scheduler.ask("live")
    charts = scheduler.home.run("jobs", "check", "--job-type", "SchedulerJob", "--local")

    assert ours.returncode == 1
    assert f"pid {scheduler.pid} is not watched" in ours.stdout
    assert "[watchdog_hook] enabled is False" in ours.stdout
    assert charts.returncode == 0, charts.stdout  # what the README has behind the `||`

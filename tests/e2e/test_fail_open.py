"""Whatever is wrong in us: it is said once, and the scheduler schedules."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

from tests.e2e.ordeal import QUICK, Ordeal

if TYPE_CHECKING:
    from tests.e2e.conftest import Start
    from tests.fakes.kube_api import KubeApi

PACKAGE = "watchdog_hook."

# Makes one function of ours raise, from just before the scheduler is armed.
SABOTAGE = """\
import watchdog_hook

watchdog_hook.install()

from watchdog_hook.integrations import airflow as door


def broken(*args, **kwargs):
    raise RuntimeError("broken for a test")


def safely(name, argument, here, original=door._safely):
    if name == "arm":
        import importlib

        owner = importlib.import_module({module!r})
        *path, last = {name!r}.split(".")
        for part in path:
            owner = getattr(owner, part)
        setattr(owner, last, broken)
    return original(name, argument, here)


door._safely = safely
"""

ENTRIES = [
    "integrations.airflow.scheduler:arm",
    "integrations.airflow.settings:read",
    "integrations.airflow.loop:Loop._beat",
    "integrations.airflow.loop:Loop._heartbeat",
    "integrations.airflow.fence:Fence.heartbeat",
    "integrations.airflow.fence:Fence.look",
    "integrations.airflow.job_row:JobRow.__init__",
    "integrations.airflow.recovery:Recovery.__init__",
    "integrations.airflow.recovery:Recovery.run_next",
    "integrations.airflow.admission:Admission.may_start",
    "integrations.airflow.recovery:Recovery.before_heartbeat",
    "integrations.airflow.jobs:Jobs.put",
    "integrations.kubernetes:ApiCalls.request",
    "integrations.kubernetes:describe",
    "book:Book.enter",
    "book:Book.leave",
    "watchdog:Watchdog.look",
    "evidence.here:Evidence.pressure",
]


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_part_of_ours_that_fails_costs_one_line(start: Start, api: KubeApi, entry: str):
    module, _, name = entry.partition(":")
    scheduler = start(
        QUICK, local_settings=textwrap.dedent(SABOTAGE).format(module=PACKAGE + module, name=name)
    )
    ordeal = Ordeal(scheduler, api)

    ordeal.release()
    ordeal.wait_for_pods(timeout=120)
    scheduler.wait_event("part_off", timeout=30)
    ordeal.release()
    ordeal.wait_for_pods(timeout=60)

    ordeal.check()
    parts = [event.facts["part"] for event in scheduler.events("part_off")]
    assert len(parts) == len(set(parts)), parts
    assert scheduler.errors() == []
    assert scheduler.terminate() == 0

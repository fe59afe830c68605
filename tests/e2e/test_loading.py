"""Where the hook is loaded, what a child of the scheduler has of it, and what wrong settings do."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.e2e.airflow_home import AIRFLOW
from tests.e2e.ordeal import QUICK, Ordeal
from tests.fakes.kube_api import Fault

if TYPE_CHECKING:
    from tests.e2e.conftest import Start
    from tests.e2e.scheduler import Scheduler
    from tests.fakes.kube_api import KubeApi


def catches_our_signal(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    caught = re.search(r"^SigCgt:\s*(\w+)", status, re.M)
    assert caught is not None
    return bool(int(caught[1], 16) & (1 << (signal.SIGURG - 1)))


def catching(scheduler: Scheduler) -> list[int]:
    """Return the processes below a scheduler that have a handler for our signal."""
    found = []
    for process in scheduler.family()[1:]:
        with contextlib.suppress(OSError):  # it has ended
            if catches_our_signal(process.pid):
                found.append(process.pid)
    return found


def own_children(scheduler: Scheduler) -> set[int]:
    found = set()
    for process in scheduler.family()[1:]:
        with contextlib.suppress(psutil.Error):
            if process.ppid() == scheduler.pid:
                found.add(process.pid)
    return found


def test_children_of_the_scheduler_have_nothing_of_the_hook(start: Start, api: KubeApi):
    scheduler = start(QUICK)
    ordeal = Ordeal(scheduler, api)
    ordeal.release()
    ordeal.wait_for_pods(timeout=120)

    # Its own children: in Airflow 2 one of them has children in turn, which parse DAGs and come and go.
    children = own_children(scheduler)
    assert len(children) >= 3  # a watcher and two managers at the least
    assert catches_our_signal(scheduler.pid)
    assert not any(catches_our_signal(pid) for pid in children)
    for pid in children:
        os.kill(pid, signal.SIGURG)
    ordeal.release()
    ordeal.wait_for_pods()
    assert own_children(scheduler) >= children
    assert len(scheduler.events("armed")) == 1

    assert scheduler.terminate() == 0
    assert len(scheduler.events("disarmed")) == 1


@pytest.mark.parametrize("executors", ["LocalExecutor", "LocalExecutor,KubernetesExecutor"])
def test_other_executors_beat_too_alone_and_beside_it(start: Start, executors: str):
    if "," in executors and AIRFLOW < (2, 10):
        pytest.skip("several executors at once came with Airflow 2.10")
    # The KubernetesExecutor needs some twenty seconds to end: that is no stall.
    patient = {"watchdog_hook.sample_after": 15, "watchdog_hook.dump_after": 30}
    # One worker of the LocalExecutor: of several one may miss its closing message, and the scheduler waits for it
    # for ever (apache/airflow#45329).
    settings = {
        **QUICK,
        **patient,
        "core.executor": executors,
        "core.parallelism": 1,
        # Airflow 2's own parser of DAGs loses a SIGTERM that comes while it starts, and is waited for a minute.
        "scheduler.standalone_dag_processor": True,
    }
    scheduler = start(settings)
    armed = scheduler.wait_event("armed", timeout=120)
    # Before that the executor still forks, and Airflow 2 has no handler of its own for SIGTERM.
    scheduler.wait_text("Adopting or resetting orphaned tasks")
    if executors != "LocalExecutor" or AIRFLOW[:2] != (3, 0):  # that one has no worker without work
        scheduler.wait_for(lambda: len(scheduler.family()) > 1, 60, "a worker")

    assert armed.facts["executors"] == executors
    # A worker may just be forked: for a moment it is what its parent is.
    scheduler.wait_for(lambda: not catching(scheduler), 30, "children without our handler")
    assert scheduler.terminate() == 0
    assert set(scheduler.said()) == {"armed", "disarmed"}


@pytest.mark.skipif(
    AIRFLOW[:2] == (3, 1), reason='as a daemon on SQLite it breaks by itself, by "locking protocol"'
)
def test_a_daemon_is_watched_in_the_process_that_stays(start: Start, api: KubeApi):
    scheduler = start(QUICK)
    scheduler.wait_event("armed", timeout=120)
    home = scheduler.home
    scheduler.close()
    files = {name: str(home.folder / f"daemon.{name}") for name in ("pid", "out", "err", "log")}

    words = ["scheduler", "-D", "--skip-serve-logs", "--pid", files["pid"]]
    words += ["--stdout", files["out"], "--stderr", files["err"], "--log-file", files["log"]]
    done = home.run(*words)
    assert done.returncode == 0, done.stdout

    def said() -> str:
        texts = [Path(files[name]) for name in ("out", "err", "log")]
        return "".join(text.read_text(errors="replace") for text in texts if text.exists())

    scheduler.wait_for = _without_process(scheduler)  # type: ignore[method-assign]
    scheduler.wait_for(lambda: "event=armed" in said(), 120, "armed")
    pid = int(Path(files["pid"]).read_text(encoding="ascii"))
    try:
        trap = api.set_fault(Fault.REQUEST, on="create")
        home.database.release("step_00")
        trap.wait()
        scheduler.wait_for(lambda: "event=requeued" in said(), 60, "requeued")
        assert catches_our_signal(pid)
        api.clear()
        scheduler.wait_for(lambda: len(api.created()) >= 3, 60, "pods")
    finally:
        daemon = psutil.Process(pid)
        family = [*daemon.children(recursive=True), daemon]
        for process in family:
            process.kill()
        psutil.wait_procs(family, timeout=20)


def _without_process(scheduler):  # type: ignore[no-untyped-def]
    """Return a `wait_for` for a scheduler that is not our child."""
    import time

    def wait_for(condition, timeout, what):  # type: ignore[no-untyped-def]
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f"waited {timeout} s for {what}: in vain"
            time.sleep(0.1)  # between two questions; the deadline decides

    return wait_for


def test_wrong_settings_are_named_and_the_watchdog_runs(start: Start, api: KubeApi):
    scheduler = start(
        {
            **QUICK,
            "watchdog_hook.dump_after": "soon",
            "watchdog_hook.interupt_after": 5,
            "watchdog_hook.incident_dir": "/proc/nowhere",
        }
    )
    ordeal = Ordeal(scheduler, api)
    trap = api.set_fault(Fault.REQUEST, on="create")
    ordeal.release()
    trap.wait(timeout=120)
    scheduler.wait_event("interrupt")
    api.clear()
    ordeal.wait_for_pods()
    scheduler.wait_event("stall_ended")

    said = " ".join(event.line for event in scheduler.events("bad_setting"))
    assert "dump_after" in said
    assert "soon" in said
    assert "interupt_after" in said
    assert "interrupt_after" in said
    assert len(list(scheduler.events("part_off"))) == 1, "the directory, once"
    assert "create_namespaced_pod" in scheduler.text()
    ordeal.check()


def test_a_silence_beyond_its_limit_ends_the_process_with_its_evidence(start: Start, api: KubeApi):
    scheduler = start(
        {**QUICK, "watchdog_hook.interrupt": "off", "watchdog_hook.terminate_after": 6}
    )
    ordeal = Ordeal(scheduler, api)
    ordeal.release()
    ordeal.wait_for_pods(timeout=120)
    trap = api.set_fault(Fault.REQUEST, on="create")
    ordeal.release()
    trap.wait()

    assert scheduler.wait(60) == 75
    names = [event.name for event in scheduler.events()]
    assert names.index("dump") < names.index("terminate")
    incident = scheduler.events("terminate")[0].facts["incident"]
    folder = scheduler.home.folder / "logs" / "watchdog_hook" / incident
    assert {path.name for path in folder.iterdir()} == {
        "dump.txt",
        "faulthandler.txt",
        "incident.json",
        "speedscope.json",
    }

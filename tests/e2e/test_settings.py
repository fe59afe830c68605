"""Settings that are wrong, ways to start, and the last resort, as a real scheduler takes them."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from tests.e2e.events import read_events
from tests.e2e.ordeal import QUICK, Ordeal, has_stack_of
from tests.e2e.scheduler import end_family
from tests.fakes.kube_api import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Start
    from tests.fakes.kube_api import KubeApi

EX_TEMPFAIL = 75


def test_what_is_wrong_is_said_and_the_hook_works_all_the_same(start: Start, api: KubeApi):
    wrong = {
        "watchdog_hook.py_spy": "/nonexistent/py-spy",
        "watchdog_hook.requeue_limit": "many",
        "watchdog_hook.dump_afer": 5,
        "watchdog_hook.incident_dir": "/dev/null/incidents",
    }
    scheduler = start({**QUICK, **wrong})
    ordeal = Ordeal(scheduler, api)
    ordeal.release()
    ordeal.wait_for_pods(timeout=120)
    trap = api.set_fault(Fault.REQUEST, on="create", times=1)
    ordeal.release()
    trap.wait()
    scheduler.wait_event("stall_ended")
    ordeal.wait_for_pods()
    ordeal.check()

    said = "\n".join(event.line for event in scheduler.events("bad_setting"))
    assert "requeue_limit" in said
    assert "many" in said
    assert "dump_afer" in said
    assert "dump_after" in said
    assert has_stack_of(scheduler.text(), "create_namespaced_pod")
    assert "/dev/null/incidents" in scheduler.text()


def test_switched_off_it_is_not_there(start: Start, api: KubeApi):
    scheduler = start({**QUICK, "watchdog_hook.enabled": False})
    ordeal = Ordeal(scheduler, api)
    ordeal.release()
    ordeal.wait_for_pods(timeout=120)

    assert scheduler.events() == []
    assert "watchdog_hook" not in scheduler.text()


def test_the_last_resort_leaves_with_an_exit_code_that_is_restarted(start: Start, api: KubeApi):
    settings = {"watchdog_hook.interrupt": "off", "watchdog_hook.terminate_after": 5}
    scheduler = start({**QUICK, **settings})
    ordeal = Ordeal(scheduler, api)
    ordeal.release()
    ordeal.wait_for_pods(timeout=120)
    mark = scheduler.mark()
    api.set_fault(Fault.REQUEST, on="create")
    ordeal.release()

    assert scheduler.wait(60) == EX_TEMPFAIL
    names = [event.name for event in scheduler.events("dump", "terminate", since=mark)]
    assert names[0] == "dump"
    assert names[-1] == "terminate"
    assert has_stack_of(scheduler.text(mark), "create_namespaced_pod")


def test_a_daemon_is_watched_as_well(start: Start, api: KubeApi):
    # The home of a scheduler that has gone; in it one more that goes into the background.
    first = start(QUICK)
    first.close()
    first.home.database.forget_scheduler()
    home = first.home
    ordeal = Ordeal(first, api)
    trap = api.set_fault(Fault.REQUEST, on="create", times=1)
    ordeal.release()
    pid_file = home.folder / "scheduler.pid"
    log = home.folder / "daemon.log"
    files = ["--pid", str(pid_file), "--log-file", str(log)]
    for word in ("stdout", "stderr"):
        files += [f"--{word}", str(home.folder / f"daemon.{word}")]
    done = home.run("scheduler", "--daemon", "--skip-serve-logs", *files)
    assert done.returncode == 0, done.stdout
    trap.wait(timeout=120)
    daemon = int(pid_file.read_text(encoding="ascii"))
    try:
        wanted = {"armed", "dump", "interrupt", "requeued", "stall_ended"}
        end = time.monotonic() + 60
        while wanted - events_in(home.folder) and time.monotonic() < end:
            time.sleep(0.1)

        assert events_in(home.folder) >= wanted
        api.wait_for_pods(3)
        assert set(api.per_try().values()) == {1}
    finally:
        end_family(os.getsid(daemon))


def events_in(folder: Path) -> set[str]:
    """Return the names of the hook's events in whatever files a daemon writes to."""
    texts = [path.read_text(errors="replace") for path in folder.glob("daemon.*")]
    return {event.name for text in texts for event in read_events(text)}

"""Code that the scheduler runs while it reads a DAG from the database keeps the interpreter to itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.airflow_home import AirflowHome
from tests.integration.silence import lives, patiently
from watchdog_hook.sentinel import pulse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Start
    from tests.fakes.kube_api import KubeApi

BACKSTOP_AFTER = 3
# The sentinel's own words: past the log, so without its prefix.
TOLD = re.compile(
    r"^watchdog_hook: event=backstop incident=(?P<incident>\S+) silent_s=(?P<silent_s>\S+).* cause=(?P<cause>\S+)",
    re.MULTILINE,
)

# A timetable is the user's code that the scheduler itself runs when it makes a DAG of what is in the database.
# The file of the DAG it never reads. Opening a FIFO takes until somebody opens the other end.
PLUGIN = """
import ctypes
import os

from airflow.plugins_manager import AirflowPlugin
from airflow.timetables.simple import NullTimetable

HOLD = os.path.join(os.environ["AIRFLOW_HOME"], "hold")


class Held(NullTimetable):
    @classmethod
    def deserialize(cls, data):
        if os.path.exists(HOLD):
            ctypes.PyDLL(None).open(HOLD.encode(), os.O_RDONLY | os.O_CLOEXEC)
        return cls()


class Holding(AirflowPlugin):
    name = "holding"
    timetables = [Held]
"""
DAG = """
from datetime import datetime, timezone

from holding import Held

try:
    from airflow.sdk import DAG, task
except ImportError:
    from airflow import DAG
    from airflow.decorators import task

with DAG("held", schedule=Held(), start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), catchup=False):

    @task
    def work():
        pass

    work()
"""
BRING = """
from tests.e2e.prepare import airflow

airflow("dags", "reserialize")
airflow("dags", "trigger", "held", "--run-id", "waiting")
"""


def bring_in(home: AirflowHome) -> None:
    """Put plugin and DAG in place, and the DAG with a waiting run into the database."""
    for folder, name, text in (("plugins", "holding", PLUGIN), ("dags", "held", DAG)):
        (home.folder / folder).mkdir(exist_ok=True)
        (home.folder / folder / f"{name}.py").write_text(text, encoding="utf-8")
    environment = home.environment()
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", BRING],
        env=environment,
        cwd=home.folder,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def root() -> Iterator[Path]:
    """Give a folder of a short path: a socket of multiprocessing's is in it."""
    folder = Path(tempfile.mkdtemp(prefix="e2e-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_a_scheduler_whose_own_code_holds_the_interpreter_is_told_from_outside(
    root: Path, start: Start, api: KubeApi, template: Path
):
    settings = {
        "kubernetes_executor.config_file": api.kubeconfig,
        "core.dags_folder": root / "home" / "dags",
        "core.plugins_folder": root / "home" / "plugins",
        "watchdog_hook.poll_interval": 0.2,
        "watchdog_hook.backstop_after": BACKSTOP_AFTER,
    }
    home = AirflowHome(root / "home", settings, template=template)
    try:
        bring_in(home)
        scheduler = start(home=home)
        scheduler.wait_event("armed", timeout=120)
        scheduler.wait_for(
            lambda: scheduler.home.database.scheduler_job()[1] == "running", 60, "a job"
        )
        seen = patiently(lambda: pulse.of_process(scheduler.pid), "a pulse")
        sentinel = patiently(lambda: seen.words[pulse.SENTINEL], "a sentinel")

        os.mkfifo(home.folder / "hold")
        mark = scheduler.mark()
        home.database.release("held")
        scheduler.wait_for(lambda: TOLD.search(scheduler.text(mark)), 60, "the sentinel's line")
        told = TOLD.search(scheduler.text(mark))
        assert told
        print(f"told after {told['silent_s']} s with backstop_after = {BACKSTOP_AFTER}")
        assert told["cause"] == "gil_held"
        assert float(told["silent_s"]) < BACKSTOP_AFTER + 5
        scheduler.wait_text("deserialize (", since=mark)
        scheduler.wait_text("_run_scheduler_loop (", since=mark)
        folder = home.folder / "logs" / "watchdog_hook" / told["incident"]
        scheduler.wait_for((folder / "incident.json").exists, 30, "the files")
        saw = f"the sentinel saw (incident {told['incident']}): A call into C sleeps and keeps"
        assert saw in scheduler.ask("live").stdout

        with (home.folder / "hold").open("w"):  # lets it go
            (home.folder / "hold").unlink()  # before it is closed: who came later would wait in it
            over = scheduler.wait_event("backstop_ended", since=mark)
        scheduler.wait_for(api.created, 60, "the pod of its task")
        assert over.facts["incident"] == told["incident"]
        assert scheduler.terminate() == 0
        patiently(lambda: not lives(sentinel), "the sentinel's end")
    finally:
        home.close()

"""The DAG processor and the triggerer: watched where that is asked for, dumped, and never touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.airflow_home import AIRFLOW, HERE
from tests.e2e.ordeal import PATIENT, QUICK
from watchdog_hook.sentinel import pulse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Start
    from tests.e2e.scheduler import Scheduler

PROCESSOR = ("dag-processor",)
TRIGGERER = ("triggerer", "--skip-serve-logs")
SETTINGS: dict[str, object] = {
    **QUICK,
    **PATIENT,
    "watchdog_hook.interrupt_after": 60,
    "scheduler.standalone_dag_processor": True,
    "core.fernet_key": "",
    "core.plugins_folder": HERE / "guests",  # Python finds modules there
}
ON_3 = pytest.mark.skipif(AIRFLOW < (3, 0), reason="bundles came with Airflow 3")
ON_2 = pytest.mark.skipif(
    AIRFLOW >= (3, 0), reason="SQLite, which these tests of 3.x run on, has no server"
)
DAG = """
from datetime import datetime
try:
    from airflow.sdk import DAG
except ImportError:
    from airflow import DAG
with DAG("alone", schedule=None, start_date=datetime(2026, 1, 1)):
    pass
"""


def settings(**more: object) -> dict[str, object]:
    return {**SETTINGS, **{f"watchdog_hook.{name}": value for name, value in more.items()}}


@pytest.fixture
def dags(tmp_path: Path) -> Path:
    """A folder with one small DAG."""
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "alone.py").write_text(DAG, encoding="utf-8")
    return folder


@contextmanager
def locked(process: Scheduler, table: str) -> Iterator[None]:
    """Have a session of its own hold a table of the metadata database."""
    with closing(process.home.database.connect()) as other:  # type: ignore[attr-defined]
        other.autocommit = False
        with other.cursor() as cursor:
            cursor.execute("SET application_name = 'a migration'")
            cursor.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield
        other.rollback()


def release(fifo: Path) -> None:
    """Let go who waits in the opening of a FIFO."""
    descriptor = os.open(fifo, os.O_RDWR)
    fifo.unlink()
    os.close(descriptor)


def watched(process: Scheduler) -> list[int]:
    """Return the processes that keep a pulse of their own, as everything does that is watched."""
    return [each.pid for each in process.family() if pulse.of_process(each.pid) is not None]


def defer(process: Scheduler, *triggers: str) -> None:
    """Have tasks wait for these triggers."""
    subprocess.run(
        [sys.executable, HERE / "defer.py", "step_00", *triggers],
        env=process.home.environment(),
        cwd=process.home.folder,
        check=True,
        capture_output=True,
    )


def incident_of(process: Scheduler, event_id: str) -> dict[str, object]:
    path = process.home.folder / "logs" / "watchdog_hook" / event_id / "incident.json"
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("command", [PROCESSOR, TRIGGERER])
def test_nobody_but_the_scheduler_is_watched_unasked(start: Start, dags: Path, command):
    # The child that reads a DAG lives for a moment only, unless that takes long.
    fifo = dags / "wait"
    os.mkfifo(fifo)
    (dags / "alone.py").write_text(f"open({str(fifo)!r}).close()\n{DAG}", encoding="utf-8")
    process = start({**settings(bad_setting=1), "core.dags_folder": dags}, command=command)
    ready = "Starting the Dag Processor Job" if command is PROCESSOR else "Starting the triggerer"
    process.wait_text(ready, timeout=120)
    process.wait_for(lambda: len(process.family()) > 1 or AIRFLOW < (3, 0), 60, "a child")

    assert watched(process) == []
    release(fifo)
    process.terminate()
    assert "watchdog_hook: " not in process.text()


def test_a_healthy_dag_processor_hears_nothing(start: Start, dags: Path):
    process = start(
        {**settings(components="dag_processor"), "core.dags_folder": dags},
        command=(*PROCESSOR, "--num-runs", "2"),
    )
    armed = process.wait_event("armed", timeout=120)
    code = process.wait(180)

    assert code == 0
    assert process.said() == ["armed", "disarmed"]
    assert armed.facts["component"] == "dag_processor"
    assert process.home.database.rows("SELECT dag_id FROM dag WHERE dag_id = :dag", dag="alone")


@ON_3
def test_a_bundle_that_does_not_come_is_named_with_its_line(start: Start, dags: Path):
    bundle = {
        "name": "guest",
        "classpath": "guest_bundle.WaitingBundle",
        "kwargs": {"path": str(dags), "refresh_interval": 1},
    }
    process = start(
        {
            **settings(components="dag_processor,triggerer"),
            "dag_processor.dag_bundle_config_list": json.dumps([bundle]),
            "dag_processor.bundle_refresh_check_interval": 1,
        },
        command=PROCESSOR,
    )
    process.wait_event("armed", timeout=120)
    database = process.home.database
    process.wait_for(
        lambda: database.rows("SELECT dag_id FROM dag WHERE dag_id = :dag", dag="alone"),
        120,
        "a DAG",
    )

    mark = process.mark()
    os.mkfifo(dags / "wait")
    dump = process.wait_event("dump", since=mark, timeout=60)
    process.wait_text("Files: ", since=mark)
    incident = incident_of(process, dump.facts["incident"])
    release(dags / "wait")
    process.wait_event("stall_ended", since=mark)

    assert dump.facts["component"] == incident["component"] == "dag_processor"
    assert dump.facts["phase"] == "refresh_dag_bundles"
    assert dump.facts["cause"] == "foreign-code"
    text = process.text()
    assert "of the dag processor has been silent" in text
    assert "guest_bundle.py:20" in text
    assert "nothing is interrupted here" in text
    assert process.terminate() == 0
    assert process.said()[-1] == "disarmed"


@ON_2
@pytest.mark.parametrize("standalone", [True, False])
def test_a_dag_processor_that_waits_for_the_database_is_told_from_the_scheduler(
    start: Start, dags: Path, standalone: bool
):
    command = PROCESSOR if standalone else ("scheduler", "--skip-serve-logs")
    process = start(
        {
            **settings(components="scheduler,dag_processor"),
            "scheduler.standalone_dag_processor": standalone,
            "core.dags_folder": dags,
        },
        command=command,
    )
    process.wait_event("armed", timeout=120, count=1 if standalone else 2)
    database = process.home.database
    process.wait_for(
        lambda: database.rows("SELECT dag_id FROM dag WHERE dag_id = :dag", dag="alone"),
        120,
        "a DAG",
    )

    mark = process.mark()
    with locked(process, "dag_warning"):
        dump = process.wait_event("dump", since=mark, timeout=60)
        process.wait_text("Files: ", since=mark)
    process.wait_event("stall_ended", since=mark)

    components = [event.facts.get("component") for event in process.events("armed")]
    assert components == (["dag_processor"] if standalone else ["scheduler", "dag_processor"])
    assert dump.facts["component"] == "dag_processor"
    assert dump.facts["cause"] == "database-lock-wait"
    incident = incident_of(process, dump.facts["incident"])
    assert (incident["pid"] == process.pid) is standalone
    assert "of a migration" in process.text()
    assert not process.events("interrupt", "part_off")
    if not standalone:
        names = {e.facts.get("component") for e in process.events("dump", "stall_began")}
        assert names == {"dag_processor"}


def test_a_trigger_that_blocks_is_named_with_its_line_and_the_tasks_it_holds_up(
    start: Start, tmp_path: Path
):
    fifo = tmp_path / "wait"
    process = start(settings(components="triggerer"), command=TRIGGERER)
    process.wait_event("armed", timeout=120, count=2)
    given = json.dumps({"folder": str(tmp_path)})
    kinds = ("Blocking", "Patient", "Patient")
    defer(process, *(f"guest_triggers.{kind}={given}" for kind in kinds))
    process.wait_for(lambda: len(list(tmp_path.glob("*-*"))) == len(kinds), 90, "triggers")
    before = process.said()
    assert len(watched(process)) == (2 if AIRFLOW >= (3, 0) else 1)

    mark = process.mark()
    os.mkfifo(fifo)
    dump = process.wait_event("dump", since=mark, timeout=60)
    process.wait_text("Files: ", since=mark)
    incident = incident_of(process, dump.facts["incident"])
    pid = incident["pid"]
    lives = process.ask("live", "--max-silence", "5", pid=pid)
    dumped = process.ask("dump", "--json", pid=pid)
    release(fifo)
    process.wait_event("stall_ended", since=mark)

    loops = [f"stalled: the loop of pid {pid} (triggerer, asyncio) has been silent for "]
    causes = ["event-loop-blocked"]
    if AIRFLOW < (3, 0):  # the main loop is in the same process
        loops.append(f"turning: the loop of pid {pid} (triggerer, main) beat ")
        causes.append("no-stall")
    assert lives.returncode == 1
    lines = lives.stdout.splitlines()
    assert [line[: len(loop)] for line, loop in zip(lines, loops, strict=True)] == loops
    assert f"Incident {incident['id']}: " in lines[0]
    assert dumped.returncode == 0, dumped.stderr
    told = json.loads(dumped.stdout)
    told = told if AIRFLOW < (3, 0) else [told]
    assert sorted(each["verdict"]["id"] for each in told) == causes
    assert {each["pid"] for each in told} == {pid}
    assert before == ["armed", "armed"]
    assert dump.facts["component"] == "triggerer"
    assert dump.facts["cause"] == "event-loop-blocked"
    text = process.text()
    assert "Blocking.run" in text
    assert "guest_triggers.py:40" in text
    tasks = incident["tasks"]
    assert tasks[0]["state"] == "running"
    (patient,) = [
        group for group in tasks if any("guest_triggers" in f["file"] for f in group["frames"])
    ]
    assert patient["count"] == 2
    assert patient["state"] == "waits"
    assert "2 x" in text
    assert not process.events("interrupt", "part_off")
    process.tell_to_end()
    process.wait(60)
    assert set(process.said()) == {
        "armed",
        "stall_began",
        "dump",
        "stall_ended",
        "disarmed",
    }


@ON_2
def test_a_triggerer_that_waits_for_the_database_is_told_and_its_triggers_go_on(start: Start):
    process = start(settings(components="triggerer"), command=TRIGGERER)
    process.wait_event("armed", timeout=120, count=2)

    mark = process.mark()
    with locked(process, "trigger"):
        dump = process.wait_event("dump", since=mark, timeout=60)
        process.wait_text("Files: ", since=mark)
    process.wait_event("stall_ended", since=mark)

    assert dump.facts["cause"] == "database-lock-wait"
    assert dump.facts["phase"] in ("load_triggers", "loop")
    assert len(process.events("stall_began", since=mark)) == 1


@ON_3
def test_a_runner_that_gets_no_answer_from_its_supervisor_says_where_it_waits(start: Start):
    process = start(settings(components="triggerer"), command=TRIGGERER)
    process.wait_event("armed", timeout=120, count=2)
    folder = process.home.folder / "logs" / "watchdog_hook"

    process.send(signal.SIGSTOP)
    try:
        # Its log goes through the process that is stopped: the files do not.
        process.wait_for(lambda: list(folder.glob("*/incident.json")), 60, "an incident")
        (path,) = folder.glob("*/incident.json")
        process.wait_for(lambda: _is_whole(path), 30, "all of it")
        incident = json.loads(path.read_text(encoding="utf-8"))
    finally:
        process.send(signal.SIGCONT)
    process.wait_event("stall_ended")

    assert incident["pid"] != process.pid
    assert incident["verdict"]["id"] == "event-loop-waits"
    assert "TriggerCommsDecoder." in incident["verdict"]["sentence"]
    assert process.events("paused")
    assert not process.events("interrupt", "part_off")


def _is_whole(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")))
    except ValueError:
        return False


def test_a_trigger_that_blocks_for_ever_ends_the_process_where_that_is_asked_for(
    start: Start, tmp_path: Path
):
    process = start(
        settings(components="triggerer", interrupt_after=7, terminate_after=8), command=TRIGGERER
    )
    process.wait_event("armed", timeout=120, count=2)
    os.mkfifo(tmp_path / "wait")
    given = json.dumps({"folder": str(tmp_path)})
    defer(process, f"guest_triggers.Blocking={given}")

    code = process.wait(120)

    # In Airflow 3 the loop is in a child. The child ends with 75, and its parent follows, with a code of its own.
    assert code == (0 if AIRFLOW >= (3, 0) else 75)
    # In Airflow 2 the log of a triggerer goes through a queue: its last records may be on standard error only.
    last = next(line for line in process.text().splitlines() if "event=terminate" in line)
    assert "exit_code=75" in last
    assert "component=triggerer" in last
    assert process.text().index("event=dump") < process.text().index(last)

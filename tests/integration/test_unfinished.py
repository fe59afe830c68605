"""A process is killed in a stall; the next one says so, once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from watchdog_hook.actions import unfinished
from watchdog_hook.actions.record import Recorder
from watchdog_hook.actions.unfinished import Unfinished
from watchdog_hook.core.model import PROCESS_ENDED
from watchdog_hook.evidence.here import Evidence

pytestmark = pytest.mark.linux
HERE = Path(__file__).parents[2]
PROGRAM = """
import sys, time
from watchdog_hook import Config, Watchdog
incidents, stuck = sys.argv[1:]
config = Config(
    poll_interval=0.05, sample_after=0.1, dump_after=0.3, startup_grace=0,
    incident_dir=incidents, termination_message="",
)
with Watchdog(config) as dog:
    dog.beat("a phase")
    dog.beat("a phase")
    while stuck == "stuck":
        time.sleep(1000)
    while dog._actions.working():
        pass
"""


def start(folder: Path, how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), how],
        env={**os.environ, "PYTHONPATH": str(HERE)},
        stderr=subprocess.PIPE,
        text=True,
    )


def incidents(folder: Path) -> list[dict[str, Any]]:
    paths = sorted(folder.glob("*/incident.json"))
    return [json.loads(path.read_text()) for path in paths]


def wait_for_dump(process: subprocess.Popen[str]) -> None:
    """Return once its files are there; its line on standard error comes after them."""
    assert process.stderr is not None
    assert any("event=dump" in line for line in process.stderr), process.wait()


def killed_in_a_stall(folder: Path) -> dict[str, Any]:
    """Return the incident of a process that is gone."""
    with start(folder, "stuck") as process:
        try:
            wait_for_dump(process)
        finally:
            process.kill()
    (mine,) = [each for each in incidents(folder) if each["pid"] == process.pid]
    return mine


def next_start(folder: Path) -> list[str]:
    """Return what the next process says about those before it."""
    with start(folder, "healthy") as process:
        said = process.communicate()[1]
    assert process.returncode == 0, said
    return [line for line in said.splitlines() if "event=unfinished" in line]


def found_here(folder: Path) -> list[dict[str, Any]]:
    """Return what is noted in this very process."""
    noted: list[dict[str, Any]] = []
    one = Unfinished(Recorder(folder))
    one.look(lambda event, **fields: noted.append({"event": event, **fields}), Evidence().is_gone)
    assert one._errands.wait()
    return noted


def test_the_next_start_says_it_in_one_line_and_only_once(tmp_path):
    killed = killed_in_a_stall(tmp_path)

    (line,) = next_start(tmp_path)
    assert f"incident={killed['id']} " in line
    assert "cause=sleep" in line
    assert 'phase="a phase"' in line
    assert 'outcome="its process ended, and the loop had not come back"' in line
    assert "count=1" in line
    assert next_start(tmp_path) == []


def test_it_is_marked_as_ended_with_its_process_and_loses_nothing(tmp_path):
    before = killed_in_a_stall(tmp_path)
    (path,) = tmp_path.glob("*/incident.json")
    written = path.stat().st_mtime
    next_start(tmp_path)

    (after,) = incidents(tmp_path)
    assert after.pop("ended") is not None
    assert after.pop("actions")[-1]["deed"] == PROCESS_ENDED
    assert {key: before[key] for key in after} == after
    assert sorted(each.name for each in path.parent.iterdir()) == sorted(
        ["dump.txt", "faulthandler.txt", "incident.json", "speedscope.json"]
    )
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    assert path.stat().st_mtime >= written


def test_of_several_the_newest_is_named_and_all_are_counted(tmp_path):
    # Both at a time: the second to start would tell of the first.
    with start(tmp_path, "stuck") as one, start(tmp_path, "stuck") as other:
        try:
            wait_for_dump(one)
            wait_for_dump(other)
        finally:
            one.kill()
            other.kill()

    (line,) = next_start(tmp_path)
    newest = max(tmp_path.iterdir()).name
    assert f"incident={newest} " in line
    assert "count=2" in line
    assert next_start(tmp_path) == []


def test_of_a_process_that_is_still_stuck_nothing_is_said(tmp_path):
    with start(tmp_path, "stuck") as process:
        try:
            wait_for_dump(process)
            assert next_start(tmp_path) == []
            assert incidents(tmp_path)[0]["ended"] is None
        finally:
            process.kill()


def test_a_number_that_another_process_has_now_is_no_life(tmp_path):
    # In a container that starts again this is the rule: the scheduler has the same number each time.
    killed = killed_in_a_stall(tmp_path)
    change(tmp_path, pid=os.getpid(), first_dump="2020-01-01T00:00:00.000Z")

    assert [each["incident"] for each in found_here(tmp_path)] == [killed["id"]]


def test_an_incident_of_this_very_process_is_left_alone(tmp_path):
    killed_in_a_stall(tmp_path)
    change(tmp_path, pid=os.getpid())

    assert found_here(tmp_path) == []


def test_those_of_another_host_are_left_alone(tmp_path):
    killed_in_a_stall(tmp_path)
    (folder,) = tmp_path.iterdir()
    host = Recorder(tmp_path)._host
    folder.rename(tmp_path / folder.name.replace(f"-{host}-", f"-{host}-of-another-"))

    assert found_here(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"ended": null}', '{"ended": null, "pid": "x", "first_dump": 3}'],
)
def test_a_damaged_one_is_left_alone_and_holds_up_no_other(tmp_path, content):
    killed = killed_in_a_stall(tmp_path)
    damaged = tmp_path / killed["id"].replace("202", "203", 1)
    damaged.mkdir()
    (damaged / "incident.json").write_text(content)

    assert [each["incident"] for each in found_here(tmp_path)] == [killed["id"]]
    assert (damaged / "incident.json").read_text() == content


def test_what_is_no_file_or_too_big_is_not_read(tmp_path, monkeypatch):
    killed = killed_in_a_stall(tmp_path)
    os.mkfifo(tmp_path / killed["id"].replace("202", "203", 1))
    pipe = tmp_path / killed["id"].replace("202", "204", 1)
    pipe.mkdir()
    os.mkfifo(pipe / "incident.json")
    monkeypatch.setattr(unfinished, "LARGEST", 100)

    assert found_here(tmp_path) == []


def test_where_there_is_no_directory_nothing_is_said(tmp_path):
    assert found_here(tmp_path / "nowhere") == []


def test_where_nothing_can_be_written_it_is_said_all_the_same(tmp_path, monkeypatch):
    killed = killed_in_a_stall(tmp_path)

    def no(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Recorder, "rewrite", no)

    assert [each["incident"] for each in found_here(tmp_path)] == [killed["id"]]


def change(folder: Path, **values: object) -> None:
    """Write something else into the one incident."""
    (path,) = folder.glob("*/incident.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}, indent=1))

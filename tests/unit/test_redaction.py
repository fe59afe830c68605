"""A token that stands anywhere in what was found reaches neither the log nor the files."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from watchdog_hook.actions.record import Recorder
from watchdog_hook.core import report
from watchdog_hook.core.model import (
    CallRecord,
    Deed,
    Finding,
    Frame,
    Incident,
    Sample,
    Snapshot,
    ThreadStack,
)
from watchdog_hook.core.observed import (
    Child,
    DatabaseFacts,
    Descriptor,
    ExecutorFacts,
    Iteration,
    LockWait,
    Observed,
    ProcessFacts,
    Session,
    Tcp,
    ThreadInKernel,
    Wait,
    Watcher,
)
from watchdog_hook.integrations.airflow.database import first_words
from watchdog_hook.integrations.airflow.host import TOKENS

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
FRAME = Frame("read", "/x/ssl.py", 7)
DESCRIPTOR = Descriptor(4, "tcp", "a:1", "b:2", "them", Tcp("ESTABLISHED"), "/p", "nfs", ("who",))
KERNEL = ThreadInKernel(11, "S", "futex_wait", Wait("recvfrom", (1,), (DESCRIPTOR,)))
SESSION = Session(9, "active", "Lock: x", 3.0, "psql", "10.0.0.9", "UPDATE dag_run SET")
EVERYTHING = Incident(
    id="20261122T010101Z-here-1-1",
    host="here",
    pid=1,
    began=1_795_391_631.5,
    first_dump=1_795_391_661.5,
    silence_s=30.06,
    phase="executor.heartbeat",
    finding=Finding(
        "a", "high", "It.", "Do.", ("s",), known=("x#1",), also=(Finding("b", "low", "Or."),)
    ),
    snapshot=Snapshot(
        threads=(ThreadStack(1, "MainThread", (FRAME,), 11), ThreadStack(2, "idle", (FRAME,))),
        samples=(Sample(15.0, (FRAME,), KERNEL),),
        in_flight=(CallRecord("POST /pods", "k8s:443", "MainThread", 31.0),),
        recent=(CallRecord("GET /pods", "k8s:443", "MainThread", 40.0, 0.1, "200"),),
        unavailable=(("what", "why"),),
        observed=Observed(
            kernel=KERNEL,
            process=ProcessFacts(
                pressure=(("memory", 1.0),), children=(Child(8, "w", "S", 1.0, waits="f"),)
            ),
            locks=(LockWait("MainThread", "RLock", FRAME, "other", FRAME, "the lock itself"),),
            executors=(ExecutorFacts("KubernetesExecutor", watchers=(Watcher(8, "here"),)),),
            iterations=(Iteration(1.0, 0.5, (("scheduling", 0.0, 0.5),)),),
            normal=(((FRAME,), 3),),
            database=DatabaseFacts(True, "why", SESSION, (SESSION,)),
        ),
    ),
    call="POST /pods",
    peer="k8s:443",
    job_id="7",
    versions={"python": "3.12"},
    settings={"dump_after": "30"},
    actions=(Deed(60.0, "interrupt", "signal", "landed"),),
)
# Names of folders and files; whoever could write a token there has it already.
LEFT_OUT = {"id", "host"}


def with_token_at(value: Any, count: Iterator[int], place: int) -> Any:
    """Return a copy in which one text, the one with that number, ends with the token."""
    if isinstance(value, str):
        return f"{value} {TOKEN}" if next(count) == place else value
    if isinstance(value, tuple):
        return tuple(with_token_at(item, count, place) for item in value)
    if isinstance(value, dict):
        return {key: with_token_at(item, count, place) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {
            field.name: with_token_at(getattr(value, field.name), count, place)
            for field in dataclasses.fields(value)
            if not (isinstance(value, Incident) and field.name in LEFT_OUT)
        }
        return dataclasses.replace(value, **changed)
    return value


def number_of_texts() -> int:
    count = itertools.count()
    with_token_at(EVERYTHING, count, -1)
    return next(count)


def mask(text: str) -> str:
    return TOKENS.sub("***", text)


@pytest.mark.parametrize("place", range(number_of_texts()))
def test_a_token_in_any_text_is_masked_in_the_record_and_in_every_file(place: int, tmp_path: Path):
    incident = with_token_at(EVERYTHING, itertools.count(), place)
    recorder = Recorder(str(tmp_path), mask=mask)
    said = mask(report.render(incident))
    delta = mask(report.render_delta(incident, EVERYTHING.snapshot, incident.snapshot))

    folder = recorder.write(incident, mask(report.render(incident, limit=None)))
    recorder.update(incident, delta)

    assert folder is not None
    files = {path.name: path.read_text() for path in folder.iterdir()}
    assert "incident.json" in files
    for name, text in {"record": said, "delta": delta, **files}.items():
        assert TOKEN not in text, name
        assert TOKEN.rpartition(".")[0] not in text, f"{name}: a part of it"


def test_the_check_sees_a_token_that_is_not_masked(tmp_path: Path):
    incident = dataclasses.replace(EVERYTHING, phase=TOKEN)

    assert TOKEN in report.render(incident)
    folder = Recorder(str(tmp_path)).write(incident, "")
    assert folder is not None
    assert TOKEN in (folder / "incident.json").read_text()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("UPDATE dag_run SET state = 'running' WHERE id = 7", "UPDATE dag_run SET state ="),
        ("select  a.pid\n from x where token = 'eyJ'", "select a.pid from x where token ="),
        ("INSERT INTO connection (password) VALUES ($1)", "INSERT INTO connection"),
        ("", ""),
    ],
)
def test_of_a_statement_no_value_is_shown(query: str, words: str):
    assert first_words(query) == words

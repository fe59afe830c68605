"""Kubernetes' termination message: a file of somebody else's, which may be anything."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from watchdog_hook import Config
from watchdog_hook.actions import message
from watchdog_hook.actions.message import MOST, TerminationMessage

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
OURS = "watchdog_hook: event=dump incident=i1\n It waits."
STUCK = """
import sys, time
from watchdog_hook import Config, Watchdog
path, incidents = sys.argv[1:]
config = Config(
    poll_interval=0.05, sample_after=0.1, dump_after=0.3, startup_grace=0,
    incident_dir=incidents, termination_message=path,
)
with Watchdog(config) as dog:
    dog.beat("a phase")
    dog.beat("a phase")
    while True:
        time.sleep(1000)
"""


@pytest.fixture
def path(tmp_path) -> Path:
    """Return an empty file, as Kubernetes mounts it."""
    made = tmp_path / "termination-log"
    made.touch(mode=0o666)
    return made


def test_the_text_is_there_until_it_is_taken_back(path):
    one = TerminationMessage(str(path))
    one.put(OURS)
    assert path.read_text() == OURS + "\n"
    one.put("watchdog_hook: event=x")
    assert path.read_text() == "watchdog_hook: event=x\n"
    one.take_back()

    assert path.read_text() == ""


def test_it_is_the_same_file_all_the_time(path):
    # A mount: a file that takes its place by its name would not be the one that the kubelet reads.
    before = path.stat()
    one = TerminationMessage(str(path))
    one.put(OURS)

    assert (path.stat().st_ino, path.stat().st_mode) == (before.st_ino, before.st_mode)


def test_it_is_not_longer_than_what_is_read(path):
    TerminationMessage(str(path)).put(OURS + "ü" * 10_000)

    assert path.stat().st_size == MOST


def test_a_file_that_is_not_there_is_not_made(tmp_path):
    one = TerminationMessage(str(tmp_path / "termination-log"))
    one.put(OURS)
    one.take_back()

    assert list(tmp_path.iterdir()) == []


def test_with_no_path_nothing_is_done():
    assert Config(termination_message="").termination_message is None
    TerminationMessage(None).put(OURS)


def test_what_another_program_has_written_stays(path):
    path.write_text("last words of an entrypoint\n")
    one = TerminationMessage(str(path))
    one.put(OURS)
    one.take_back()

    assert path.read_text() == "last words of an entrypoint\n"


def test_what_another_program_has_written_since_is_not_taken_back(path):
    one = TerminationMessage(str(path))
    one.put(OURS)
    path.write_text("watchdog_hook: of another one\n")
    one.take_back()

    assert path.read_text() == "watchdog_hook: of another one\n"


def test_that_of_a_process_before_us_is_replaced(path):
    path.write_text("watchdog_hook: event=dump incident=i0\n")
    TerminationMessage(str(path)).put(OURS)

    assert path.read_text() == OURS + "\n"


def test_a_link_is_not_followed(tmp_path, path):
    link = tmp_path / "link"
    link.symlink_to(path)
    TerminationMessage(str(link)).put(OURS)

    assert path.read_text() == ""


def test_a_pipe_without_a_reader_holds_up_nobody_and_gets_nothing(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        one = TerminationMessage(str(pipe))
        one.put(OURS)
        assert not one.working()
        assert os.read(reader, 100) == b""
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_file_that_may_not_be_written_stays_as_it_is(path):
    # In a process of its own, as nobody where the tests run as root: root may write into any file.
    path.chmod(0o444)
    child = os.fork()
    if not child:
        try:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            TerminationMessage(str(path)).put(OURS)
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert path.read_text() == ""


def test_a_file_system_that_hangs_is_waited_for_once(path, monkeypatch):
    hangs, goes_on, calls = threading.Event(), threading.Event(), []

    def pread(*arguments: int) -> bytes:
        calls.append(arguments)
        hangs.set()
        goes_on.wait(60)
        raise OSError

    monkeypatch.setattr(message, "PATIENCE", 0.05)
    monkeypatch.setattr(message.os, "pread", pread)
    one = TerminationMessage(str(path))
    one.put(OURS)
    one.put(OURS)
    one.take_back()
    assert hangs.wait(20)
    goes_on.set()

    assert len(calls) == 1
    assert path.read_text() == ""


def test_a_forked_child_leaves_its_parents_text_alone(path):
    one = TerminationMessage(str(path))
    one.put(OURS)
    child = os.fork()
    if not child:
        one.reset_after_fork()
        one.take_back()
        os._exit(0)
    os.waitpid(child, 0)

    assert path.read_text() == OURS + "\n"


@pytest.mark.linux
def test_of_a_process_that_is_killed_in_a_stall_the_verdict_remains(path, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, str(path), str(tmp_path / "incidents")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            while not path.stat().st_size:
                assert process.poll() is None
        finally:
            process.kill()
    said = path.read_text()

    assert said.startswith("watchdog_hook: event=dump incident=")
    assert "cause=sleep" in said
    assert "it sleeps" in said
    (incident,) = (tmp_path / "incidents").iterdir()
    assert f"Files: {incident}" in said

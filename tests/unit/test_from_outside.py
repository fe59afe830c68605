"""What may be done to a process that does not answer, and what may not."""

from __future__ import annotations

import signal
import stat

import pytest

from watchdog_hook.cli import from_outside, levers
from watchdog_hook.cli.from_outside import NoStacks, by_py_spy, why_not_signal, without_command_line

USR1 = f"{1 << (signal.SIGUSR1 - 1):016x}"
NONE = "0" * 16
CATCHES = {"State": "S (sleeping)", "SigCgt": USR1, "SigBlk": NONE}


@pytest.fixture
def py_spy(monkeypatch, tmp_path):
    """Return a function that puts a program in the place of py-spy."""

    def put(text: str) -> None:
        path = tmp_path / "py-spy"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(from_outside, "find_py_spy", lambda option: str(path))

    return put


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (CATCHES, None),
        ({**CATCHES, "SigCgt": NONE}, "is not caught there, so none is sent"),
        ({**CATCHES, "SigBlk": USR1}, "is blocked"),
        ({**CATCHES, "State": "T (stopped)"}, "is stopped"),
        ({}, "is not caught there"),
    ],
)
def test_a_signal_goes_only_to_a_process_that_catches_it(status, why):
    told = why_not_signal(status, signal.SIGUSR1)

    assert told is None if why is None else why in told


@pytest.mark.parametrize(
    "command_line", ["python airflow scheduler", "python -c import x\nkey = 'secret'\nx.run(key)"]
)
def test_the_command_line_that_py_spy_prints_is_left_out(command_line):
    text = f"Process 7: {command_line}\nPython v3.12.1 (/usr/bin/python3.12)\n\nThread 7 (idle)\n    f (a.py:1)\n"

    assert without_command_line(text) == (
        "Process 7\nPython v3.12.1 (/usr/bin/python3.12)\n\nThread 7 (idle)\n    f (a.py:1)\n"
    )


def test_of_a_text_that_is_not_py_spys_the_first_line_is_left_out_all_the_same():
    assert without_command_line("Process seven: secret\nThread 7\n") == "Thread 7\n"


def test_py_spy_is_asked_without_stopping_the_process(py_spy):
    py_spy('echo "Process 7: x"; echo "Python v3"; echo "$@"')

    assert by_py_spy(7) == "Process 7\nPython v3\ndump --nonblocking --pid 7\n"


def test_without_py_spy_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(from_outside, "find_py_spy", lambda option: "")

    with pytest.raises(NoStacks, match=r"pip install 'watchdog-hook\[py-spy\]'.*kubectl debug"):
        by_py_spy(7)


def test_where_py_spy_is_refused_it_is_said_what_to_allow(py_spy, monkeypatch):
    monkeypatch.setattr(levers, "ptrace_hindrance", lambda: None)
    py_spy("echo 'Permission Denied: Try running again' >&2; exit 1")

    with pytest.raises(NoStacks, match=r"Permission Denied.*SYS_PTRACE"):
        by_py_spy(7)


def test_a_py_spy_that_hangs_is_not_waited_for(py_spy, monkeypatch):
    monkeypatch.setattr(from_outside, "PY_SPY", 0.2)
    py_spy("exec sleep 60")

    with pytest.raises(NoStacks, match="has not ended within"):
        by_py_spy(7)


def test_a_py_spy_that_cannot_be_started_is_no_traceback(py_spy, tmp_path):
    py_spy("")
    (tmp_path / "py-spy").write_text("no program")

    with pytest.raises(NoStacks, match="cannot be started"):
        by_py_spy(7)

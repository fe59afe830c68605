"""The command line tells what the files hold and what the machine allows; it changes nothing."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from watchdog_hook.cli import levers, main
from watchdog_hook.config import KNOBS, Config
from watchdog_hook.core import report
from watchdog_hook.core.model import (
    PROCESS_ENDED,
    Deed,
    Finding,
    Frame,
    Incident,
    Snapshot,
    ThreadStack,
)
from watchdog_hook.integrations.airflow import doctor, settings

ROOT = Path(__file__).parents[2]
FIRST = "20261101T101500Z-node-1-7-1"
SECOND = "20261102T101500Z-node-1-7-2"


def incident(name: str = FIRST, **changes) -> Incident:
    return Incident(
        id=name,
        host="node-1",
        pid=7,
        began=1793528100.0,
        first_dump=1793528130.0,
        silence_s=61.5,
        phase="executor.heartbeat",
        call="POST /api/v1/namespaces/{namespace}/pods",
        peer="10.0.0.1:443",
        finding=Finding(
            "kubernetes-api-read", "high", "The API server took it and never answered."
        ),
        snapshot=Snapshot((ThreadStack(1, "MainThread", (Frame("read", "/lib/ssl.py", 1099),)),)),
        actions=(Deed(60.0, "interrupt", "signal", "landed"),),
    ).evolve(**changes)


def write(directory: Path, one: Incident, dump: str | None = "the dump, as it was\n") -> Path:
    folder = directory / one.id
    folder.mkdir()
    (folder / "incident.json").write_text(json.dumps(report.to_json(one)))
    if dump is not None:
        (folder / "dump.txt").write_text(dump)
    return folder


@pytest.fixture
def run(capsys, tmp_path):
    def command(*arguments: str) -> tuple[int, str, str]:
        code = 0
        try:
            code = main([*arguments, "--incident-dir", str(tmp_path)])
        except SystemExit as leaving:
            code = leaving.code
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return command


def test_without_incidents_that_is_said(run, tmp_path):
    assert run("incidents") == (0, f"No incidents in {tmp_path}.\n", "")


def test_incidents_are_listed_the_newest_last(run, tmp_path):
    write(tmp_path, incident(SECOND, ended=1793528200.0))
    write(tmp_path, incident(FIRST))

    code, out, _ = run("incidents", "--all")

    heading, first, second = out.splitlines()
    assert code == 0
    assert heading.split() == ["id", "began", "silence", "phase", "call", "verdict", "ended"]
    assert first.startswith(FIRST)
    assert "POST /api/v1/namespaces/{namespace}/pods" in first
    assert "not seen" in first
    assert "kubernetes-api-read" in second
    assert "2026-11-01 10:16:40Z" in second


def test_an_incident_that_its_process_did_not_survive_ended_with_it(run, tmp_path):
    deed = Deed(61.5, PROCESS_ENDED, None, "the loop had not come back; found at the next start")
    write(tmp_path, incident(ended=1793528200.0, actions=(deed,)))

    assert run("incidents")[1].splitlines()[-1] == f"  last  {FIRST}, ended with its process"
    assert run("incidents", "--all")[1].rstrip().endswith("with its process")
    assert json.loads(run("incidents", "--json")[1])[0]["process_ended"] is True
    shown = run("show", FIRST)[1]
    assert "with its process, which wrote last at 2026-11-01 10:16:40Z" in shown
    assert "at 62 s: process ended: the loop had not come back" in shown


def test_incidents_as_json_are_one_list(run, tmp_path):
    folder = write(tmp_path, incident())

    code, out, _ = run("incidents", "--json")

    (row,) = json.loads(out)
    assert code == 0
    assert row == {
        "id": FIRST,
        "path": str(folder),
        "began": "2026-11-01T10:15:00.000Z",
        "ended": None,
        "silence_s": 61.5,
        "phase": "executor.heartbeat",
        "call": "POST /api/v1/namespaces/{namespace}/pods",
        "peer": "10.0.0.1:443",
        "verdict": "kubernetes-api-read",
        "process_ended": False,
        "fingerprint": report.fingerprint(incident()),
        "damage": [],
    }


AT = Frame("KubernetesExecutor.sync", "/x/site-packages/airflow/executors/k.py", 9)
WEEK = 7 * 86_400


def again(number: int, silence: float, *frames: Frame, **changes) -> Incident:
    """Return the same stall a week later each time, at other lines, of another process."""
    moved = tuple(Frame(f.function, f.file, f.line + number) for f in frames or (AT,))
    return incident(
        f"202611{number:02}T101500Z-node-1-{number}-1",
        began=1793528100.0 + (number - 1) * WEEK,
        silence_s=silence,
        snapshot=Snapshot(
            (
                ThreadStack(
                    1, "MainThread", (Frame("read", "/usr/lib/python3.12/ssl.py", number), *moved)
                ),
            )
        ),
        **changes,
    )


def test_incidents_of_one_kind_are_one_group_with_how_often_since_when_and_how_long(run, tmp_path):
    for number, silence in ((1, 61.5), (2, 380.2), (3, 41.0)):
        write(tmp_path, again(number, silence))

    code, out, err = run("incidents")

    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "kubernetes-api-read in executor.heartbeat",
        "  3 times since Sun 2026-11-01, 41-380 s",
        "  at    KubernetesExecutor.sync (airflow/executors/k.py:12)",
        "  last  20261103T101500Z-node-1-3-1",
    ]


def test_groups_come_in_the_order_of_their_newest_incidents(run, tmp_path):
    write(tmp_path, again(1, 61.5))
    write(tmp_path, again(2, 30.0, phase="scheduling"))
    write(tmp_path, again(3, 61.5))

    first, second = run("incidents")[1].split("\n\n")

    assert first.startswith("kubernetes-api-read in scheduling\n  once, Sun 2026-11-08, 30 s\n")
    assert second.startswith(
        "kubernetes-api-read in executor.heartbeat\n  2 times since Sun 2026-11-01, "
    )


def test_an_incident_of_an_early_release_is_grouped_by_a_fingerprint_reckoned_anew(run, tmp_path):
    write(tmp_path, again(1, 61.5))
    folder = write(tmp_path, again(2, 61.5))
    data = {**json.loads((folder / "incident.json").read_text()), "fingerprint": "0" * 12}
    (folder / "incident.json").write_text(json.dumps(data))

    one, two = json.loads(run("incidents", "--json")[1])

    assert one["fingerprint"] == two["fingerprint"] == report.fingerprint(again(1, 61.5))
    assert "2 times since" in run("incidents")[1]


@pytest.mark.parametrize("lost", ["verdict", "threads", "all"])
def test_damaged_incidents_are_a_group_of_their_own_and_do_not_hide_the_others(run, tmp_path, lost):
    write(tmp_path, again(1, 61.5))
    for number in (2, 3):
        path = write(tmp_path, again(number, 50.0)) / "incident.json"
        data = json.loads(path.read_text())
        path.write_text("{" if lost == "all" else json.dumps({**data, lost: None}))

    code, out, err = run("incidents")

    sound, damaged = out.split("\n\n")
    assert code == 1
    assert "once, Sun 2026-11-01" in sound
    assert damaged.startswith("damaged: verdict or stack cannot be read\n  2 times")
    assert damaged.endswith("  last  20261103T101500Z-node-1-3-1\n")
    assert len(err.splitlines()) == 2


def test_a_group_stays_in_its_lines_whatever_its_texts_hold(run, tmp_path):
    evil = Frame("f\x1b[2J\nlast  forged", "/dags/\ud800.py", 1)
    write(tmp_path, again(1, 61.5, evil, phase="a\nb\x1b[31m\u202e"))

    code, out, _ = run("incidents")

    assert code == 0
    assert len(out.splitlines()) == 4
    assert all(line.isprintable() for line in out.splitlines())


def test_other_folders_are_no_incidents(run, tmp_path):
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "notes.txt").touch()

    assert run("incidents", "--json") == (0, "[]\n", "")


def test_a_damaged_incident_is_listed_as_damaged_with_exit_code_1(run, tmp_path):
    write(tmp_path, incident())
    (write(tmp_path, incident(SECOND)) / "incident.json").write_text('{"schema": 1, "id"')

    code, out, err = run("incidents", "--all")

    assert code == 1
    assert "damaged" in out.splitlines()[-1]
    assert err.startswith(f"{SECOND}: incident.json is not JSON")


def test_show_prints_the_diagnosis_first_then_how_it_went_on_then_the_stack(run, tmp_path):
    write(tmp_path, incident())

    code, out, err = run("show", FIRST)

    parts = [
        " Silent since ",
        " The API server took it and never answered.",
        "kubernetes-api-read (high)",
        "at 60 s: interrupt (signal): landed",
        " Stack of MainThread, innermost frame first:",
        "    read (/lib/ssl.py:1099)",
    ]
    assert (code, err) == (0, "")
    assert out.startswith(parts[0])
    assert [out.index(part) for part in parts] == sorted(out.index(part) for part in parts)


def test_show_prints_the_dump_as_it_was_written_when_that_is_asked_for(run, tmp_path):
    dump = "first line\n  [bold]not markup[/bold] " + "x" * 500 + "\n"
    write(tmp_path, incident(), dump)

    assert run("show", FIRST, "--dump") == (0, dump, "")


LIBRARY = Frame("urlopen", "/x/site-packages/urllib3/connectionpool.py", 787)
MINE = Frame("pod_mutation_hook", "/opt/airflow/config/airflow_local_settings.py", 12)


def on_terminal(directory: Path, *arguments: str, **environment: str) -> str:
    """Return what show prints on a real terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "watchdog_hook",
            "show",
            *arguments,
            "--incident-dir",
            str(directory),
        ],
        cwd=ROOT,
        env={
            **{name: value for name, value in os.environ.items() if name not in COLOURS},
            "TERM": "xterm-256color",
            "COLUMNS": "100",
            **environment,
        },
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.STDOUT,
    ) as process:
        os.close(theirs)
        pieces = []
        with contextlib.suppress(OSError):  # the end of a terminal
            while piece := os.read(ours, 65536):
                pieces.append(piece)
        os.close(ours)
    assert process.returncode == 0
    return b"".join(pieces).decode().replace("\r\n", "\n")


COLOURS = ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "CLICOLOR", "COLORTERM")
DIM, BOLD = "\x1b[2m", "\x1b[1m"


@pytest.fixture
def _stalled_in_my_hook(tmp_path):
    stack = ThreadStack(1, "MainThread", (LIBRARY, MINE, AT))
    idle = tuple(ThreadStack(n, f"pool-{n}", (LIBRARY,)) for n in range(2, 16))
    write(tmp_path, incident(snapshot=Snapshot((stack, *idle))))


@pytest.mark.usefixtures("_stalled_in_my_hook")
def test_on_a_terminal_own_frames_are_brighter_than_those_of_libraries(tmp_path):
    shown = on_terminal(tmp_path, FIRST)
    line = {
        name: each
        for each in shown.splitlines()
        for name in ("urlopen", "hook", "sync")
        if name in each
    }

    assert DIM in line["urlopen"]
    assert "\x1b[1;33m" in line["hook"]
    assert BOLD in line["sync"]
    assert BOLD in shown.partition(" The API server took it and never answered.")[0]
    assert "14 x pool-2, pool-3" in shown


@pytest.mark.usefixtures("_stalled_in_my_hook")
def test_with_no_color_a_terminal_gets_no_escape_and_so_does_a_pipe(run, tmp_path):
    shown = on_terminal(tmp_path, FIRST, NO_COLOR="1")

    assert "urlopen (urllib3/connectionpool.py:787)" in shown
    assert "\x1b" not in shown
    assert "\x1b" not in run("show", FIRST)[1]


def test_a_pipe_gets_long_lines_whole_and_no_markup_is_read(run, tmp_path):
    sentence = "It waits in [bold]this[/bold]" + " and that" * 60
    write(tmp_path, incident(finding=Finding("a-cause", "high", sentence)))

    assert run("show", FIRST)[1].splitlines()[1] == f" {sentence}"


def test_show_does_not_need_what_only_the_page_needs(tmp_path):
    write(tmp_path, incident())
    program = (
        "import sys\n"
        "from watchdog_hook.cli import main\n"
        f"main(['show', 'latest', '--incident-dir', {str(tmp_path)!r}])\n"
        f"main(['incidents', '--incident-dir', {str(tmp_path)!r}])\n"
        "print({'jinja2', 'markupsafe'} & set(sys.modules))\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert shown.stdout.endswith("\nset()\n")


@pytest.mark.parametrize("asked", ["latest", "20261102", SECOND])
def test_show_finds_an_incident_by_the_beginning_of_its_id_or_as_the_latest(run, tmp_path, asked):
    write(tmp_path, incident(FIRST))
    write(tmp_path, incident(SECOND))

    code, out, _ = run("show", asked, "--json")

    assert code == 0
    assert json.loads(out)["id"] == SECOND


def test_show_as_json_keeps_keys_that_this_version_does_not_know(run, tmp_path):
    folder = write(tmp_path, incident())
    data = {**json.loads((folder / "incident.json").read_text()), "of_a_later_release": [1]}
    (folder / "incident.json").write_text(json.dumps(data))

    assert json.loads(run("show", FIRST, "--json")[1])["of_a_later_release"] == [1]


def test_an_ambiguous_beginning_is_refused_with_the_choices(run, tmp_path):
    write(tmp_path, incident(FIRST))
    write(tmp_path, incident(SECOND))

    code, _, err = run("show", "2026")

    assert code == 2
    assert FIRST in err
    assert SECOND in err


@pytest.mark.parametrize("asked", ["19990101", "../" + FIRST, "latest", ""])
def test_an_incident_that_is_not_there_is_a_usage_error(run, asked):
    code, out, err = run("show", asked)

    assert (code, out) == (2, "")
    assert "watchdog-hook incidents" in err


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\0", '{"schema": 1', "[" * 100_000])
def test_of_an_incident_without_readable_json_the_dump_is_shown_with_exit_code_1(
    run, tmp_path, content
):
    (write(tmp_path, incident()) / "incident.json").write_text(content)

    code, out, err = run("show", FIRST)

    assert code == 1
    assert out == "the dump, as it was\n"
    assert err.startswith(f"{FIRST}: incident.json")


def test_of_an_incident_without_its_dump_the_json_is_shown_with_exit_code_1(run, tmp_path):
    write(tmp_path, incident(), dump=None)

    code, out, err = run("show", FIRST)

    assert code == 1
    assert "read (/lib/ssl.py:1099)" in out
    assert "dump.txt cannot be read (No such file or directory)" in err


@pytest.mark.parametrize("key", ["id", "began", "verdict", "threads"])
def test_an_incident_that_lacks_something_is_shown_with_exit_code_1(run, tmp_path, key):
    folder = write(tmp_path, incident())
    data = json.loads((folder / "incident.json").read_text())
    del data[key]
    (folder / "incident.json").write_text(json.dumps(data))

    code, out, err = run("show", FIRST)

    assert code == 1
    assert f"has no {key}" in err
    assert out.endswith("the dump, as it was\n")


def test_an_incident_of_another_schema_is_said_to_be_one(run, tmp_path):
    folder = write(tmp_path, incident())
    data = {**json.loads((folder / "incident.json").read_text()), "schema": 9}
    (folder / "incident.json").write_text(json.dumps(data))

    code, _, err = run("show", FIRST)

    assert code == 1
    assert "schema 9" in err


def test_bytes_that_are_no_text_do_not_stop_show(run, tmp_path):
    (write(tmp_path, incident()) / "dump.txt").write_bytes(b"before \xff\xfe after\n")

    code, out, _ = run("show", FIRST, "--dump")

    assert code == 0
    assert "before" in out
    assert "after" in out


def test_a_directory_that_is_not_there_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["incidents", "--incident-dir", "/nowhere/at/all"])

    assert leaving.value.code == 2
    assert "/nowhere/at/all is no directory" in capsys.readouterr().err


def test_without_a_directory_it_is_the_one_of_airflows_configuration(capsys, monkeypatch, tmp_path):
    write(tmp_path, incident())
    configured = settings.Settings(Config(incident_dir=str(tmp_path)))
    monkeypatch.setattr(settings, "read", lambda: configured)

    assert main(["incidents", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["id"] == FIRST


def test_a_configured_directory_that_nobody_has_made_yet_holds_no_incidents(
    capsys, monkeypatch, tmp_path
):
    configured = settings.Settings(Config(incident_dir=str(tmp_path / "not yet")))
    monkeypatch.setattr(settings, "read", lambda: configured)

    assert main(["incidents"]) == 0
    assert capsys.readouterr().out.startswith("No incidents in")


def test_without_a_directory_and_without_airflow_one_has_to_be_said(capsys, monkeypatch):
    monkeypatch.setattr(settings, "read", lambda: settings.Settings(Config()))

    with pytest.raises(SystemExit) as leaving:
        main(["incidents"])

    assert leaving.value.code == 2
    assert "--incident-dir" in capsys.readouterr().err


def test_what_airflow_prints_while_it_loads_is_kept_out_of_the_json(capfd, monkeypatch, tmp_path):
    def read():
        print("a plugin says hello")
        os.write(1, b"so does a library\n")
        return settings.Settings(Config(incident_dir=str(tmp_path)))

    monkeypatch.setattr(settings, "read", read)

    assert main(["incidents", "--json"]) == 0
    shown = capfd.readouterr()
    assert shown.out == "[]\n"
    assert "a plugin says hello" in shown.err
    assert "so does a library" in shown.err


def test_a_terminal_is_not_moved_about_by_a_dump(run, tmp_path, monkeypatch):
    write(tmp_path, incident(), dump="thread \x1b[2Jname\n")
    assert "\x1b[2J" in run("show", FIRST, "--dump")[1]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)

    out = run("show", FIRST, "--dump")[1]

    assert "thread \\x1b[2Jname" in out
    assert "\x1b[2J" not in out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["show"],
        ["incidents", "--colour"],
        ["show", "latest", "--json", "--dump"],
        ["show", "latest", "--json", "--html", "-"],
        ["show", "latest", "--force"],
    ],
)
def test_a_command_that_cannot_be_meant_is_a_usage_error(arguments):
    with pytest.raises(SystemExit) as leaving:
        main(arguments)

    assert leaving.value.code == 2


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    write(tmp_path, incident(), dump="a line of the dump\n" * 100_000)
    command = (
        f"{sys.executable} -m watchdog_hook show latest --dump --incident-dir {tmp_path} | head -1"
    )
    shown = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout == "a line of the dump\n"


# doctor


@pytest.fixture
def _without_airflow(monkeypatch):
    monkeypatch.setitem(sys.modules, "airflow", None)
    monkeypatch.setitem(sys.modules, "airflow.configuration", None)
    monkeypatch.setattr(doctor, "_version", lambda name: None)


@pytest.mark.usefixtures("_without_airflow")
def test_doctor_works_without_airflow_and_says_so(run):
    code, out, _ = run("doctor")

    assert code == 0
    assert "Airflow is not installed here" in out
    assert "No problems found." in out


@pytest.mark.usefixtures("_without_airflow")
def test_doctor_as_json_has_every_setting_with_its_source(run, tmp_path):
    told = json.loads(run("doctor", "--json")[1])

    assert [each["option"] for each in told["settings"]] == list(KNOBS)
    assert {each["option"]: each["source"] for each in told["settings"]} == {
        **dict.fromkeys(KNOBS, "default"),
        "incident_dir": "command line",
    }
    assert told["problems"] == 0
    assert {each["level"] for each in told["checks"]} <= {"ok", "warn", "problem"}


@pytest.mark.usefixtures("_without_airflow")
def test_doctor_finds_a_problem_with_exit_code_1(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "wrapt", None)

    code, out, _ = run("doctor")

    assert code == 1
    assert "wrapt cannot be imported" in out
    assert "pip install wrapt" in out
    assert "1 problem found." in out


def test_an_incident_directory_that_can_be_made_is_fine_and_is_not_made(tmp_path):
    wanted = tmp_path / "deep" / "down"

    assert levers.incident_dir(Config(incident_dir=str(wanted))).level == "ok"
    assert list(tmp_path.iterdir()) == []


def test_an_incident_directory_beneath_a_file_is_a_problem(tmp_path):
    (tmp_path / "file").touch()

    assert levers.incident_dir(Config(incident_dir=str(tmp_path / "file" / "x"))).level == "problem"


def test_an_incident_directory_that_is_not_writable_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    told = levers.incident_dir(Config(incident_dir=str(tmp_path)))

    assert told.level == "problem"
    assert "incident_dir" in told.remedy


def test_a_full_disk_is_warned_of(tmp_path):
    assert (
        levers.incident_dir(Config(incident_dir=str(tmp_path), incident_max_mb=1e12)).level
        == "warn"
    )


def test_a_free_sigurg_is_fine():
    assert levers.urgent_signal().level == "ok"


def test_the_owner_of_sigurg_is_named():
    def somebody(number, frame):
        raise AssertionError

    before = signal.signal(signal.SIGURG, somebody)
    try:
        assert "somebody" in levers.urgent_signal().what
    finally:
        signal.signal(signal.SIGURG, before)


def test_a_blocked_sigurg_is_a_problem():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
    try:
        assert levers.urgent_signal().level == "problem"
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_sigurg_of_another_runtime_is_warned_of(monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda number: None)

    assert levers.urgent_signal().level == "warn"


@pytest.mark.linux
def test_a_sigurg_that_a_library_took_behind_pythons_back_is_warned_of():
    program = (
        "import ctypes, signal\n"
        "from watchdog_hook.cli import levers\n"
        "assert levers.urgent_signal().level == 'ok'\n"
        "handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: None)\n"
        "ctypes.CDLL(None).signal(signal.SIGURG, handler)\n"
        "assert signal.getsignal(signal.SIGURG) == signal.SIG_DFL\n"
        "print(levers.urgent_signal().level)\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert shown.stdout == "warn\n"


@pytest.mark.parametrize(
    ("capabilities", "scope", "says"),
    [
        ("0000000000080000", "3", None),
        ("0000000000000000", None, None),
        ("0000000000000000", "0", None),
        ("0000000000000000", "1", "children"),
        ("0000000000000000", "2", "CAP_SYS_PTRACE is missing"),
        ("0000000000000000", "3", "nobody may"),
    ],
)
def test_what_hinders_ptrace_is_said(tmp_path, capabilities, scope, says):
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text(f"Name:\tpython\nCapEff:\t{capabilities}\n")
    if scope is not None:
        (tmp_path / "sys/kernel/yama").mkdir(parents=True)
        (tmp_path / "sys/kernel/yama/ptrace_scope").write_text(f"{scope}\n")

    told = levers.ptrace_hindrance(tmp_path)

    assert told is None if says is None else says in told[0]


class ApiServer(http.server.BaseHTTPRequestHandler):
    """Answers each path's beginning with a status and a body."""

    answers: ClassVar[dict[str, tuple[int, dict]]] = {}

    def do_POST(self):
        self.do_GET()

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, body = next(
            answer for start, answer in self.answers.items() if self.path.startswith(start)
        )
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def review(allowed: bool) -> dict:
    return {"status": {"allowed": allowed}, "spec": {}}


@pytest.fixture
def core(request):
    client = pytest.importorskip("kubernetes.client")
    handler = type("Answers", (ApiServer,), {"answers": request.param})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        configuration = client.Configuration(host=f"http://127.0.0.1:{server.server_port}")
        with client.ApiClient(configuration) as api:
            yield client.CoreV1Api(api)
        server.shutdown()
        thread.join()


REVIEW, PODS = "/apis/authorization.k8s.io", "/api/v1/namespaces"


@pytest.mark.parametrize(
    ("core", "level", "refused"),
    [
        ({REVIEW: (201, review(True))}, "ok", False),
        ({REVIEW: (201, review(False))}, "warn", True),
        ({REVIEW: (403, {}), PODS: (404, {})}, "ok", False),
        ({REVIEW: (404, {}), PODS: (403, {})}, "warn", True),
        ({REVIEW: (403, {}), PODS: (500, {})}, "warn", False),
    ],
    indirect=["core"],
)
def test_whether_the_account_may_get_pods_is_asked_by_a_review_or_else_by_trying(
    core, level, refused
):
    (told,) = doctor._safely("get pods", lambda: doctor.may_get_pods(core, ["here"]))

    assert told.level == level
    assert ("may not get pods in here" in told.what) == refused


def real(tmp_path, **environment):
    shown = subprocess.run(
        [sys.executable, "-m", "watchdog_hook", "doctor", "--json"],
        env={
            **os.environ,
            "AIRFLOW_HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            "AIRFLOW__CORE__EXECUTOR": "KubernetesExecutor",
            "AIRFLOW__KUBERNETES_EXECUTOR__IN_CLUSTER": "False",
            "KUBECONFIG": "/nowhere",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads(shown.stdout)
    assert shown.returncode == (1 if told["problems"] else 0)
    return {each["what"]: each for each in told["checks"]}


@pytest.mark.airflow
@pytest.mark.timeout(120)
def test_doctor_sees_that_local_settings_called_install(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "airflow_local_settings.py").write_text(doctor.LOADING)

    told = real(tmp_path, AIRFLOW__WATCHDOG_HOOK__REQUEST_TIMEOUT="10,60")

    (loaded,) = [each for what, each in told.items() if what.startswith("install() was called")]
    assert loaded["level"] == "ok"
    assert told["[watchdog_hook] request_timeout is 10,60"]["level"] == "ok"


@pytest.mark.airflow
@pytest.mark.timeout(120)
def test_doctor_sees_that_nothing_loads_the_watchdog_and_what_has_no_timeout(tmp_path):
    told = real(
        tmp_path,
        AIRFLOW__KUBERNETES_EXECUTOR__KUBE_CLIENT_REQUEST_ARGS='{"_request_timeout": [10, 60]}',
        AIRFLOW__KUBERNETES_EXECUTOR__TASK_PUBLISH_MAX_RETRIES="3",
        AIRFLOW__WATCHDOG_HOOK__DUMP_AFTER="soon",
    )

    assert told["there is no airflow_local_settings.py"]["level"] == "problem"
    assert told["[kubernetes_executor] task_publish_max_retries is 3"]["level"] == "ok"
    (timeout,) = [
        each for what, each in told.items() if what.startswith("_request_timeout is [10, 60]")
    ]
    assert "patch_namespaced_pod" in timeout["why"]
    assert "410" in timeout["why"]
    assert any("dump_after must be" in what for what in told)
    (pods,) = [each for what, each in told.items() if "get pods" in what]
    assert pods["level"] == "warn"

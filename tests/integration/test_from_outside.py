"""Real watched processes, asked from outside: do you live, and what do you do?"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.integration.silence import patiently, silent
from watchdog_hook.cli import from_outside, levers, live, main, pulses, request
from watchdog_hook.sentinel import pulse
from watchdog_hook.sentinel.pulse import Pulse
from watchdog_hook.sentinel.start import find_py_spy

pytestmark = pytest.mark.linux

ROOT = Path(__file__).parents[2]
NOBODY = 65534
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
# A probe has to be cheap: it is started every few seconds.
DEAR = ("airflow", "rich", "rich_argparse", "psutil", "json", "dataclasses", "logging", "wrapt")
AS_USER = """
import os, sys
from watchdog_hook.cli import dump, live, main
from tests.victims.watched import become
become(int(sys.argv[1]))
sys.exit(main(sys.argv[2:]))
"""


class Victim:
    """A process that is watched, or is not; see tests/victims/watched.py."""

    def __init__(self, what: str, folder: Path, *users: int, wrapper: tuple[str, ...] = ()) -> None:
        self.process = subprocess.Popen(
            [
                *wrapper,
                sys.executable,
                "-m",
                "tests.victims.watched",
                what,
                str(folder),
                *map(str, users),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self.process.pid
        self.said: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line == "ready\n":
                return
            self.said.append(line.strip())
        raise AssertionError(f"{what} ended with {self.process.wait()}")

    def close(self) -> None:
        # All of its session: children of ours, and py-spy's victims, end with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


Start = Callable[..., Victim]


@pytest.fixture
def start(tmp_path) -> Iterator[Start]:
    victims: list[Victim] = []

    def begin(
        what: str, *users: int, folder: Path = tmp_path, wrapper: tuple[str, ...] = ()
    ) -> Victim:
        victims.append(Victim(what, folder, *users, wrapper=wrapper))
        return victims[-1]

    yield begin
    for victim in victims:
        victim.close()


@pytest.fixture
def ask(capsys):
    """Return a function that runs a command; it returns its exit code, its output, and what it said beside it."""

    def command(*words: object) -> tuple[int, str, str]:
        try:
            code = main([str(word) for word in words])
        except SystemExit as leaving:
            code = leaving.code
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return command


@pytest.fixture
def _at_once(monkeypatch):
    """A hook that does not look is given up soon."""
    monkeypatch.setattr(request, "LEAST", 0.2)
    monkeypatch.setattr(request, "LATE", 0.5)
    monkeypatch.setattr(from_outside, "find_py_spy", lambda option: "")


def until(ask: Callable[[], tuple[int, str, str]], holds: Callable[[int, str], bool]) -> str:
    """Ask until it holds; return what was said then."""
    end = time.monotonic() + 20
    while True:
        code, out, _ = ask()
        if holds(code, out):
            return out
        assert time.monotonic() < end, out


def incidents(folder: Path) -> list[dict]:
    """Return what the incidents of a victim hold, the oldest first."""
    return [
        json.loads(path.read_text())
        for path in sorted((folder / "incidents").glob("*/incident.json"))
    ]


def untraced() -> dict[str, str]:
    """Return our environment without what has coverage count lines in a new process, too."""
    return {name: value for name, value in os.environ.items() if "COVERAGE" not in name}


def as_user(uid: int, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a command as another user."""
    return subprocess.run(
        [sys.executable, "-c", AS_USER, str(uid), *map(str, words)],
        cwd=ROOT,
        env=untraced(),
        capture_output=True,
        text=True,
        check=False,
    )


# live


def test_a_loop_that_turns_is_alive_and_the_probe_imports_nothing_dear(start):
    victim = start("turning")
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "importtime",
            "-m",
            "watchdog_hook",
            "live",
            "--pid",
            f"{victim.pid}",
        ],
        cwd=ROOT,
        env=untraced(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0
    assert re.fullmatch(
        rf"turning: the loop of pid {victim.pid} beat \d\.\d s ago\.\n", done.stdout
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "watchdog_hook.cli.live" in imported
    assert not imported.intersection(DEAR)


def test_a_stalled_loop_is_not_alive_and_the_verdict_is_said(start, ask):
    victim = start("silent")

    said = until(
        lambda: ask("live", "--pid", victim.pid, "--max-silence", 0.6),
        lambda code, out: code == 1 and "Incident" in out,
    )

    assert said.startswith(f"stalled: the loop of pid {victim.pid} has been silent for")
    assert "in phase scheduling" in said
    assert "waits for" in said  # the lock, as the verdict has it
    assert ask("live", "--pid", victim.pid)[0] == 0
    told = json.loads(ask("live", "--pid", victim.pid, "--max-silence", 0.6, "--json")[1])
    assert told["alive"] is False
    assert told["processes"][0]["verdict"] == "lock"


def test_a_loop_that_starts_may_take_its_time(start, ask, tmp_path):
    victim = start("silent", folder=tmp_path / "grace")

    said = until(
        lambda: ask("live", "--pid", victim.pid, "--max-silence", 0.1),
        lambda code, out: out.startswith("starting"),
    )

    assert "3600 s are allowed" in said


def test_a_stopped_process_is_said_to_be_stopped(start, ask):
    victim = start("turning")
    os.kill(victim.pid, signal.SIGSTOP)

    said = until(
        lambda: ask("live", "--pid", victim.pid, "--max-silence", 0.3),
        lambda code, out: code == 1 and "stopped" in out,
    )

    assert "SIGSTOP" in said
    os.kill(victim.pid, signal.SIGCONT)
    until(lambda: ask("live", "--pid", victim.pid), lambda code, out: out.startswith("turning"))


def test_a_loop_turns_though_its_watchdog_is_off(start, ask, monkeypatch):
    monkeypatch.setattr(live, "LATE", 0.5)
    victim = start("unlooked")

    said = until(
        lambda: ask("live", "--pid", victim.pid, "--max-silence", 5),
        lambda code, out: "has not looked" in out,
    )

    assert said.startswith("turning")
    assert ask("live", "--pid", victim.pid, "--max-silence", 5)[0] == 0


def test_a_held_interpreter_is_seen_from_outside(start, ask, monkeypatch):
    monkeypatch.setattr(live, "LATE", 0.5)
    victim = start("holds_interpreter")

    said = until(
        lambda: ask("live", "--pid", victim.pid, "--max-silence", 0.6),
        lambda code, out: code == 1 and "has not looked" in out,
    )

    assert "something holds the interpreter" in said


def test_a_process_without_the_hook_is_not_watched(start, ask):
    victim = start("unwatched")

    code, out, _ = ask("live", "--pid", victim.pid)

    assert code == 1
    assert out.startswith(f"pid {victim.pid} is not watched: watchdog_hook is not loaded there")


def test_a_forked_child_is_its_parents_to_watch(start, ask):
    victim = start("forks")
    (child,) = victim.said

    code, out, _ = ask("live", "--pid", child)

    assert code == 1
    assert f"it was started by pid {victim.pid}, which is" in out


def found_here(monkeypatch, *pids: object) -> None:
    """Let nothing else of this machine be in sight."""
    monkeypatch.setattr("watchdog_hook.cli.pulses._pids", lambda: [int(str(pid)) for pid in pids])


def test_what_is_watched_is_found(start, ask, monkeypatch):
    victim = start("turning")
    found_here(monkeypatch, 1, os.getpid(), victim.pid)

    assert ask("live")[1].startswith(f"turning: the loop of pid {victim.pid} ")


def test_of_several_all_have_to_turn_and_a_dump_is_of_one(start, ask, monkeypatch):
    turns, silent = start("turning"), start("silent")
    found_here(monkeypatch, turns.pid, silent.pid)

    said = until(lambda: ask("live", "--max-silence", 0.6), lambda code, out: code == 1)

    assert [line.partition(":")[0] for line in said.splitlines()] == ["stalled", "turning"]
    code, out, err = ask("dump")
    assert (code, out) == (2, "")
    assert f"({min(turns.pid, silent.pid)}, {max(turns.pid, silent.pid)}): say --pid PID" in err


def test_a_watched_child_is_its_parents_to_look_after(start, ask, monkeypatch):
    victim = start("starts")
    (child,) = victim.said
    until(lambda: ask("live", "--pid", child), lambda code, out: code == 0)
    found_here(monkeypatch, victim.pid, child)

    assert len(ask("live")[1].splitlines()) == 1
    until(
        lambda: ask("live", "--pid", child, "--max-silence", 0.6),
        lambda code, out: out.startswith("stalled"),
    )
    assert ask("live", "--max-silence", 0.6)[0] == 0


@pytest.mark.parametrize(
    ("what", "stalled", "turns"),
    [
        ("two_of_which_main_is_silent", "main thread", "thread {other}"),
        ("two_of_which_main_turns", "triggerer, asyncio", "main thread"),
    ],
)
def test_all_loops_of_a_process_have_to_turn(start, ask, monkeypatch, what, stalled, turns):
    victim = start(what)
    (other,) = victim.said
    found_here(monkeypatch, victim.pid)

    for words in (["live", "--pid", victim.pid], ["live"]):
        said = until(
            lambda: ask(*words, "--max-silence", 0.6),  # noqa: B023 - called before the next turn
            lambda code, out: code == 1 and "Incident" in out and "turning: " in out,
        )

        worst, best = said.splitlines()
        assert worst.startswith(f"stalled: the loop of pid {victim.pid} ({stalled}) has been ")
        turning = turns.format(other=other)
        assert best.startswith(f"turning: the loop of pid {victim.pid} ({turning}) beat ")
        assert ask(*words)[0] == 0  # 240 s are allowed
    told = json.loads(ask("live", "--max-silence", 0.6, "--json")[1])
    assert {each["thread"] for each in told["processes"]} == {victim.pid, int(other)}
    assert {each["loop"] for each in told["processes"]} <= {"asyncio", None}


@pytest.mark.parametrize(
    ("kind", "cause", "state", "says"),
    [
        ("regex", "gil_held", "stalled", "The loop's thread computes in C and keeps the interp"),
        (
            "pydll",
            "gil_held",
            "stalled",
            "A call into C sleeps and keeps the interpreter (the GIL)",
        ),
        ("beating", "stopped", "stalled", "It is stopped (SIGSTOP)."),
        ("fault", "watchdog_gone", "turning", "The watchdog's thread has ended; "),
    ],
)
def test_what_the_sentinel_saw_is_said(tmp_path, ask, kind, cause, state, says):
    with silent(tmp_path, kind) as victim:
        live_now = ("live", "--pid", victim.pid, "--max-silence", 1)
        assert "the sentinel" not in ask(*live_now)[1]
        victim.tell()
        if cause == "stopped":
            os.kill(victim.pid, signal.SIGSTOP)

        said = until(
            lambda: ask(*live_now),
            lambda code, out: (
                # A busy machine may first have it see that it is starved; it looks again.
                says in out and out.startswith(state) and code == (state == "stalled")
            ),
        )

        incident = "" if cause == "stopped" else f" (incident {victim.incident()[0].name})"
        assert f" s; the sentinel saw{incident}: {says}" in said
        told = json.loads(ask(*live_now, "--json")[1])
        assert told["processes"][0]["sentinel"]["cause"] == cause


@pytest.mark.parametrize("kind", ["pydll", "beating"])
def test_what_the_sentinel_saw_is_over_when_the_watchdog_looks_again(tmp_path, ask, kind):
    with silent(tmp_path, kind) as victim:
        live_now = ("live", "--pid", victim.pid, "--max-silence", 1)
        victim.tell()
        if kind == "beating":
            os.kill(victim.pid, signal.SIGSTOP)
        until(lambda: ask(*live_now), lambda code, out: "the sentinel saw" in out)
        if kind == "beating":
            os.kill(victim.pid, signal.SIGCONT)
        else:
            victim.tell()
        page = pulse.of_process(victim.pid)
        ticked = page.numbers[pulse.TICK_AT]
        patiently(lambda: page.numbers[pulse.TICK_AT] > ticked, "a look")

        assert "the sentinel saw" not in ask(*live_now)[1]
        assert page.read(pulse.NOTE)


@pytest.mark.parametrize("place", [pulse.PID, pulse.STARTED])
def test_a_pulse_of_another_process_counts_for_nothing(ask, place):
    """As in a child that was forked past our hook, or in a later process of the same number."""
    shared = Pulse.shared()
    shared.numbers[pulse.BEAT_AT] = time.monotonic()
    assert ask("live", "--pid", os.getpid())[0] == 0
    shared.words[place] += 1

    code, out, _ = ask("live", "--pid", os.getpid())

    shared.close()
    assert (code, out.partition(":")[0]) == (1, f"pid {os.getpid()} is not watched")


def test_a_pulse_of_another_version_is_said_to_be_one(ask):
    memory = os.memfd_create(pulse.NAME)

    code, out, _ = ask("live", "--pid", os.getpid())

    os.close(memory)
    assert code == 1
    assert "written by another version of watchdog_hook; restart it" in out


@NEEDS_ROOT
def test_a_process_in_a_container_of_its_own_is_seen_from_the_node(start, ask, monkeypatch):
    wrapper = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    if subprocess.run([*wrapper, "true"], stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("no container can be made here: unshare is missing or refused")
    (process,) = psutil.Process(start("turning", wrapper=wrapper).pid).children()
    pid = process.pid

    assert ask("live", "--pid", pid)[1].startswith(f"turning: the loop of pid {pid} ")
    code, out, _ = ask("dump", "--pid", pid)
    assert code == 0
    assert "cause=no-stall" in out


@NEEDS_ROOT
def test_another_user_is_told_what_is_missing(start):
    victim = start("turning")

    for verb in ("live", "dump"):
        done = as_user(NOBODY, verb, "--pid", victim.pid)

        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert f"may not be looked into by user {NOBODY}" in done.stdout + done.stderr
        assert "SYS_PTRACE" in done.stdout + done.stderr


@NEEDS_ROOT
def test_a_user_without_rights_may_ask_his_own(start):
    # Not in pytest's folder: another session of pytest takes that away from everybody else.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        victim = start("turning", NOBODY, folder=folder)

        lives = as_user(NOBODY, "live", "--pid", victim.pid)
        dumped = as_user(NOBODY, "dump", "--pid", victim.pid)

    assert (lives.returncode, lives.stderr) == (0, "")
    assert dumped.returncode == 0, dumped.stderr
    assert "cause=no-stall" in dumped.stdout


# dump


def test_a_healthy_loop_is_dumped_as_healthy_and_goes_on(start, ask, tmp_path):
    victim = start("turning")

    code, out, err = ask("dump", "--pid", victim.pid)

    assert code == 0
    assert "event=dump" in out.splitlines()[0]
    assert "cause=no-stall asked=true" in out.splitlines()[0]
    assert "A dump was asked for: nothing is wrong; the loop's last beat came" in out
    assert "turning (watched.py" in re.sub(r"\(\S*/", "(", out)
    (made,) = incidents(tmp_path)
    assert made["id"] in err
    assert made["ended"] is not None
    assert [deed["outcome"] for deed in made["actions"]] == ["asked for by watchdog-hook dump"]
    assert ask("live", "--pid", victim.pid, "--max-silence", 5)[0] == 0


def test_a_stalled_loop_is_dumped_with_its_cause(start, ask, tmp_path):
    victim = start("silent")
    until(
        lambda: ask("live", "--pid", victim.pid, "--max-silence", 0.6),
        lambda code, out: "Incident" in out,
    )

    code, out, _ = ask("dump", "--pid", victim.pid, "--json")

    told = json.loads(out)
    assert code == 0
    assert told["verdict"]["id"] == "lock"
    assert told["silence_s"] >= 0.5
    stall, asked = incidents(tmp_path)
    assert asked["id"] == told["id"]
    assert stall["ended"] is None  # the stall itself goes on
    assert stall["actions"] == []


def test_who_asks_at_once_again_gets_the_same_dump(start, ask, tmp_path):
    victim = start("turning")
    answers: list[tuple[str, str]] = []

    def asks() -> None:
        answers.append(request.Request(*pulses.of(victim.pid, write=True)).answer())

    for _ in range(3):
        together = [threading.Thread(target=asks) for _ in range(4)]
        for thread in together:
            thread.start()
        for thread in together:
            thread.join()

    assert len(answers) == 12
    assert len(incidents(tmp_path)) <= 2  # five seconds may have passed meanwhile


def test_every_loop_of_a_process_is_dumped(start, ask):
    victim = start("two_of_which_main_turns")
    until(
        lambda: ask("live", "--pid", victim.pid, "--max-silence", 0.6),
        lambda code, out: "Incident" in out,
    )

    code, out, err = ask("dump", "--pid", victim.pid)

    assert code == 0
    heads = [line for line in out.splitlines() if line.startswith("watchdog_hook: event=dump ")]
    assert sorted("cause=no-stall asked=true" in head for head in heads) == [False, True]
    assert len(set(re.findall(r"^incident (\S+), files in ", err, re.M))) == 2
    code, out, _ = ask("dump", "--pid", victim.pid, "--json")
    told = json.loads(out)
    assert code == 0
    assert sorted(each["verdict"]["id"] == "no-stall" for each in told) == [False, True]
    assert len({each["id"] for each in told}) == 2


@pytest.mark.usefixtures("_at_once")
def test_of_two_hooks_the_one_that_answers_is_shown_and_the_other_said(start, ask, monkeypatch):
    monkeypatch.setattr(request, "LATE", 5)  # one that dumps does not look meanwhile
    victim = start("two_of_which_one_has_no_watchdog")
    (other,) = victim.said

    code, out, err = ask("dump", "--pid", victim.pid)

    assert code == 1
    assert out.count("event=dump") == 1
    assert f"the hook of pid {victim.pid} (thread {other}) has not looked for" in err
    assert err.count("py-spy is neither") == 1


def test_files_that_cannot_be_read_here_are_named(start, ask, tmp_path):
    (tmp_path / "incidents").write_text("a file is in the way")
    victim = start("turning")

    code, out, err = ask("dump", "--pid", victim.pid)

    assert (code, out) == (1, "")
    assert f"cannot be read here ({tmp_path}/incidents/" in err
    assert "log, too" in err


@pytest.mark.usefixtures("_at_once")
def test_faulthandler_is_asked_where_the_hook_does_not_answer(start, ask):
    victim = start("holds_and_leaves_a_signal")

    code, out, err = ask("dump", "--pid", victim.pid)

    assert code == 0
    assert "has not looked for" in err
    assert f"Stacks of pid {victim.pid} by faulthandler:" in out
    assert "in holds_and_leaves_a_signal" in out
    assert "most recent call first" in out
    assert json.loads(ask("dump", "--pid", victim.pid, "--json")[1])["source"] == "faulthandler"


@pytest.mark.usefixtures("_at_once")
def test_a_process_that_does_not_catch_the_signal_gets_none(start, ask):
    victim = start("holds_and_does_not_catch")

    code, out, err = ask("dump", "--pid", victim.pid)

    assert (code, out) == (1, "")
    assert "is not caught there, so none is sent" in err
    assert "pip install 'watchdog-hook[py-spy]'" in err
    assert victim.process.poll() is None


@pytest.mark.usefixtures("_at_once")
def test_nothing_is_written_into_a_file_of_the_host_that_has_our_number(start, ask, tmp_path):
    victim = start("holds_where_the_host_has_our_number")

    code, out, err = ask("dump", "--pid", victim.pid)

    assert (code, out) == (1, "")
    assert "the host has closed what faulthandler writes into there" in err
    assert next(tmp_path.glob("*.theirs")).read_bytes() == b""


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("what", ["holds_interpreter", "unwatched"])
def test_without_py_spy_it_is_said_what_to_install(start, ask, what):
    victim = start(what)

    code, out, err = ask("dump", "--pid", victim.pid)

    assert (code, out) == (1, "")
    assert "py-spy is neither on PATH nor beside this Python" in err
    assert "Traceback" not in err


@pytest.mark.usefixtures("_at_once")
def test_a_forked_child_has_no_hook_to_ask(start, ask):
    victim = start("forks")
    (child,) = victim.said

    code, out, err = ask("dump", "--pid", child)

    assert (code, out) == (1, "")
    assert f"pid {child} is not watched: it was started by pid {victim.pid}, which is" in err
    assert "py-spy is neither" in err  # which would have shown it


def test_a_process_that_is_not_there_cannot_be_dumped(ask):
    code, out, err = ask("dump", "--pid", (1 << 22) + 1)

    assert (code, out) == (1, "")
    assert err == f"there is no process {(1 << 22) + 1} in sight.\n"


@pytest.mark.usefixtures("_at_once")
def test_of_a_stopped_process_no_answer_is_awaited(start, ask, monkeypatch):
    victim = start("turning")
    os.kill(victim.pid, signal.SIGSTOP)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    code, _, err = ask("dump", "--pid", victim.pid)

    assert code == 1
    assert err.startswith(
        f"asked pid {victim.pid} for a dump; its hook looks every three seconds ...\n"
    )
    assert "has not looked" in err


@pytest.mark.skipif(
    not find_py_spy("auto") or levers.ptrace_hindrance() is not None,
    reason="py-spy is not here, or may not look",
)
@pytest.mark.parametrize("what", ["holds_interpreter", "unwatched"])
def test_py_spy_shows_what_no_hook_can(start, ask, what, monkeypatch):
    monkeypatch.setattr(request, "LEAST", 0.2)
    monkeypatch.setattr(request, "LATE", 0.5)
    victim = start(what)

    code, out, _ = ask("dump", "--pid", victim.pid)

    assert code == 0
    assert f"Stacks of pid {victim.pid} by py-spy:" in out
    assert "watched.py" in out
    assert "tests.victims" not in out  # its command line


def test_a_hook_that_leaves_meanwhile_is_not_waited_for(start):
    victim = start("turning")
    os.kill(victim.pid, signal.SIGSTOP)
    (one,) = pulses.of(victim.pid, write=True)
    asked = request.Request(one)
    why: list[BaseException] = []

    def asks() -> None:
        try:
            asked.answer()
        except request.Unanswered as error:
            why.append(error)

    asking = threading.Thread(target=asks)
    asking.start()
    victim.close()
    asking.join()

    assert "has ended, or is not watched any more" in str(why[0])

"""The children of a process, and what each of them waits on: against real children that really wait."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from watchdog_hook.evidence import blocked, family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.linux

VICTIM = Path(__file__).parent.parent / "victims" / "family.py"
KNOWN_MACHINE = pytest.mark.skipif(
    not blocked.NAMES, reason="the numbers of system calls of this machine are not known"
)


class Victim:
    """A process with children that is asked what it sees of them."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(VICTIM), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        self.words: dict[int, str] = {
            int(pid): word for pid, word in json.loads(self._line()).items()
        }

    def look(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write("look\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._line())
        return answer

    def until(self, settled: Callable[[dict[str, dict[str, Any]]], bool]) -> dict[str, Any]:
        """Look until it is so; return the children by their words."""
        while True:
            answer = self.look()
            children = {
                self.words.get(child["pid"], "further down"): child for child in answer["children"]
            }
            if len(children) >= len(set(self.words.values())) and settled(children):
                return children

    def close(self) -> None:
        self.process.communicate(timeout=30)

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the victim ended"
        return line


@pytest.fixture
def victim() -> Iterator[Callable[..., Victim]]:
    made: list[Victim] = []

    def make(*words: str) -> Victim:
        made.append(Victim(*words))
        return made[-1]

    yield make
    for each in made:
        each.close()


@KNOWN_MACHINE
class TestNeverWakes:
    def test_a_child_that_waits_for_a_lock_it_inherited_never_wakes(self, victim):
        children = victim("after=0.2", "lock").until(
            lambda children: children["lock"]["never_wakes"]
        )

        assert children["lock"]["waits"] == "futex"
        assert children["lock"]["threads"] == 1
        assert children["lock"]["state"] == "sleeping"

    @pytest.mark.parametrize(
        ("word", "waits"),
        [
            ("timed", "futex with a timeout"),
            ("across", "futex shared with other processes"),
            ("sleep", ("clock_nanosleep", "select", "pselect6")),
            ("read", "read on a pipe"),
            ("recv", "recvfrom on tcp 127.0.0.1:"),
            ("worked", "futex"),
            ("thread", "futex"),
            ("program", "futex"),
        ],
    )
    def test_a_child_that_can_wake_is_not_said_to_be_stuck(self, victim, word, waits):
        # One has worked for longer than this before it waited.
        below = "below=0.2" if word == "worked" else "below=5"
        asked = victim("after=0.2", below, word, "lock")
        ready = {"thread": 2}.get(word, 1)

        # Once the other one is known to be stuck, this one would be too.
        children = asked.until(
            lambda children: (
                children["lock"]["never_wakes"]
                and (children[word]["waits"] or "").startswith(waits)
                and children[word]["threads"] == ready
                and children[word]["age_s"] > 0.2
            )
        )

        assert not children[word]["never_wakes"]
        assert not any(
            child["never_wakes"]
            for child in asked.look()["children"]
            if asked.words[child["pid"]] == word
        )

    def test_a_busy_child_runs(self, victim):
        children = victim("after=0", "busy").until(lambda children: children["busy"]["cpu_s"] > 0.1)

        assert children["busy"]["state"] == "running"
        assert children["busy"]["waits"] is None
        assert not children["busy"]["never_wakes"]

    def test_a_child_that_was_only_just_forked_may_still_go_on(self, victim):
        children = victim("after=1000", "lock").until(
            lambda children: children["lock"]["waits"] == "futex"
        )

        assert not children["lock"]["never_wakes"]

    def test_a_grandchild_is_measured_by_its_own_parent(self, victim):
        asked = victim("after=0.2", "grandchild")
        children = asked.until(
            lambda children: children.get("further down", {}).get("never_wakes", False)
        )

        assert children["further down"]["parent"] == children["grandchild"]["pid"]
        assert children["grandchild"]["waits"].startswith("wait4 for")
        assert not children["grandchild"]["never_wakes"]


class TestStates:
    def test_a_stopped_child_and_a_zombie_are_called_so(self, victim):
        asked = victim("after=0", "stopped", "zombie")
        children = asked.until(
            lambda children: (
                children["stopped"]["state"] == "stopped"
                and children["zombie"]["state"] == "zombie"
            )
        )

        assert children["zombie"]["waits"] is None
        assert not any(child["never_wakes"] for child in children.values())
        os.kill(children["stopped"]["pid"], signal.SIGCONT)

    def test_a_process_without_children_has_none(self):
        code = "from watchdog_hook.evidence import family; print(family.children({}))"
        out = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )

        assert out.stdout.strip() == "((), 0)"


class TestRoles:
    def test_a_process_of_multiprocessing_has_its_class_and_name(self, victim):
        asked = victim("watcher", "ended", "sleep")
        children = asked.until(lambda children: children["ended"]["state"] == "zombie")

        assert children["watcher"]["name"] == "KubernetesJobWatcher"
        assert children["ended"]["name"] == "short"
        assert children["sleep"]["name"].startswith("python")

    def test_asking_for_roles_reaps_nobody(self, victim):
        asked = victim("ended")
        asked.until(lambda children: children["ended"]["state"] == "zombie")
        for _ in range(10):
            answer = asked.look()

        assert [child["state"] for child in answer["children"]] == ["zombie"]

    def test_a_manager_is_named(self):
        code = """
            import multiprocessing, os
            from watchdog_hook.evidence import family
            if __name__ == "__main__":
                manager = multiprocessing.get_context("fork").Manager()
                print([child.name for child in family.children({})[0]])
                manager.shutdown()
        """
        import textwrap

        out = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert out.stdout.strip() == "['SyncManager-1']"


class TestMany:
    def test_of_many_children_the_first_are_shown_and_the_others_counted(self, victim):
        asked = victim("sleep*230")
        while True:
            answer = asked.look()
            waiting = [child for child in answer["children"] if child["waits"]]
            if len(waiting) == family.SHOWN or answer["missed"]:
                break

        print(f"200 of 230 sleeping children in {1000 * answer['took']:.1f} ms, {answer['missed']}")
        assert len(answer["children"]) == 200
        assert answer["more"] == 30

    def test_no_time_left_means_less_is_known_and_that_is_said(self, monkeypatch):
        monkeypatch.setattr(family, "LOOK_FOR", -1.0)
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        try:
            missed: dict[str, str] = {}
            state = ""
            while state != "sleeping":
                found, _ = family.children(missed)
                state, waits = next(
                    (each.state, each.waits) for each in found if each.pid == child.pid
                )
        finally:
            child.communicate(timeout=30)

        assert waits is None
        assert "waits of children" in missed


def test_where_system_calls_are_not_to_be_seen_the_kernel_function_is_named(monkeypatch):
    monkeypatch.setattr(blocked, "read", lambda pid, missed: None)
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    waits = ""
    try:
        while "pipe" not in waits:
            found, _ = family.children({})
            waits = next(each.waits for each in found if each.pid == child.pid) or ""
    finally:
        child.communicate(timeout=30)


@pytest.mark.skipif(sys.byteorder != "little", reason="written down on a little-endian machine")
@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0100007F:01BB", "127.0.0.1:443"),
        ("0000000000000000FFFF00000100007F:1F90", "[::ffff:127.0.0.1]:8080"),
    ],
)
def test_addresses_are_read_as_the_kernel_writes_them(text, address):
    assert blocked._address(text) == address


def test_another_process_that_is_gone_is_no_child():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()

    assert family.read_stat(child.pid) is None
    assert blocked.read(child.pid, {}) is None


def test_a_name_with_blanks_and_brackets_is_read_right():
    def named() -> None:
        with contextlib.suppress(OSError), open("/proc/thread-self/comm", "w") as file:
            file.write("a) b (c")
        there.set()
        over.wait()

    there, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=named, daemon=True)
    thread.start()
    assert there.wait(20)
    found = family.read_stat(thread.native_id)
    over.set()
    thread.join()

    assert found is not None
    assert found.name == "a) b (c"
    assert found.parent == os.getppid()

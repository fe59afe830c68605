"""A process that watches, seen by its parent through shared memory: real forks, sockets and signals."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from watchdog_hook import Config, Watchdog, fork
from watchdog_hook.actions import end_child
from watchdog_hook.evidence import family
from watchdog_hook.integrations.airflow import watchers as of_airflow
from watchdog_hook.integrations.airflow.watcher_marks import Marks, leave
from watchdog_hook.integrations.airflow.watchers import Watchers
from watchdog_hook.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from watchdog_hook.core.observed import Watcher

pytestmark = [
    pytest.mark.linux,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

FORK = multiprocessing.get_context("fork")
SPAWN = multiprocessing.get_context("spawn")
LATER = 10_000.0  # seconds; every limit but that of a read without a timeout is far below
READINTO, CONNECT = socket.SocketIO.readinto, socket.socket.connect


class _Watching:
    """What a KubernetesJobWatcher does: it connects, reads line by line, and hands on what it reads."""

    def __init__(self, port: int, timeout: float | None, namespace: str = "here") -> None:
        super().__init__()
        self.port, self.timeout, self.namespace = port, timeout, namespace

    def run(self) -> None:
        """Watch until the server has enough; 3 says that a read timed out, 4 that nothing was heard of it."""
        try:
            self._run()
        except TimeoutError as error:
            os._exit(3 if "timed out" in str(error) else 4)

    def _run(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.settimeout(self.timeout)
            for line in connection.makefile("rb"):
                self.process_status(line)
                if line == b"fork\n" and os.fork() == 0:
                    self._run()
                    os._exit(0)

    def process_status(self, line: bytes) -> None:
        """Take an event."""
        if line == b"sleep\n":
            time.sleep(77)
        if line == b"wait\n":
            os.read(os.pipe()[0], 1)  # as for the lock of a log handler
        if line == b"fail\n":
            raise TimeoutError("of the watcher itself")


class Watching(_Watching, FORK.Process):  # type: ignore[misc, name-defined]
    """Forked."""


class Spawned(_Watching, SPAWN.Process):  # type: ignore[misc, name-defined]
    """Started anew."""


class Scheduler:
    """Holds watchers as the provider's AirflowKubernetesScheduler does, and asks for them as that one."""

    def __init__(self, port: int, timeout: float | None, kind: Any = Watching) -> None:
        self.port, self.timeout, self.kind = port, timeout, kind
        self.kube_watchers: dict[str, Any] = {}

    def start(self, namespace: str = "here") -> Any:
        self.kube_watchers[namespace] = self._make_kube_watcher(namespace)
        return self.kube_watchers[namespace]

    def _make_kube_watcher(self, namespace: str) -> Any:
        watcher = self.kind(self.port, self.timeout, namespace)
        watcher.start()
        return watcher

    def sync(self) -> None:
        """Start what has ended anew."""
        for namespace, watcher in self.kube_watchers.items():
            if not watcher.is_alive():
                self.kube_watchers[namespace] = self._make_kube_watcher(namespace)


class Stage:
    """A server, a scheduler with its watcher, and the dog that follows it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(30)
        self.clock = ManualClock(time.monotonic())
        self.dog = Watchdog(Config(incident_dir=str(folder), **settings), clock=self.clock)
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.dog.say = lambda _, event, **facts: self.said.append((event, facts))  # type: ignore[method-assign]
        self.watchers = Watchers(self.dog)
        self.watchers._kind = Watching
        self.dog.on_forget(self.watchers.forget)
        fork.watch(self.dog)
        self.peers: list[socket.socket] = []
        self.schedulers: list[Scheduler] = []

    def watch(
        self, timeout: float | None = 25.0, kind: Any = Watching, namespace: str = "here"
    ) -> Scheduler:
        """Start a watcher, and return once it has connected."""
        scheduler = self.scheduler(timeout, kind)
        scheduler.start(namespace)
        self.accept()
        return scheduler

    def scheduler(self, timeout: float | None = 25.0, kind: Any = Watching) -> Scheduler:
        """Return one whose watchers are followed."""
        scheduler = Scheduler(self.server.getsockname()[1], timeout, kind)
        self.schedulers.append(scheduler)
        make: Any = scheduler._make_kube_watcher
        follow: Any = lambda namespace: self.watchers._make(make, scheduler, (namespace,), {})  # noqa: E731
        scheduler._make_kube_watcher = follow  # type: ignore[method-assign]
        return scheduler

    def accept(self) -> None:
        self.peers.append(self.server.accept()[0])

    def send(self, line: bytes) -> None:
        self.peers[-1].sendall(line)

    def now(self) -> Watcher:
        """Return what the parent knows of the watcher at this moment."""
        self.clock.jump(time.monotonic() - self.clock.now())
        (found,) = self.watchers.of(_Executor(self.schedulers[-1]))
        return found

    def until(self, condition: Callable[[Watcher], object]) -> Watcher:
        """Ask until it is so."""
        end = time.monotonic() + 30
        while not condition(found := self.now()):
            assert time.monotonic() < end, found
        return found

    def later(self, seconds: float = LATER) -> list[tuple[str, dict[str, Any]]]:
        """Look two times, after so long in which nobody was paused; return what was said."""
        self.said.clear()
        self.clock.jump(seconds)
        self.look()
        self.clock.jump(of_airflow.LOOK_EVERY)
        return self.look()

    def look(self) -> list[tuple[str, dict[str, Any]]]:
        """Look once; return what was said since `later` began."""
        self.watchers._next_look = 0.0
        self.watchers.tick(self.clock.now())
        assert not self.dog.fail.off
        return self.said

    def close(self) -> None:
        fork._watched.discard(self.dog)
        for scheduler in self.schedulers:
            for process in scheduler.kube_watchers.values():
                process.kill()
                process.join(20)
        for peer in (*self.peers, self.server):
            peer.close()


class _Executor:
    def __init__(self, scheduler: Scheduler) -> None:
        self.kube_scheduler = scheduler


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    made: list[Stage] = []

    def make(**settings: Any) -> Stage:
        made.append(Stage(tmp_path, **settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


def reads(watcher: Watcher) -> bool:
    return watcher.doing == "read"


class TestMarks:
    def test_a_read_that_waits_is_seen_with_its_age_and_its_timeout(self, stage):
        at = stage()
        at.watch(timeout=25.0)
        first = at.until(reads)
        at.until(lambda watcher: watcher.silent_s > 0.2)

        assert first.timeout_s == 25.0
        assert first.watches == 1
        assert first.heard_s is None
        assert at.now().age_s >= at.now().silent_s

    def test_a_read_without_a_timeout_is_said_to_have_none(self, stage):
        at = stage()
        at.watch(timeout=None)

        assert at.until(reads).timeout_s is None

    def test_a_pause_between_two_tries_is_seen_with_its_length(self, stage):
        at = stage()
        at.watch()
        at.send(b"sleep\n")

        assert at.until(lambda watcher: watcher.doing == "sleep").timeout_s == 77
        assert at.later(150) == []
        assert [event for event, _ in at.later(20)] == ["watcher_silent"]

    def test_a_wait_that_is_neither_is_not_taken_for_the_read_before(self, stage):
        at = stage()
        at.watch()
        at.send(b"wait\n")
        found = at.until(lambda watcher: watcher.heard == 1 and watcher.silent_s > 0.2)

        assert found.doing is None
        assert [event for event, _ in at.later(95)] == ["watcher_silent"]
        assert at.said[0][1]["doing"] == "neither reads nor connects"

    def test_a_byte_begins_the_read_anew_and_a_line_is_an_event(self, stage):
        at = stage()
        at.watch()
        at.until(reads)
        marks = at.watchers._kept[at.schedulers[-1].kube_watchers["here"]].marks
        before = marks.sign_at
        at.send(b"half ")
        assert at.until(lambda watcher: reads(watcher) and marks.sign_at > before).heard == 0
        at.send(b"a line\nanother\n")

        found = at.until(lambda watcher: watcher.heard == 2)
        assert found.heard_s < 30

    def test_what_the_watcher_does_and_raises_is_as_without_us(self, stage):
        at = stage()
        timed_out = at.watch(timeout=0.05).kube_watchers["here"]
        timed_out.join(20)
        assert timed_out.exitcode == 3
        failed = at.watch().kube_watchers["here"]
        at.send(b"fail\n")
        failed.join(20)
        assert failed.exitcode == 4
        ended = at.watch().kube_watchers["here"]
        at.peers[-1].close()
        ended.join(20)
        assert ended.exitcode == 0

    def test_in_the_parent_nothing_is_patched_but_where_watchers_are_made(self, stage):
        at = stage()
        at.watch()
        at.until(reads)

        assert socket.SocketIO.readinto is READINTO
        assert socket.socket.connect == CONNECT
        assert "watcher_marks" not in Watching._run.__code__.co_filename

    def test_a_child_of_the_watcher_leaves_no_marks(self, stage):
        at = stage()
        at.watch()
        at.send(b"fork\n")
        at.accept()  # the grandchild's connection
        parent = at.peers[0]
        before = at.until(lambda watcher: reads(watcher) and watcher.heard == 1)
        mark = at.watchers._kept[at.schedulers[-1].kube_watchers["here"]].marks.sign_at
        at.send(b"for the grandchild\n")
        at.peers[-1].shutdown(socket.SHUT_WR)
        assert at.peers[-1].recv(1) == b""  # it has read all, and is gone

        assert at.watchers._kept[at.schedulers[-1].kube_watchers["here"]].marks.sign_at == mark
        parent.sendall(b"for the watcher\n")
        assert at.until(lambda watcher: watcher.heard > before.heard).watches == 1

    def test_another_fork_of_the_same_moment_is_no_watcher(self, stage):
        at = stage()
        marks = at.watchers._expect()
        codes = []

        def forks() -> None:
            pid = os.fork()
            if pid == 0:
                os._exit(0 if socket.SocketIO.readinto is READINTO else 1)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        thread = threading.Thread(target=forks)
        thread.start()
        thread.join(20)

        assert codes == [0]
        assert marks.sign_at == 0

    def test_where_processes_are_spawned_nothing_is_known_and_nothing_breaks(self, stage):
        at = stage()
        scheduler = at.watch(kind=Spawned)
        at.send(b"an event\n")
        stopped = scheduler.kube_watchers["here"]
        os.kill(stopped.pid, signal.SIGSTOP)

        assert at.now().pid == stopped.pid
        assert at.now().silent_s is None
        assert at.later() == []
        os.kill(stopped.pid, signal.SIGCONT)
        at.peers[-1].close()
        stopped.join(20)
        assert stopped.exitcode == 0

    def test_a_mistake_of_ours_does_not_reach_the_watcher(self):
        """A page that cannot be written, and a socket that cannot be asked."""

        class Watches:
            def _run(self) -> str:
                return "watched"

        def check() -> None:
            marks = Marks()
            leave(marks, Watches)
            marks.numbers.release()
            near, far = socket.socketpair()
            far.sendall(b"x\n")
            line = near.makefile("rb").readline()
            os._exit(0 if (line, Watches()._run()) == (b"x\n", "watched") else 1)

        process = FORK.Process(target=check)
        process.start()
        process.join(20)
        assert process.exitcode == 0


class TestSilence:
    def test_a_stopped_watcher_is_reported_and_left_alone(self, stage):
        at = stage()
        stopped = at.watch().kube_watchers["here"]
        at.until(reads)
        os.kill(stopped.pid, signal.SIGSTOP)
        _wait_for_state(stopped.pid, "stopped")
        ((event, facts),) = at.later()

        assert event == "watcher_silent"
        assert facts["pid"] == stopped.pid
        assert facts["state"] == "stopped"
        assert facts["silent_s"] > LATER
        assert facts["timeout_s"] == 25.0
        assert facts["action"] == "none"
        assert "restart_watchers" in facts["outcome"]
        assert stopped.is_alive()
        os.kill(stopped.pid, signal.SIGCONT)
        at.send(b"x\n")
        at.until(lambda watcher: watcher.heard == 1)
        at.said.clear()
        ((event, facts),) = at.look()
        assert (event, facts["outcome"]) == ("watcher_back", "by itself")

    def test_what_the_kernel_says_it_waits_for_is_told(self, stage):
        at = stage()
        at.watch()
        at.until(reads)
        ((_, facts),) = at.later()

        assert facts["waits"].endswith(f"tcp 127.0.0.1:{at.server.getsockname()[1]}") or facts[
            "waits"
        ] in ("ppoll", "poll")
        assert facts["doing"] == "read"

    def test_an_idle_watch_without_a_timeout_has_an_hour_and_a_half(self, stage):
        at = stage()
        at.watch(timeout=None)
        at.until(reads)

        assert at.later(5000) == []
        assert [event for event, _ in at.later(1000)] == ["watcher_silent"]

    @pytest.mark.parametrize(
        ("namespace", "where", "asked", "told"),
        [
            ("here", "here", 0.5, True),
            ("here", "here", -60.0, False),  # its event came before the answer did
            ("here", "there", 0.5, False),
            ("ALL_NAMESPACES", "there", 0.5, True),
        ],
    )
    def test_a_pod_that_was_made_and_not_heard_of_shortens_that(
        self, stage, namespace, where, asked, told
    ):
        at = stage()
        scheduler = at.watch(timeout=None, namespace=namespace)
        at.send(b"an event\n")
        at.until(lambda watcher: reads(watcher) and watcher.heard == 1)
        recovery = SimpleNamespace(
            events={},
            creation=SimpleNamespace(made={where: (at.clock.now() + asked, at.clock.now() + 1)}),
        )
        at.dog.host.kubernetes = SimpleNamespace(of={scheduler: recovery}.get)

        assert at.later(80) == []
        assert [event for event, _ in at.later(20)] == ["watcher_silent"] * told

    def test_time_in_which_nothing_ran_is_no_silence(self, stage):
        at = stage()
        at.watch()
        at.until(reads)
        at.clock.jump(LATER)
        at.dog._lateness.paused(at.clock.now(), LATER)

        assert at.later(0.1) == []

    def test_while_the_executors_end_nobody_is_judged(self, stage):
        at = stage(restart_watchers=True)
        at.watch()
        at.until(reads)
        at.dog.ending = True

        assert at.later() == []


class TestEnding:
    def test_a_silent_watcher_is_ended_and_the_executor_starts_another(self, stage):
        at = stage(restart_watchers=True)
        scheduler = at.watch()
        at.until(reads)
        first = scheduler.kube_watchers["here"]
        os.kill(first.pid, signal.SIGSTOP)
        ((_, facts),) = at.later()

        assert facts["action"] == "kill -9"
        assert facts["outcome"] == "its executor starts a new one"
        _wait_for_state(first.pid, "zombie")  # not reaped: that is the executor's
        assert at.later() == []
        scheduler.sync()
        at.accept()
        assert scheduler.kube_watchers["here"] is not first
        assert first.exitcode == -signal.SIGKILL
        at.until(reads)
        at.said.clear()
        ((event, facts),) = at.look()
        assert (event, facts["outcome"]) == ("watcher_back", "a new one was started")
        assert facts["before"] == first.pid

    def test_one_that_can_never_wake_is_ended(self, stage, monkeypatch):
        monkeypatch.setattr(family, "NEVER_WAKES_AFTER", 0.0)
        held = threading.Lock()
        monkeypatch.setattr(Watching, "run", lambda _: held.acquire())
        at = stage(restart_watchers=True)
        scheduler = at.scheduler()
        with held:
            stuck = scheduler.start()
            end = time.monotonic() + 30
            while not family.one(stuck.pid).never_wakes:
                assert time.monotonic() < end
        at.now()
        ((_, facts),) = at.later(of_airflow.watchers.LEAST + 1)

        assert facts["never_wakes"]
        assert facts["waits"] == "futex"
        assert facts["action"] == "kill -9"
        _wait_for_state(stuck.pid, "zombie")

    @pytest.mark.parametrize(
        ("settings", "outcome"),
        [
            ({"restart_watchers": False}, "restart_watchers = True"),
            ({"restart_watchers": True, "interrupt": "off"}, "only observes"),
        ],
    )
    def test_without_leave_it_is_only_told(self, stage, settings, outcome):
        at = stage(**settings)
        watcher = at.watch().kube_watchers["here"]
        at.until(reads)
        ((_, facts),) = at.later()

        assert facts["action"] == "none"
        assert outcome in facts["outcome"]
        assert watcher.is_alive()

    def test_while_the_loop_stands_it_waits(self, stage):
        at = stage(restart_watchers=True)
        watcher = at.watch().kube_watchers["here"]
        at.until(reads)
        at.dog._stalls.episode = object()
        ((_, facts),) = at.later()
        assert facts["action"] == "kill -9 later"
        assert watcher.is_alive()
        at.dog._stalls.episode = None
        ((_, facts),) = at.later(of_airflow.LOOK_EVERY)

        assert facts["action"] == "kill -9"
        _wait_for_state(watcher.pid, "zombie")

    def test_one_that_a_debugger_holds_waits(self, stage, monkeypatch):
        at = stage(restart_watchers=True)
        watcher = at.watch().kube_watchers["here"]
        at.until(reads)
        one = family.one
        monkeypatch.setattr(family, "one", lambda pid: replace(one(pid), state="tracing-stop"))
        ((_, facts),) = at.later()
        assert facts["action"] == "kill -9 later"
        assert watcher.is_alive()
        monkeypatch.undo()
        ((_, facts),) = at.later(of_airflow.LOOK_EVERY)

        assert facts["action"] == "kill -9"

    @pytest.mark.parametrize("what", ["another start time", "no start time", "another holder"])
    def test_any_other_process_than_the_one_meant_is_left_alone(self, stage, monkeypatch, what):
        at = stage(restart_watchers=True)
        scheduler = at.watch()
        watcher = scheduler.kube_watchers["here"]
        at.until(reads)
        kept = at.watchers._kept[watcher]
        if what == "another start time":
            kept.started += 1
        elif what == "no start time":
            kept.started = None
        else:
            # The executor lets go of it in the very moment in which we have decided.
            end = end_child.end

            def later(pid: int, is_the_one: Callable[[], bool]) -> str:
                scheduler.kube_watchers.clear()
                return end(pid, is_the_one)

            monkeypatch.setattr(end_child, "end", later)
        ((_, facts),) = at.later()

        assert facts["action"] == "none"
        assert facts["outcome"].startswith("left alone")
        assert watcher.is_alive()
        assert [event for event, _ in at.later()] in ([], ["watcher_silent"])
        assert watcher.is_alive()
        scheduler.kube_watchers["here"] = watcher

    def test_it_is_ended_only_as_long_as_it_shows_no_sign(self, stage, monkeypatch):
        at = stage(restart_watchers=True)
        watcher = at.watch().kube_watchers["here"]
        at.until(reads)
        end = end_child.end

        def later(pid: int, is_the_one: Callable[[], bool]) -> str:
            at.send(b"at last\n")
            at.until(lambda watcher: watcher.heard == 1)
            return end(pid, is_the_one)

        monkeypatch.setattr(end_child, "end", later)
        ((_, facts),) = at.later()

        assert facts["outcome"].startswith("left alone")
        assert watcher.is_alive()

    def test_a_process_that_is_gone_is_said_to_be(self):
        process = FORK.Process(target=lambda: None)
        process.start()
        process.join(20)

        assert end_child.end(process.pid, lambda: True) == "it is gone"


def _wait_for_state(pid: int, state: str) -> None:
    end = time.monotonic() + 30
    while (child := family.one(pid)) is None or child.state != state:
        assert time.monotonic() < end, child

"""Files and records with real locks, pipes, forks and disks."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import platform
import re
import shutil
import socket
import stat
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.victims import seccomp
from watchdog_hook import Config, Watchdog, errand
from watchdog_hook.actions import directory, record, voice
from watchdog_hook.actions.meter import Meter
from watchdog_hook.actions.record import Recorder
from watchdog_hook.actions.voice import StandardError, Voice
from watchdog_hook.core.model import Finding, Frame, Incident, Sample, Snapshot, ThreadStack
from watchdog_hook.errand import Errands
from watchdog_hook.ports import Host

if TYPE_CHECKING:
    from collections.abc import Iterator

WALL = 1_795_391_631.0
NAMES = ["dump.txt", "faulthandler.txt", "incident.json"]


def refuse(*_: object) -> int:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def incident(incident_id: str, **changes: Any) -> Incident:
    stack = ThreadStack(1, "MainThread", (Frame("read", "/x.py", 1),))
    return Incident(
        id=incident_id,
        host="here",
        pid=1,
        began=WALL,
        first_dump=WALL,
        silence_s=30.0,
        phase="a phase",
        finding=Finding("unknown", "low", "It waits."),
        snapshot=Snapshot((stack,)),
    ).evolve(**changes)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Pipe:
    """A pipe that plays standard error."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()
        os.set_blocking(self.read, False)

    def text(self) -> str:
        data = b""
        while True:
            try:
                data += os.read(self.read, 1 << 16)
            except BlockingIOError:
                return data.decode()

    def fill(self) -> None:
        os.set_blocking(self.write, False)
        try:
            while os.write(self.write, b"-" * 4096):
                pass
        except BlockingIOError:
            pass
        os.set_blocking(self.write, True)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    os.close(made.read)
    os.close(made.write)


class Lines(logging.Handler):
    """Keeps records. Its lock can be held, as a stuck thread would hold it."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.arrived = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.arrived.set()

    @property
    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records]

    @contextmanager
    def held(self, mouth: Voice) -> Iterator[None]:
        """Hold its lock. As long as that is held the mouth soon gives it up, and never before or after."""
        holds, free = threading.Event(), threading.Event()

        def hold() -> None:
            with self.lock:  # type: ignore[union-attr]
                holds.set()
                free.wait()

        thread = threading.Thread(target=hold, daemon=True)
        thread.start()
        assert holds.wait(20)
        usual, mouth._errands._patience = mouth._errands._patience, 0.3
        try:
            yield
        finally:
            mouth._errands._patience = usual
            free.set()
            thread.join(20)


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    logger = logging.getLogger("watchdog_hook")
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before[0])
    logger.propagate = before[1]


@pytest.fixture
def mouth(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> Iterator[Voice]:
    monkeypatch.setattr(voice, "LOG_PATIENCE", 20.0)
    monkeypatch.setattr(voice, "WRITE_PATIENCE", 20.0)
    made = Voice(stderr_fd=pipe.write)
    yield made
    made.close()


class TestVoice:
    def test_a_record_goes_to_the_log_and_nowhere_else(self, mouth, lines, pipe):
        mouth.say("ERROR", "watchdog_hook: event=dump 100%\n second line", wait=True)

        (record,) = lines.records
        assert record.getMessage() == "watchdog_hook: event=dump 100%\n second line"
        assert (record.name, record.levelname, record.threadName) == (
            "watchdog_hook",
            "ERROR",
            "watchdog-hook",
        )
        assert pipe.text() == ""

    def test_records_keep_their_order_without_waiting(self, mouth, lines):
        for number in range(50):
            mouth.say("INFO", str(number))
        mouth.say("INFO", "last", wait=True)

        assert lines.texts == [*map(str, range(50)), "last"]

    def test_a_level_that_is_off_is_not_logged_and_not_written(self, mouth, lines, pipe):
        mouth.say("DEBUG", "quiet", wait=True)

        assert (lines.records, pipe.text()) == ([], "")

    def test_a_held_handler_lock_cannot_silence_it(self, mouth, lines, pipe):
        with lines.held(mouth):
            mouth.say("WARNING", "before")
            mouth.say("ERROR", "the dump", wait=True)

            assert pipe.text() == "before\nthe dump\n"

    def test_while_the_log_is_stuck_texts_go_straight_to_standard_error(self, mouth, lines, pipe):
        with lines.held(mouth):
            mouth.say("ERROR", "one", wait=True)
            threads = threading.active_count()
            for text in ("two", "three"):
                mouth.say("ERROR", text, wait=True)

            assert pipe.text() == "one\ntwo\nthree\n"
            assert threading.active_count() <= threads
            assert not mouth.working()

    def test_the_log_is_used_again_when_it_comes_free(self, mouth, lines, pipe):
        with lines.held(mouth):
            mouth.say("ERROR", "one", wait=True)
        assert lines.arrived.wait(20)
        while mouth._errands.away():
            pass
        mouth.say("ERROR", "two", wait=True)

        assert lines.texts == ["one", "two"]
        assert pipe.text() == "one\n"

    def test_an_unwaited_text_that_got_stuck_is_written_when_settled(self, mouth, lines, pipe):
        with lines.held(mouth):
            mouth.say("WARNING", "stall_began")
            while not mouth._errands.lost():
                pass
            mouth.settle()

            assert pipe.text() == "stall_began\n"

    def test_a_handler_that_raises_stops_nobody(self, mouth, lines, monkeypatch):
        monkeypatch.setattr(logging, "raiseExceptions", False)
        monkeypatch.setattr(lines, "handle", lambda record: 1 / 0)
        mouth.say("ERROR", "one", wait=True)
        monkeypatch.undo()
        mouth.say("ERROR", "two", wait=True)

        assert lines.texts == ["two"]

    def test_urgent_goes_past_the_log(self, mouth, lines, pipe):
        mouth.urgent("now")

        assert pipe.text() == "now\n"
        assert lines.records == []

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_forked_child_says_its_own(self, mouth, lines, pipe):
        with lines.held(mouth):
            mouth.say("ERROR", "parent", wait=True)
            child = os.fork()
            if child == 0:
                try:
                    mouth.reset_after_fork()
                    lines.createLock()
                    mouth._errands._patience = 20.0
                    mouth.say("ERROR", "child", wait=True)
                    os._exit(0 if lines.texts == ["child"] else 1)
                finally:
                    os._exit(2)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class TestStandardError:
    def test_a_full_pipe_is_given_up_and_its_flags_are_left_alone(self, mouth, pipe, monkeypatch):
        monkeypatch.setattr(voice, "WRITE_PATIENCE", 0.3)
        pipe.fill()
        mouth.urgent("lost")

        assert os.get_blocking(pipe.write)
        pipe.text()
        mouth.urgent("heard")
        assert pipe.text() == "heard\n"

    def test_so_is_one_that_cannot_be_opened_anew(self, pipe, monkeypatch):
        monkeypatch.setattr(voice, "WRITE_PATIENCE", 0.3)
        monkeypatch.setattr(voice, "_own_opening", lambda fd: (os.dup(fd), True))
        stderr = StandardError(pipe.write)
        stderr._errands._patience = 20.0  # the thread may take its time to begin
        stderr.write("x" * 100_000)

        assert 0 < len(pipe.text()) <= 100_001
        stderr.close()

    def test_a_long_text_arrives_whole_when_somebody_reads(self, pipe, monkeypatch):
        monkeypatch.setattr(voice, "WRITE_PATIENCE", 20.0)
        stderr = StandardError(pipe.write)
        got: list[bytes] = []

        def read() -> None:
            os.set_blocking(pipe.read, True)
            while not b"".join(got[-2:]).endswith(b"end\n"):
                got.append(os.read(pipe.read, 1000))

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        stderr.write("x" * 300_000 + "end")
        reader.join(20)

        assert b"".join(got) == b"x" * 300_000 + b"end\n"
        stderr.close()

    def test_a_pipe_without_a_reader_costs_nothing(self):
        read, write = os.pipe()
        stderr = StandardError(write)
        os.close(read)
        stderr.write("nobody")
        stderr.close()
        os.close(write)

    def test_a_closed_descriptor_costs_nothing(self):
        read, write = os.pipe()
        os.close(read)
        os.close(write)
        stderr = StandardError(write)
        stderr.write("nobody")
        stderr.close()
        stderr.write("nobody")

    @pytest.mark.linux
    def test_a_full_disk_behind_it_costs_nothing(self):
        with open("/dev/full", "wb") as full:
            stderr = StandardError(full.fileno())
            stderr.write("nobody")
            stderr.close()

    def test_a_file_is_shared_in_order(self, tmp_path):
        with open(tmp_path / "err", "wb", buffering=0) as file:
            stderr = StandardError(file.fileno())
            file.write(b"host 1\n")
            stderr.write("ours")
            file.write(b"host 2\n")
            stderr.close()

        assert (tmp_path / "err").read_text() == "host 1\nours\nhost 2\n"

    def test_a_socket_that_is_full_is_given_up(self, monkeypatch):
        monkeypatch.setattr(voice, "WRITE_PATIENCE", 0.3)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            stderr = StandardError(ours.fileno())
            stderr.write("heard")
            assert theirs.recv(100) == b"heard\n"

            stderr.write("x" * 10_000_000)
            stderr.close()
            assert os.get_blocking(ours.fileno())


class TestErrands:
    def test_a_lost_errand_holds_up_nobody_and_is_not_joined_by_another(self):
        errands = Errands("errand", 0.2)
        free, ran = threading.Event(), []

        assert not errands.send(lambda: bool(free.wait()))
        assert errands.lost()
        assert not errands.send(lambda: ran.append(1))
        free.set()
        errands._patience = 20.0
        while errands.away():
            pass
        assert errands.send(lambda: ran.append(2))
        assert ran == [2]

    def test_an_errand_that_raises_has_come_back(self):
        errands = Errands("errand", 20.0)

        assert errands.send(lambda: print(1 / 0))
        assert not errands.working()


class TestMeter:
    def test_a_backend_that_never_returns_holds_up_nobody(self):
        """As one may that stands on a lock of the very thread that is stuck."""
        meter, free, sent = Meter(), threading.Event(), []
        meter.add(free.wait)
        meter.add(lambda: sent.append(1))
        meter.settle()
        meter.settle()

        assert meter.working()
        assert sent == []
        free.set()
        while meter.working():
            pass
        assert sent == [1]

    def test_a_watchdog_whose_metrics_are_stuck_still_dumps(self, tmp_path: Path):
        free, entered = threading.Event(), threading.Event()

        class Stuck(Host):
            def gauge(self, name: str, value: float) -> None:
                entered.set()
                free.wait()

        config = Config(
            poll_interval=0.05,
            sample_after=0.2,
            dump_after=0.4,
            startup_grace=0,
            interrupt="off",
            incident_dir=str(tmp_path),
        )
        with Watchdog(config, host=Stuck()) as dog:
            dog.beat()
            assert entered.wait(20)
            while not list(tmp_path.glob("*/incident.json")):
                pass
            free.set()

    def test_a_forked_child_sends_nothing_of_its_parents(self):
        meter = Meter()
        meter.add(lambda: os.write(2, b"sent"))
        meter.reset_after_fork()
        meter.settle()

        assert not meter.working()


class TestRecorder:
    @pytest.fixture
    def recorder(self, tmp_path: Path) -> Recorder:
        return Recorder(tmp_path / "logs" / "watchdog_hook", host="here")

    def test_an_incident_has_its_folder_and_files(self, recorder):
        first = recorder.new_id(WALL)
        folder = recorder.write(incident(first), "the dump")

        assert first == f"20261122T235351Z-here-{os.getpid()}-1"
        assert recorder.new_id(WALL).endswith("-2")
        assert folder == recorder.path(first)
        assert names(folder) == NAMES
        assert (folder / "dump.txt").read_text() == "the dump\n"
        assert json.loads((folder / "incident.json").read_text())["id"] == first
        assert "most recent call first" in (folder / "faulthandler.txt").read_text()
        assert recorder.trouble() is None

    def test_nobody_else_may_read_it(self, recorder):
        before = os.umask(0)
        try:
            folder = recorder.write(incident(recorder.new_id(WALL)), "x")
            recorder.update(incident(folder.name), "y")
        finally:
            os.umask(before)

        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}

    def test_an_update_appends_what_changed_and_replaces_the_json(self, recorder):
        folder = recorder.write(incident(recorder.new_id(WALL)), "first")
        recorder.update(incident(folder.name), "second")
        recorder.update(incident(folder.name, ended=WALL + 60))

        assert (folder / "dump.txt").read_text() == "first\n\nsecond\n"
        assert (
            json.loads((folder / "incident.json").read_text())["ended"]
            == "2026-11-22T23:54:51.000Z"
        )
        assert names(folder) == NAMES
        assert recorder.trouble() is None

    def test_texts_from_outside_go_through_the_mask(self, tmp_path):
        recorder = Recorder(tmp_path, host="here", mask=lambda text: text.replace("secret", "***"))
        folder = recorder.write(
            incident(recorder.new_id(WALL), phase="a secret phase"), "masked by its writer"
        )

        assert json.loads((folder / "incident.json").read_text())["phase"] == "a *** phase"

    def test_a_directory_that_cannot_be_written_is_said_once(self, tmp_path):
        (tmp_path / "file").write_text("")
        recorder = Recorder(tmp_path / "file" / "logs", host="here")

        assert recorder.write(incident(recorder.new_id(WALL)), "x") is None
        trouble = recorder.trouble()
        assert str(tmp_path / "file") in trouble
        assert "Not a directory" in trouble
        assert recorder.write(incident(recorder.new_id(WALL)), "x") is None
        recorder.update(incident("x"), "y")
        assert recorder.trouble() is None

    def test_a_disk_that_hangs_holds_up_nobody(self, recorder, monkeypatch):
        folder = recorder.write(incident(recorder.new_id(WALL)), "x")
        monkeypatch.setattr(recorder._errands, "_patience", 0.2)
        (folder / "dump.txt").unlink()
        os.mkfifo(folder / "dump.txt")
        recorder.update(incident(folder.name), "nobody reads")

        assert "has not answered" in recorder.trouble()
        assert recorder.write(incident(recorder.new_id(WALL)), "x") is None
        assert recorder.trouble() is None
        assert not recorder.working()
        with open(folder / "dump.txt"):
            pass
        while recorder._errands.lost():
            pass

    def test_a_thread_that_cannot_be_had_is_not_told_as_a_disk_that_hangs(
        self, recorder, monkeypatch
    ):
        def refused(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refused)
        monkeypatch.setattr(errand, "_spares", [])  # another test's
        assert recorder.write(incident(recorder.new_id(WALL)), "x") is None

        assert "written under" in (trouble := recorder.trouble())
        assert "no thread can be started" in trouble
        assert "answered" not in trouble

    def test_only_the_files_that_could_not_be_written_are_named(self, recorder, monkeypatch):
        """And each of them, though their troubles come together."""
        monkeypatch.setattr(record.os, "memfd_create", refuse)
        monkeypatch.setattr(record, "SHARED_MEMORY", "/nowhere")
        folder = recorder.write(incident(recorder.new_id(WALL)), "x")
        (folder / "dump.txt").unlink()
        (folder / "dump.txt").mkdir()
        recorder.update(incident(folder.name), "y")
        trouble = recorder.trouble()

        assert names(folder) == ["dump.txt", "incident.json"]
        assert (
            f"faulthandler.txt cannot be written under {recorder.path('x').parent}: no memory"
            in trouble
        )
        assert "dump.txt cannot be written under" in trouble
        assert "incident" not in trouble.replace(str(recorder.path("x").parent), "")

    @pytest.mark.linux
    def test_without_memfd_create_faulthandlers_text_is_written_all_the_same(self, tmp_path):
        if platform.machine() not in seccomp.MEMFD_CREATE:
            pytest.skip(f"the number of memfd_create on {platform.machine()} is not known here")
        out = _python(
            """
            import os, sys
            from tests.integration.test_record import WALL, Recorder, incident, platform, seccomp
            seccomp.refuse(seccomp.MEMFD_CREATE[platform.machine()])
            try:
                os.memfd_create("none")
            except PermissionError:
                print("refused")
            recorder = Recorder(sys.argv[1], host="here")
            print(recorder.write(incident(recorder.new_id(WALL)), "x"))
            print(recorder.trouble())
            """,
            str(tmp_path),
        ).splitlines()

        assert (out[0], out[2]) == ("refused", "None")
        assert names(Path(out[1])) == NAMES
        assert "most recent call first" in (Path(out[1]) / "faulthandler.txt").read_text()

    def test_the_stack_of_the_writing_thread_is_the_callers_own_business(self, recorder):
        assert not recorder.working()
        recorder.reset_after_fork()
        assert recorder.write(incident(recorder.new_id(WALL)), "x")


class TestFlameGraph:
    SAMPLES = tuple(Sample(15.0 + n, (Frame("a_secret_function", "/x.py", n),)) for n in range(9))

    def sampled(self, recorder: Recorder) -> Incident:
        one = incident(recorder.new_id(WALL))
        return one.evolve(snapshot=replace(one.snapshot, samples=self.SAMPLES))

    def test_samples_are_drawn_in_a_file_of_their_own(self, tmp_path):
        recorder = Recorder(tmp_path, host="here")
        folder = recorder.write(self.sampled(recorder), "x")

        assert names(folder) == [*NAMES, "speedscope.json"]
        assert stat.S_IMODE((folder / "speedscope.json").stat().st_mode) == 0o600
        (stall,) = json.loads((folder / "speedscope.json").read_text())["profiles"]
        assert stall["weights"] == [1.0] * 8 + [0.0]

    def test_it_is_masked_as_all_files_are(self, tmp_path):
        recorder = Recorder(tmp_path, host="here", mask=lambda text: text.replace("secret", "***"))
        folder = recorder.write(self.sampled(recorder), "x")

        assert "secret" not in (folder / "speedscope.json").read_text()
        assert "a_***_function" in (folder / "speedscope.json").read_text()

    def test_an_update_leaves_it_as_it_was(self, tmp_path):
        recorder = Recorder(tmp_path, host="here")
        one = self.sampled(recorder)
        folder = recorder.write(one, "x")
        before = (folder / "speedscope.json").read_bytes()
        recorder.update(one.evolve(ended=WALL + 60), "y")

        assert names(folder) == [*NAMES, "speedscope.json"]
        assert (folder / "speedscope.json").read_bytes() == before

    def test_one_that_does_not_fit_is_removed_and_the_rest_stays(self, tmp_path):
        code = """
            import resource, sys
            from tests.integration.test_record import Recorder, TestFlameGraph, record
            recorder = Recorder(sys.argv[1], host="here")
            one = TestFlameGraph().sampled(recorder)
            record.speedscope.chunks = lambda incident: iter(["x" * 10_000] * 10)
            resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))
            print(recorder.write(one, "small"))
            print(recorder.trouble())
        """
        out = _python(code, str(tmp_path)).splitlines()

        assert names(Path(out[0])) == NAMES
        assert "File too large" in out[1]


class TestFullDisk:
    def test_what_does_not_fit_is_removed_and_the_rest_stays(self, tmp_path):
        """A limit on file sizes fails a write half-way, as a full disk does, and needs no privilege."""
        code = """
            import resource, sys
            from tests.integration.test_record import WALL, Recorder, incident
            recorder = Recorder(sys.argv[1], host="here")
            big = incident(recorder.new_id(WALL))
            resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))
            print(recorder.write(big, "x" * 100_000))
            print(recorder.trouble())
            print(recorder.write(incident(recorder.new_id(WALL)), "small") is not None, recorder.trouble())
            small = incident(recorder.new_id(WALL))
            folder = recorder.write(small, "first")
            recorder.update(small, "y" * 100_000)
            print(repr((folder / "dump.txt").read_text()))
        """
        out = _python(code, str(tmp_path)).splitlines()

        folder = Path(out[0])
        assert "File too large" in out[1]
        assert names(folder) == ["faulthandler.txt", "incident.json"]
        assert out[2] == "True None"
        assert out[3] == r"'first\n'"

    @pytest.mark.linux
    def test_on_a_disk_that_is_full_nothing_is_left(self, tmp_path):
        if os.geteuid() != 0 or _mount(tmp_path) != 0:
            pytest.skip("a small disk can only be mounted by root")
        try:
            fill(tmp_path / "ballast")
            recorder = Recorder(tmp_path, host="here")
            folder = recorder.write(incident(recorder.new_id(WALL)), "x" * 10_000)

            assert folder is None
            assert "No space left on device" in recorder.trouble()
            assert names(tmp_path) == ["ballast"]
        finally:
            subprocess.run(["umount", str(tmp_path)], check=True)


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def _mount(path: Path) -> int:
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)]
    try:
        return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode
    except OSError:
        return 1


class TestRetention:
    def old(self, directory: Path, count: int, host: str = "here", size: int = 10) -> list[str]:
        made = []
        for number in range(count):
            folder = directory / f"20250101T0000{number:02}Z-{host}-1-{number}"
            folder.mkdir()
            (folder / "dump.txt").write_bytes(b"x" * size)
            made.append(folder.name)
        return made

    def test_the_oldest_of_this_host_go_first(self, tmp_path):
        mine, other = self.old(tmp_path, 5), self.old(tmp_path, 5, "there")
        recorder = Recorder(tmp_path, retention=3, host="here")
        new = recorder.write(incident(recorder.new_id(WALL)), "x")

        assert names(tmp_path) == sorted([*mine[3:], *other, new.name])

    def test_size_counts_too(self, tmp_path):
        mine = self.old(tmp_path, 5, size=300_000)
        recorder = Recorder(tmp_path, max_mb=1, host="here")
        new = recorder.write(incident(recorder.new_id(WALL)), "x")

        assert names(tmp_path) == sorted([*mine[2:], new.name])

    def test_an_open_incident_stays_until_it_has_ended(self, tmp_path):
        recorder = Recorder(tmp_path, retention=1, host="here")
        ids = [recorder.new_id(WALL + number) for number in range(3)]
        for incident_id in ids:
            recorder.write(incident(incident_id), "x")
        assert names(tmp_path) == sorted(ids)

        recorder.update(incident(ids[0], ended=WALL))
        recorder.update(incident(ids[1], ended=WALL))
        last = recorder.write(incident(recorder.new_id(WALL + 9)), "x")

        assert names(tmp_path) == sorted([ids[2], last.name])

    def test_one_that_another_process_removes_meanwhile_is_no_trouble(self, tmp_path, monkeypatch):
        mine = self.old(tmp_path, 5)
        recorder = Recorder(tmp_path, retention=3, host="here")
        real = directory.prune

        def late(path: Path, pattern: re.Pattern[str], *rest: Any) -> None:
            class Meanwhile:
                """Looked at for the first time, the oldest is gone."""

                def fullmatch(self, name: str) -> re.Match[str] | None:
                    shutil.rmtree(path / mine[0], ignore_errors=True)
                    return pattern.fullmatch(name)

            real(path, Meanwhile(), *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(record, "prune", late)
        new = recorder.write(incident(recorder.new_id(WALL)), "x")

        assert recorder.trouble() is None
        assert names(tmp_path) == sorted([*mine[3:], new.name])

    def test_that_old_ones_cannot_be_removed_is_said_as_that(self, tmp_path, monkeypatch):
        monkeypatch.setattr(record, "prune", refuse)
        recorder = Recorder(tmp_path, host="here")

        assert recorder.write(incident(recorder.new_id(WALL)), "x") is not None
        assert "old incidents cannot be removed under" in (trouble := recorder.trouble())
        assert "written" not in trouble

    def test_what_is_not_an_incident_is_left_alone(self, tmp_path):
        recorder = Recorder(tmp_path / "logs", retention=0, host="here")
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious" / "file").write_text("x")
        (tmp_path / "logs").mkdir()
        (tmp_path / "logs" / "notes").mkdir()
        (tmp_path / "logs" / "20250101T000000Z-here-1-1").symlink_to(tmp_path / "precious")
        recorder.write(incident(recorder.new_id(WALL)), "x")

        assert (tmp_path / "precious" / "file").exists()
        assert {"notes", "20250101T000000Z-here-1-1"} <= set(names(tmp_path / "logs"))


class TestLinks:
    def test_a_link_in_place_of_the_folder_is_not_followed(self, tmp_path):
        recorder = Recorder(tmp_path / "logs", host="here")
        (tmp_path / "precious").mkdir()
        (tmp_path / "logs").mkdir()
        incident_id = recorder.new_id(WALL)
        recorder.path(incident_id).symlink_to(tmp_path / "precious")

        assert recorder.write(incident(incident_id), "x") is None
        recorder.update(incident(incident_id), "y")
        assert recorder.trouble()
        assert names(tmp_path / "precious") == []

    def test_a_link_in_place_of_a_file_is_not_followed(self, tmp_path):
        recorder = Recorder(tmp_path / "logs", host="here")
        folder = recorder.write(incident(recorder.new_id(WALL)), "x")
        (tmp_path / "precious").write_text("precious")
        for name in ("dump.txt", "incident.json"):
            (folder / name).unlink()
            (folder / name).symlink_to(tmp_path / "precious")
        recorder.update(incident(folder.name), "y")

        assert (tmp_path / "precious").read_text() == "precious"
        assert recorder.trouble()


def test_with_the_log_stuck_the_dump_still_reaches_standard_error_and_the_files(
    mouth, lines, pipe, tmp_path
):
    recorder = Recorder(tmp_path, host="here")
    with lines.held(mouth):
        one = incident(recorder.new_id(WALL))
        folder = recorder.write(one, "everything")
        mouth.urgent("watchdog_hook: event=dump")
        mouth.say("ERROR", "watchdog_hook: event=dump\n the stack", wait=True)

        assert (folder / "dump.txt").read_text() == "everything\n"
        assert pipe.text() == "watchdog_hook: event=dump\nwatchdog_hook: event=dump\n the stack\n"


def _python(code: str, *arguments: str) -> str:
    path = os.pathsep.join(
        [str(Path(record.__file__).parents[2]), *(path for path in sys.path if path)]
    )
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": path},
    ).stdout

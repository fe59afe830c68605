"""Who speaks, and what it says, when the watchdog itself is silent: one real process for each cause."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests import run
from tests.integration import swap
from tests.integration.silence import Silent, lives, patiently, silent
from watchdog_hook.actions.record import Recorder, host_in_ids
from watchdog_hook.cli import store
from watchdog_hook.sentinel import proc, pulse, start
from watchdog_hook.sentinel import report as reports
from watchdog_hook.sentinel.judge import Verdict
from watchdog_hook.sentinel.life import Life
from watchdog_hook.sentinel.mouth import Mouth
from watchdog_hook.sentinel.pulse import started
from watchdog_hook.sentinel.record import Files
from watchdog_hook.sentinel.report import Report
from watchdog_hook.sentinel.start import find_py_spy
from watchdog_hook.sentinel.watch import Sentinel

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.linux,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

RECORD = re.compile(
    r"watchdog_hook: event=backstop (?:incident=(?P<id>\S+) )?silent_s=(?P<s>[\d.]+).* cause=(?P<cause>\w+)"
)
FRAME = "  {} ({}:"
ALONE = "Stack (most recent call first)"


# What may rightly be told first where the machine has too much to do: the sentinel looks again.
BUSY = {"starved", "unknown"}


def report(victim: Silent, cause: str, *before: str) -> str:
    """
    Return the log once the sentinel has told that cause; print who spoke after how long.

    Until then it has told none but those of a busy machine, and the ones of `before`.
    """

    def told() -> list[re.Match[str]]:
        return [*RECORD.finditer(victim.log())]

    def causes() -> list[str]:
        return [found["cause"] for found in told()]

    patiently(lambda: cause in causes(), lambda: f"{cause} in\n{victim.log()}")
    first = causes().index(cause)
    found = told()[first]
    print(f"{sys.version_info[:2]}: {cause} told by the sentinel after {found['s']} s")
    assert {*causes()[:first]} <= {*BUSY, *before}, victim.log()
    return victim.log()


def no_incident_of(victim: Silent, cause: str) -> None:
    """Assert that no report of that cause has begun an incident; one that was told before it may have."""
    began: dict[str, str] = {}
    for found in RECORD.finditer(victim.log()):
        if found["id"]:
            began.setdefault(found["id"], found["cause"])

    assert cause not in began.values(), victim.log()
    assert {path.name for path in victim.incidents.glob("*")} <= {*began}, victim.log()


# A dump of the watchdog's own is not asked for, and has to come before the end by its option's check.
ENDING = {"terminate_after": 3, "dump_after": 2.9, "sample_after": 0.3, "interrupt_after": 1}


@pytest.mark.parametrize("threads", [1, 150])
@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("regex", "The loop's thread computes in C and keeps the interpreter"),
        ("pydll", "A call into C sleeps and keeps the interpreter"),
    ],
)
def test_a_held_interpreter_is_told_with_the_loops_stack(tmp_path, kind, sentence, threads):
    with silent(tmp_path, kind, threads) as victim:
        victim.tell()
        report(victim, "gil_held")
        folder, data = victim.incident("gil_held")
        log = victim.wait_log("files: ")

        assert sentence in log
        assert FRAME.format(kind, str(ROOT / "tests/victims/silent.py")) in log
        assert data["verdict"]["id"] == "gil_held"
        assert data["threads"][0]["native_id"] == victim.pid
        assert kind in [frame["function"] for frame in data["threads"][0]["frames"]]
        before, *texts = (folder / "faulthandler.txt").read_text().split(ALONE)
        counts = [text.count("hread 0x") for text in texts]
        # The loop's thread by itself; then all, of which faulthandler takes the hundred newest. One that the
        # watchdog has sent on an errand may stand among them. Each report appends.
        assert before == ""
        assert min(threads + 1, 100) <= next(filter(None, counts), 0) <= min(threads + 3, 100)


def test_the_incident_of_the_sentinel_is_one_that_the_command_line_shows(tmp_path):
    with silent(tmp_path, "pydll") as victim:
        victim.tell()
        report(victim, "gil_held")
        folder, _ = victim.incident("gil_held")
        stored = store.load(folder)

        assert stored.damage == ()
        assert stored.incident is not None
        assert stored.incident.snapshot.threads[0].frames[0].function == "pydll"
        assert store.names(victim.incidents) == [folder.name]
        assert [oct(path.stat().st_mode & 0o777) for path in (folder, folder / "dump.txt")] == [
            "0o700",
            "0o600",
        ]


def test_an_incident_of_the_sentinel_is_never_taken_for_one_of_the_watchdog(tmp_path):
    # Both are made in the same second where the watchdog wakes while the sentinel speaks.
    theirs = Files(str(tmp_path), host_in_ids(), os.getpid(), 5)
    recorder = Recorder(tmp_path)
    ids = [theirs.new_id(1.0) for _ in range(3)]
    for each in ids:
        assert theirs.write(each, {"dump.txt": "one\n"}) is None

    assert not {*ids} & {recorder.new_id(1.0) for _ in range(30)}
    assert recorder.of_this_host(100) == sorted(ids, reverse=True)


def old(directory: Path, host: str, count: int) -> list[str]:
    names = [f"2026010{number + 1}T000000Z-{host}-7-1" for number in range(count)]
    for name in names:
        (directory / name).mkdir()
        (directory / name / "dump.txt").write_text("old\n")
    return names


def test_of_the_old_incidents_only_those_of_this_host_are_counted_and_removed(tmp_path):
    """Where one host's name is that of another and a number, as StatefulSets have it."""
    mine, others = old(tmp_path, "scheduler", 3), old(tmp_path, "scheduler-2", 6)
    files = Files(str(tmp_path), "scheduler", 7, 3)
    new = files.new_id(1790000000.0)

    assert files.write(new, {"dump.txt": "one\n"}) is None
    assert sorted(os.listdir(tmp_path)) == sorted([*mine[1:], *others, new])


def test_an_old_incident_that_cannot_be_removed_says_nothing_of_the_new_one(tmp_path):
    mine = old(tmp_path, "scheduler", 6)
    (tmp_path / mine[0] / "core").mkdir()
    files = Files(str(tmp_path), "scheduler", 7, 3)
    new = files.new_id(1790000000.0)

    assert files.write(new, {"dump.txt": "one\n"}) is None
    assert sorted(os.listdir(tmp_path)) == [mine[0], *mine[4:], new]


def test_the_next_process_says_that_its_predecessor_ended_in_such_a_silence(tmp_path):
    with silent(tmp_path, "pydll") as victim:
        victim.tell()
        report(victim, "gil_held")
        folder, _ = victim.incident("gil_held")
    (tmp_path / "next").mkdir()
    incidents = str(victim.incidents)
    with silent(tmp_path / "next", "beating", incident_dir=incidents, poll_interval=0.02) as after:
        after.tell()
        log = after.wait_log("event=unfinished ")

        assert f"incident={folder.name} " in log
        assert "cause=gil_held" in log
        patiently(lambda: victim.incident()[1]["ended"], "the end in the file")


def test_a_directory_is_the_one_that_the_watched_process_means(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    with silent(tmp_path, "pydll", incident_dir=f"{tmp_path.name}/incidents") as victim:
        victim.tell()
        victim.wait_log("event=backstop ")
        folder, _ = victim.incident()

        assert f"files: {folder}" in victim.log()


def test_a_module_beside_the_package_does_not_take_the_place_of_pythons_own(tmp_path, monkeypatch):
    # As the old backports of enum and typing would, which may be installed there.
    (tmp_path / "watchdog_hook").symlink_to(ROOT / "watchdog_hook")
    for name in ("mmap", "struct", "json"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('another {name}')")
    monkeypatch.setattr(start, "__file__", str(tmp_path / "watchdog_hook/sentinel/start.py"))
    page, text = pulse.Pulse.shared(), os.memfd_create("text")
    page.numbers[pulse.BACKSTOP_AFTER] = 60
    try:
        start.start(page.fd, text, (str(tmp_path), "host", "1", ""))
        sentinel = patiently(lambda: page.words[pulse.SENTINEL], "the sentinel")
    finally:
        page.words[pulse.MARK] = 0
        page.close()
        os.close(text)
    patiently(lambda: not lives(sentinel), "its end")


def test_when_the_watchdog_wakes_it_says_what_the_sentinel_saw(tmp_path):
    with silent(tmp_path, "pydll") as victim:
        victim.tell()
        report(victim, "gil_held")
        folder, data = victim.incident("gil_held")
        assert data["ended"] is None
        victim.tell()
        log = victim.wait_log("event=backstop_ended ")

        line = log[log.index("watchdog_hook: event=backstop_ended") :].splitlines()[0]
        assert f"incident={folder.name} " in line
        assert line.rpartition(" cause=")[2] in {"gil_held", *BUSY}
        assert log.count("event=backstop_ended") == 1
        patiently(lambda: victim.incident()[1]["ended"], "the end in the file")


def test_a_long_silence_is_told_again_once_per_doubling(tmp_path):
    with silent(tmp_path, "pydll") as victim:
        victim.tell()
        report(victim, "gil_held")
        told = patiently(
            lambda: [*RECORD.finditer(victim.log())][2:] and [*RECORD.finditer(victim.log())],
            "three reports",
        )

        assert float(told[1]["s"]) >= 3
        assert float(told[2]["s"]) >= 6
        assert len({found["id"] for found in told if found["id"]}) == 1


class Slow(Report):
    """Takes so long over the first answer that the process comes back meanwhile."""

    def __init__(self, victim: Silent, page: pulse.Pulse, text: int, files: Files) -> None:
        super().__init__(page, Life(victim.pid, 0), text, files, "", Mouth())
        self._wake = victim.tell

    def _wait_for_text(self, before: int, number: int) -> bool:
        tick = self._pulse.numbers[pulse.TICK_AT]
        self._wake()
        patiently(lambda: self._pulse.numbers[pulse.TICK_AT] != tick, "a tick")
        return super()._wait_for_text(before, number)


def test_a_process_that_has_come_back_is_asked_for_nothing_more(tmp_path):
    with silent(tmp_path, "pydll") as victim:
        page = pulse.of_process(victim.pid, write=True)
        assert page is not None
        text = os.open(f"/proc/{victim.pid}/fd/{page.words[pulse.BACKSTOP] - 1}", os.O_RDONLY)
        files = Files(str(tmp_path / "others"), "host", victim.pid, 5)
        held = Verdict("gil_held", "It is.", ask=True, all_threads=True, incident=True)
        victim.tell()
        patiently(lambda: time.monotonic() - page.numbers[pulse.TICK_AT] > 0.5, "the silence")
        Slow(victim, page, text, files).make(held, page.numbers[pulse.TICK_AT])
        (told,) = (tmp_path / "others").glob("*/incident.json")
        os.close(text)

        assert json.loads(told.read_text())["unavailable"][:1] == [
            {"what": "stacks of the other threads", "why": "the watchdog was back"}
        ]
        assert "hread 0x" not in told.with_name("faulthandler.txt").read_text()


def test_a_text_is_complete_only_when_its_writer_is_done_with_the_signal(tmp_path, monkeypatch):
    monkeypatch.setattr(reports, "ANSWER_PATIENCE", 20.0)
    number = signal.SIGRTMAX - 2
    os.mkfifo(tmp_path / "text")
    writing = (
        "import faulthandler, os, sys, time\n"
        "fd = os.open(sys.argv[1], os.O_RDWR | os.O_NONBLOCK)\n"
        "try:\n    while os.write(fd, b'x'):\n        pass\n"
        "except BlockingIOError:\n    os.set_blocking(fd, True)\n"
        f"faulthandler.register({number:d}, file=fd)\n"
        "print(flush=True)\ntime.sleep(600)\n"
    )

    class Grown(Report):
        looks = 0

        def _size(self) -> int:
            self.looks += 1
            if (
                self.looks == 5
            ):  # until now the pipe is full, and the writer stands in the middle of its text
                with contextlib.suppress(BlockingIOError):
                    while os.read(reading, 1 << 16):
                        pass
            return 10

    page = pulse.Pulse.shared()
    with subprocess.Popen(
        [sys.executable, "-c", writing, str(tmp_path / "text")], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        reading = os.open(tmp_path / "text", os.O_RDONLY | os.O_NONBLOCK)
        page.words[pulse.LOOP] = process.pid
        files = Files(str(tmp_path), "host", process.pid, 5)
        told = Grown(page, Life(process.pid, 0), -1, files, "", Mouth())
        os.kill(process.pid, number)
        try:
            assert told._wait_for_text(0, number)
            assert told.looks >= 5
        finally:
            process.kill()
            os.close(reading)
            page.close()


def test_a_stopped_process_is_told_as_stopped_and_not_asked(tmp_path):
    with silent(tmp_path, "beating") as victim:
        victim.tell()
        os.kill(victim.pid, signal.SIGSTOP)
        log = report(victim, "stopped")
        os.kill(victim.pid, signal.SIGCONT)
        victim.wait_log("event=backstop_ended")

        assert "It is stopped (SIGSTOP)." in log
        no_incident_of(victim, "stopped")
        victim.tell()
        assert victim.line() == "over\n"


def test_a_traced_process_is_told_as_traced(tmp_path):
    attach = (
        "import ctypes, os, sys\n"
        "libc = ctypes.CDLL(None)\n"
        "codes = [libc.ptrace(16, int(tid), 0, 0) for tid in sys.argv[1:]]\n"
        "print(max(map(abs, codes)), flush=True)\n"
        "sys.stdin.read()\n"
    )
    with silent(tmp_path, "beating") as victim:
        victim.tell()
        with subprocess.Popen(
            [sys.executable, "-c", attach, str(victim.pid), str(victim.watchdog)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as tracer:
            assert tracer.stdout is not None
            if tracer.stdout.readline() != "0\n":
                tracer.kill()
                pytest.skip("this machine lets nobody trace a process")
            log = report(victim, "traced")
            assert f"Process {tracer.pid} traces it" in log
            tracer.communicate()


def test_an_uninterruptible_sleep_is_told_with_its_thread(tmp_path):
    with silent(tmp_path, "uninterruptible") as victim:
        victim.tell()
        log = report(victim, "uninterruptible")
        victim.tell()
        victim.wait_log("event=backstop_ended")

        assert "The loop's thread is in uninterruptible sleep" in log
        no_incident_of(victim, "uninterruptible")


def test_a_dead_watchdog_of_a_silent_loop_is_told_with_the_loops_stack(tmp_path):
    with silent(tmp_path, "fault_and_silence") as victim:
        victim.tell()
        report(victim, "watchdog_gone")
        _, data = victim.incident("watchdog_gone")

        functions = [frame["function"] for frame in data["threads"][0]["frames"]]
        assert functions[0] == "fault_and_silence"
        victim.tell()
        assert victim.line() == "over\n"


def test_a_dead_watchdog_is_told_while_its_loop_beats_on(tmp_path):
    with silent(tmp_path, "fault") as victim:
        victim.tell()
        report(victim, "watchdog_gone")
        _, data = victim.incident("watchdog_gone")

        # Its loop runs Python code: to look at its stack from a signal might crash it.
        assert data["threads"] == []
        assert "loop_silent_s=0" in victim.log()
        victim.tell()
        assert victim.line() == "over\n"


def unstarved(pid: int) -> list[int]:
    """Return the threads that are scheduled like others."""
    found = []
    for tid in map(int, os.listdir(f"/proc/{pid}/task")):
        with contextlib.suppress(ProcessLookupError):
            if os.sched_getscheduler(tid) != os.SCHED_IDLE:
                found.append(tid)
    return found


def starve(tid: int, processor: int) -> None:
    """Let a thread have what others leave of one processor."""
    with contextlib.suppress(ProcessLookupError):
        os.sched_setaffinity(tid, {processor})
        os.setpriority(os.PRIO_PROCESS, tid, 19)
        os.sched_setscheduler(tid, os.SCHED_IDLE, os.sched_param(0))


@contextlib.contextmanager
def spinning(busy: int) -> Iterator[int]:
    """Yield a processor of which so many others leave nothing."""
    processor = min(os.sched_getaffinity(0))
    spin = (
        f"import os; os.sched_setaffinity(0, {{{processor}}}); os.write(1, b'!')\nwhile True: pass"
    )
    command = [sys.executable, "-I", "-S", "-c", spin]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(busy)]
    try:
        for other in others:
            assert other.stdout is not None
            with other.stdout:
                assert other.stdout.read(1) == b"!"
        yield processor
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_a_process_without_cpu_is_told_as_starved(tmp_path):
    with silent(tmp_path, "crowded") as victim, spinning(8) as processor:
        victim.tell()
        assert victim.line() == "crowded\n"
        patiently(lambda: not [starve(tid, processor) for tid in unstarved(victim.pid)], "hunger")
        log = report(victim, "starved", "gil_contended")

        assert "It gets no CPU" in log
        no_incident_of(victim, "starved")


@contextlib.contextmanager
def group(controller: str) -> Iterator[Path]:
    """Make a cgroup of version 1; skip where that is not allowed."""
    folder = Path(f"/sys/fs/cgroup/{controller}/watchdog-hook-test-{os.getpid()}")
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made in {folder.parent}: {error.strerror}")
    try:
        yield folder
    finally:
        patiently(lambda: _removed(folder), "the cgroup's end")


@contextlib.contextmanager
def inside(folder: Path, depth: int) -> Iterator[Path]:
    """Make cgroups, each in the one before."""
    if not depth:
        yield folder
        return
    child = folder / "child"
    child.mkdir()
    try:
        with inside(child, depth - 1) as innermost:
            yield innermost
    finally:
        patiently(lambda: _removed(child), "the cgroup's end")


@pytest.mark.parametrize(
    ("membership", "own"),
    [
        ("0::/kube.slice/pod/container\n", ""),
        ("3:cpu,cpuacct:/kube.slice/pod/container\n0::/\n", "cpu"),
    ],
    ids=["version 2", "version 1"],
)
def test_the_limits_above_a_process_are_read_too(tmp_path, monkeypatch, membership, own):
    for name, text in {
        "kube.slice": "usage_usec 7\nnr_periods 0\nnr_throttled 0\n",
        "kube.slice/pod": "nr_periods 50\nnr_throttled 40\nthrottled_usec 9\n",
        "kube.slice/pod/container": "usage_usec 7\n",
    }.items():
        (tmp_path / own / name).mkdir(parents=True)
        (tmp_path / own / name / "cpu.stat").write_text(text)
    read = proc._text
    monkeypatch.setattr(proc, "CGROUPS", str(tmp_path))
    monkeypatch.setattr(
        proc, "_text", lambda path: membership if path.endswith("/cgroup") else read(path)
    )

    assert list(proc.read(os.getpid(), ()).stops) == [(50, 40), (0, 0)]


def _removed(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        folder.rmdir()
    return not folder.exists()


@pytest.mark.parametrize("depth", [0, 1, 2], ids=["its own", "its parent's", "above that"])
def test_a_process_over_its_cpu_limit_is_told_as_starved_by_that(tmp_path, depth):
    with (
        group("cpu") as folder,
        inside(folder, depth) as own,
        silent(tmp_path, "crowded") as victim,
    ):
        victim.tell()
        assert victim.line() == "crowded\n"
        (folder / "cpu.cfs_period_us").write_text("300000")
        (folder / "cpu.cfs_quota_us").write_text("1000")
        (own / "cgroup.procs").write_text(str(victim.pid))
        log = report(victim, "starved", "gil_contended")
        (folder / "cpu.cfs_quota_us").write_text("-1")

        assert "its cgroup's CPU limit stopped it" in log


def test_a_frozen_cgroup_is_told_as_frozen(tmp_path):
    with group("freezer") as folder, silent(tmp_path, "beating") as victim:
        victim.tell()
        (folder / "cgroup.procs").write_text(str(victim.pid))
        (folder / "freezer.state").write_text("FROZEN")
        try:
            log = report(victim, "frozen")
        finally:
            (folder / "freezer.state").write_text("THAWED")

        assert "Its cgroup is frozen." in log


@pytest.mark.parametrize("both", [False, True], ids=["alone", "with its sentinel"])
def test_a_process_whose_memory_is_in_swap_is_told_as_swapping(tmp_path, both):
    with (
        swap.device(tmp_path) as device,
        group("memory") as memory,
        group("blkio") as blkio,
        contextlib.ExitStack() as stack,
    ):
        lists = [folder / "cgroup.procs" for folder in (memory, blkio)]
        (memory / "memory.swappiness").write_text("100")
        enter = " && ".join(f"echo $$ > {each}" for each in lists) if both else "true"
        prefix = ["sh", "-c", f'{enter} && exec "$@"', "sh"]
        victim = stack.enter_context(silent(tmp_path, "swapped", prefix=prefix))
        for each in lists:
            each.write_text(str(victim.pid))
        victim.tell()
        assert victim.line() == "heap\n"
        swap.put_out(victim.pid, memory, 60)
        with swap.slow(device, blkio):
            victim.tell()
            log = report(victim, "swapping")
        assert victim.line() == "over\n"
        victim.wait_log("event=backstop_ended")

        assert re.search(r"It waits for memory: [1-9][\d.]* pages a second have to come", log)
        assert re.search(
            r"(loop|watchdog)'s thread: state .*\n +\d\d MB of the process are in swap", log
        )
        no_incident_of(victim, "swapping")


# --- the sentinel's own life ----------------------------------------------------------------------


def test_it_is_gone_within_two_seconds_of_a_killed_process(tmp_path):
    with silent(tmp_path, "beating") as victim:
        victim.process.kill()
        victim.process.wait()
        patiently(lambda: not victim.watched(), "its end")


def test_the_end_of_a_test_run_names_what_still_runs(tmp_path):
    with silent(tmp_path, "beating") as victim:
        found = {int(text.split()[0]) for text in run.left_over(ROOT, 0)}
        assert {victim.pid, victim.sentinel} <= found
        pids = victim.pid, victim.sentinel
    assert not {int(text.split()[0]) for text in run.left_over(ROOT, 0)} & {*pids}


def test_it_goes_when_the_watchdog_is_disarmed(tmp_path):
    with silent(tmp_path, "beating") as victim:
        victim.tell()
        victim.tell()
        assert victim.line() == "over\n"
        assert victim.process.stdin is not None
        assert victim.watched()
        victim.process.stdin.close()
        patiently(lambda: not victim.watched(), "its end")


def test_one_that_comes_too_late_says_nothing(tmp_path):
    stopping = (
        "from watchdog_hook import Watchdog\n"
        "for _ in range(10):\n    dog = Watchdog(); dog.start(); dog.stop()"
    )
    done = subprocess.run(
        [sys.executable, "-c", stopping],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    )

    assert done.stderr == b""


def test_a_failure_of_its_own_is_one_line_and_the_watchdog_misses_it(tmp_path):
    with silent(tmp_path, "beating", poll_interval=0.01) as victim:
        victim.tell()
        page = pulse.of_process(victim.pid, write=True)
        assert page is not None
        page.numbers[pulse.BACKSTOP_AFTER] = float("-inf")  # a wait that no kernel knows
        log = victim.wait_log("the sentinel has ended")

        assert "part=sentinel" in log
        assert "OverflowError" in log
        assert "Traceback" not in log


def test_it_is_no_child_of_the_process_and_in_a_session_of_its_own(tmp_path):
    import psutil

    with silent(tmp_path, "beating") as victim:
        assert psutil.Process(victim.pid).children(recursive=True) == []
        assert os.getsid(victim.sentinel) not in (os.getsid(victim.pid), victim.pid)
        assert os.getpgid(victim.sentinel) != os.getpgid(victim.pid)
        kept = Path(f"/proc/{victim.sentinel}/environ").read_bytes().split(b"\0")
        assert {entry.partition(b"=")[0] for entry in kept} <= {
            b"",
            b"LD_LIBRARY_PATH",
            b"LC_CTYPE",
        }


def test_in_a_container_whose_first_process_is_watched_it_works_and_is_buried(tmp_path):
    prefix = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not make a pid namespace")
    with silent(tmp_path, "buried", prefix=prefix, contained=True, **ENDING) as victim:
        victim.tell()
        # Whose parent has gone becomes a child of process 1, and stays a zombie unless that one waits for it.
        assert victim.line() == "buried\n"
    with silent(tmp_path, "regex", prefix=prefix, contained=True, **ENDING) as victim:
        victim.tell()
        report(victim, "gil_held")
        victim.wait_log("process 1 of a container cannot be killed from inside of it")


def test_a_child_of_the_number_that_the_sentinel_had_is_the_hosts(tmp_path):
    # Not process 1 itself: of that one the sentinel would be a child.
    prefix = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not make a pid namespace")
    within = [*prefix, "sh", "-c", '"$@"; true', "sh"]
    with silent(tmp_path, "followed", prefix=within, contained=True, poll_interval=0.02) as victim:
        victim.tell()
        assert victim.line() == "it ended with 7\n"


def test_the_first_process_of_a_container_is_left_alone_where_sigabrt_has_ended_its_call(tmp_path):
    prefix = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not make a pid namespace")
    settings = {**ENDING, "terminate_after": 6}
    with silent(tmp_path, "pydll", prefix=prefix, contained=True, **settings) as victim:
        victim.tell()
        log = victim.wait_log('outcome="it goes on"')
        assert victim.line() == "over\n"

    assert "cannot be killed" not in log


def test_a_hundred_children_of_the_process_are_none_of_its_business(tmp_path):
    with silent(tmp_path, "forking") as victim:
        victim.tell()
        # Each ended through the interpreter's own end: no lock of faulthandler's timer was left in it.
        assert victim.line() == "children [0]\n"
        assert victim.watched()
        report(victim, "gil_held")


def test_a_closed_standard_error_hurts_neither(tmp_path):
    closing = ["sh", "-c", 'exec "$@" 2>&-', "sh"]
    with silent(tmp_path, "pydll", prefix=closing) as victim:
        victim.tell()
        victim.incident("gil_held")

        assert victim.watched()
        victim.tell()
        assert victim.line() == "over\n"


def test_a_standard_error_that_nobody_reads_hurts_neither(tmp_path):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    with silent(tmp_path, "pydll", stderr=writing) as victim:
        os.close(writing)
        victim.tell()
        victim.incident()
        os.close(reading)  # and now it is gone altogether
        patiently(lambda: victim.incident()[1], "the incident")
        assert victim.watched()
        victim.tell()
        assert victim.line() == "over\n"


NOBODY = """
if [ -n "$CLOSED" ]; then  # the way to this Python leads through a folder that only root may enter
    mount -t tmpfs -o mode=755 none "$SPARE" && mkdir "$SPARE/kept" && mount --bind "$CLOSED" "$SPARE/kept"
    mount -t tmpfs -o mode=755 none "$CLOSED"
    for each in "$SPARE/kept"/.[!.]* "$SPARE/kept"/*; do
        [ -d "$each" ] && mkdir "$CLOSED/${each##*/}" && mount --bind "$each" "$CLOSED/${each##*/}"
    done
fi
exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --bounding-set=-all "$@"
"""


@pytest.fixture
def nobodys() -> Iterator[tuple[Path, list[str]]]:
    """Return a folder of an unprivileged user, and how to become that one; skip where this process may not."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user; all of these tests run as this one")
    parents = reversed(Path(sys.base_prefix).parents)
    closed = next((each for each in parents if not each.stat().st_mode & 1), "")
    # Not below pytest's own folder, which every new pytest closes to others.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "spare").mkdir()
        shell = [
            "unshare",
            "--mount",
            "env",
            f"CLOSED={closed}",
            f"SPARE={folder}/spare",
            "sh",
            "-c",
            NOBODY,
            "sh",
        ]
        done = subprocess.run([*shell, sys.executable, "-c", "0"], check=False, capture_output=True)
        if done.returncode:
            pytest.skip(f"this machine lets nobody become nobody: {done.stderr!r}")
        yield folder, shell


@pytest.mark.parametrize("kind", ["regex", "pydll"])
def test_without_any_privilege_it_is_all_the_same(nobodys, kind):
    folder, prefix = nobodys
    with silent(folder, kind, prefix=prefix) as victim:
        victim.tell()
        report(victim, "gil_held")
        _, data = victim.incident("gil_held")

        assert kind in [frame["function"] for frame in data["threads"][0]["frames"]]


def test_where_proc_is_hidden_it_says_what_it_cannot_tell(tmp_path):
    hide = 'mount -t tmpfs none /proc && exec "$@"'
    prefix = ["unshare", "--mount", "sh", "-c", hide, "sh"]
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount anything over /proc")
    with silent(tmp_path, "pydll", prefix=prefix) as victim:
        victim.tell()
        log = report(victim, "hidden")

        assert "/proc does not show the process" in log
        victim.process.kill()
        victim.process.wait()
        patiently(lambda: not victim.watched(), "its end")


# --- py-spy ---------------------------------------------------------------------------------------

PY_SPY = """#!/bin/sh
{}
"""


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (None, "cannot be started (No such file or directory)"),
        ("echo 'Permission Denied: try sudo' >&2; exit 1", "Permission Denied: try sudo"),
        ("sleep 600", "py-spy did not answer within"),
        ("echo '[{\"nonsense'", "its output is not what it was"),
    ],
)
def test_a_py_spy_that_does_not_help_is_named_and_nothing_is_lost(tmp_path, script, why):
    program = tmp_path / "py-spy"
    if script is not None:
        program.write_text(PY_SPY.format(script))
        program.chmod(0o755)
    with silent(tmp_path, "pydll", py_spy=str(program)) as victim:
        victim.tell()
        report(victim, "gil_held")
        _, data = victim.incident("gil_held")

        assert [each["what"] for each in data["unavailable"]] == ["py-spy"]
        assert why in data["unavailable"][0]["why"]
        assert "pydll" in [frame["function"] for frame in data["threads"][0]["frames"]]


def test_a_py_spy_that_hangs_does_not_hold_it_up_once_the_process_has_ended(tmp_path):
    spy, began = tmp_path / "py-spy", tmp_path / "began"
    spy.write_text(f"#!/bin/sh\n: > {began}\nsleep 600\n")
    spy.chmod(0o755)
    with silent(tmp_path, "pydll", py_spy=str(spy)) as victim:
        victim.tell()
        patiently(began.exists, "py-spy")
        victim.process.kill()
        _, data = victim.incident()

        assert data["unavailable"] == [{"what": "py-spy", "why": "the process has ended"}]


def test_py_spy_is_heard_where_the_end_of_children_is_ignored(tmp_path):
    spy = tmp_path / "py-spy"
    spy.write_text("#!/bin/sh\necho '[]'\n")
    spy.chmod(0o755)
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
        " os.execv(sys.executable, sys.argv[1:])"
    )
    prefix = [sys.executable, "-c", ignoring]
    with silent(tmp_path, "pydll", prefix=prefix, py_spy=str(spy)) as victim:
        victim.tell()
        _, data = victim.incident()

        assert data["unavailable"] == []


def test_py_spys_stacks_are_kept_as_frames_and_nothing_else(tmp_path):
    program = tmp_path / "py-spy"
    program.write_text(
        PY_SPY.format(
            "pid=$(echo \"$*\" | sed 's/.*--pid //')\n"
            'echo "[{\\"os_thread_id\\": 1, \\"thread_name\\": \\"other\\", \\"frames\\": []},'
            ' {\\"os_thread_id\\": $pid, \\"owns_gil\\": true,'
            ' \\"process_info\\": {\\"command_line\\": \\"secret\\"},'
            ' \\"frames\\": [{\\"name\\": \\"inner\\", \\"filename\\": \\"f.c\\", \\"line\\": 3,'
            ' \\"locals\\": [\\"secret\\"]}]}]"'
        )
    )
    program.chmod(0o755)
    with silent(tmp_path, "pydll", py_spy=str(program)) as victim:
        victim.tell()
        report(victim, "gil_held")
        folder, data = victim.incident("gil_held")

        frame = {"function": "inner", "file": "f.c", "line": 3}
        assert data["threads"][0]["frames"] == [frame]
        assert "(holds the interpreter)" in data["threads"][0]["name"]
        assert "inner (f.c:3)" in (folder / "py-spy.txt").read_text()
        assert not any("secret" in path.read_text() for path in folder.iterdir())


def test_the_real_py_spy_adds_native_frames(tmp_path):
    program = find_py_spy("auto")
    if not program:
        pytest.skip("py-spy is not here: pip install py-spy")
    with silent(tmp_path, "pydll", py_spy=program) as victim:
        victim.tell()
        report(victim, "gil_held")
        folder, data = victim.incident("gil_held")
        if data["unavailable"]:
            pytest.skip(f"py-spy may not look here: {data['unavailable'][0]['why']}")

        functions = [frame["function"] for frame in data["threads"][0]["frames"]]
        assert (
            functions.index("pydll") > 0
        )  # below it what it called, which faulthandler does not show
        assert "pydll (" in (folder / "py-spy.txt").read_text()


# --- an end to it ---------------------------------------------------------------------------------


def test_a_process_that_cannot_end_itself_is_ended_with_a_last_dump(tmp_path):
    with silent(tmp_path, "regex", **ENDING) as victim:
        victim.tell()
        code = victim.process.wait(40)
        log = victim.log()

        assert code == -signal.SIGABRT
        assert 'action="SIGABRT, then SIGKILL"' in log
        assert log.index("event=terminate") < log.index("Fatal Python error: Aborted")
        _, data = victim.incident()
        assert [deed["deed"] for deed in data["actions"]] == ["terminate"]


class Waking(Mouth):
    """Says nothing; while it says that something will be done, the process comes back."""

    def __init__(self, victim: Silent, page: pulse.Pulse) -> None:
        super().__init__()
        self.said: list[str] = []
        self.wake = victim.tell
        self._page = page

    def say(self, line: str, further: Iterable[str] = ()) -> None:
        self.said.append(line)
        if "SIGABRT" in line:
            tick = self._page.numbers[pulse.TICK_AT]
            self.wake()
            patiently(lambda: self._page.numbers[pulse.TICK_AT] != tick, "a tick")


def test_a_process_that_comes_back_while_its_end_is_announced_is_not_ended(tmp_path):
    # A full disk, or a full standard error: the announcement may take long.
    with silent(tmp_path, "pydll", sentinel=False, **ENDING) as victim:
        page = pulse.of_process(victim.pid, write=True)
        assert page is not None
        mouth, text = Waking(victim, page), os.memfd_create("text")
        files = Files(str(tmp_path / "incidents"), "host", victim.pid, 5)
        sentinel = Sentinel(page, text, files, "", mouth)
        victim.tell()
        while not any("event=terminate" in line for line in mouth.said) and sentinel.turn():
            sentinel.look()
        os.close(text)

        assert victim.line() == "over\n"
        assert 'outcome="it goes on"' in mouth.said[-1]


SERVER = """
import sys
from tests.victims.frozen_files import Files
mounted = Files([])
print(mounted.info["folder"], flush=True)
sys.stdin.read()
mounted.close()
"""


@contextlib.contextmanager
def hung() -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """Yield a folder of a file server that does not answer; who waits for it goes on when that program ends."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        folder = server.stdout.readline().strip() if server.stdout else ""
        if not folder:
            pytest.skip(f"no file system can be mounted here: {server.communicate()[1]}")
        try:
            yield Path(folder), server
        finally:
            server.communicate()
            shutil.rmtree(folder, ignore_errors=True)  # what was written there once it was gone


def test_a_disk_that_hangs_keeps_nobody_from_ending_it(tmp_path):
    with hung() as (folder, server):
        settings = {**ENDING, "incident_dir": str(folder / "incidents")}
        with silent(tmp_path, "regex", **settings) as victim:
            try:
                victim.tell()
                log = victim.wait_log("Fatal Python error: Aborted")
            finally:
                server.communicate()  # nobody ends who waits for it, not even by SIGKILL
            code = victim.process.wait(40)

    assert code == -signal.SIGABRT
    assert "the disk has not answered" in log


def test_a_stopped_process_is_never_ended(tmp_path):
    with silent(tmp_path, "beating", **ENDING) as victim:
        victim.tell()
        os.kill(victim.pid, signal.SIGSTOP)
        victim.wait_log("event=backstop ", count=3)  # the third is long after terminate_after
        os.kill(victim.pid, signal.SIGCONT)
        victim.wait_log("event=backstop_ended")
        victim.tell()

        assert victim.line() == "over\n"
        assert "event=terminate" not in victim.log()


def test_a_loop_that_beats_is_not_ended_for_a_dead_watchdog(tmp_path):
    with silent(tmp_path, "fault", **ENDING) as victim:
        victim.tell()
        victim.wait_log("event=backstop ", count=3)
        victim.tell()

        assert victim.line() == "over\n"
        assert "event=terminate" not in victim.log()


def test_a_process_that_has_become_another_program_is_left_alone(tmp_path):
    with silent(tmp_path, "another", **ENDING) as victim:
        victim.tell()
        assert victim.line().startswith("watched ")
        victim.tell()
        patiently(lambda: not victim.watched(), "the end of the first program's sentinel")
        victim.tell()

        assert victim.line() == "over\n"
        assert "event=backstop" not in victim.log()


def test_so_is_a_program_that_catches_the_same_signals(tmp_path):
    with silent(tmp_path, "catching", **ENDING) as victim:
        victim.tell()
        patiently(lambda: not victim.watched(), "the end of the first program's sentinel")
        victim.tell()

        assert victim.line() == "over\n"
        assert "event=backstop" not in victim.log()


@pytest.mark.parametrize("kind", ["closing", "closing_early"])
def test_a_process_that_has_closed_what_it_does_not_know_is_still_ours(tmp_path, kind):
    with silent(tmp_path, kind) as victim:
        victim.tell()
        report(victim, "gil_held")
        victim.tell()
        victim.wait_log("event=backstop_ended")
        log = victim.wait_log("part=backstop")
        patiently(lambda: pulse.of_process(victim.pid), "the pulse")

        assert victim.line() == "over\n"
        assert victim.watched()
        assert log.count("event=part_off") == 1
        assert "the host has closed its descriptor" in log


def test_nothing_is_written_into_a_file_of_the_host_that_has_our_number(tmp_path):
    with silent(tmp_path, "reopening") as victim:
        victim.tell()
        report(victim, "gil_held")
        _, data = victim.incident("gil_held")
        victim.tell()
        assert victim.line() == "over\n"

    (theirs,) = tmp_path.rglob("*.theirs")
    why = "the host has closed what it is written into"
    assert theirs.read_bytes() == b""
    assert {"what": "stack of the loop's thread", "why": why} in data["unavailable"]


def test_one_that_has_closed_it_is_ended_as_any_other(tmp_path):
    with silent(tmp_path, "closing_early", **ENDING) as victim:
        victim.tell()
        assert victim.process.wait(40) == -signal.SIGABRT


def test_a_process_of_the_same_pid_is_not_taken_for_ours(tmp_path):
    from watchdog_hook.sentinel.life import Life

    with subprocess.Popen(["sleep", "600"]) as other:
        since = started(other.pid) or 0
        stranger = Life(other.pid, since - 1)
        assert not stranger.send(signal.SIGKILL)
        assert Life(other.pid, since).is_same()
        assert lives(other.pid)
        other.kill()


def test_a_process_of_the_number_of_a_thread_that_has_ended_is_not_taken_for_it(tmp_path):
    with subprocess.Popen(["sleep", "600"]) as one, subprocess.Popen(["sleep", "600"]) as other:
        life = Life(one.pid, started(one.pid) or 0)
        told = life.send(signal.SIGKILL, other.pid)
        survived = lives(other.pid)
        assert life.send(signal.SIGKILL, one.pid)
        other.kill()

    assert (told, survived) == (False, True)


def test_a_sentinel_with_nothing_to_say_has_imported_nothing_big():
    imported = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from watchdog_hook.sentinel import watch; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", imported, str(ROOT)],
        capture_output=True,
        text=True,
        check=True,
    )
    heavy = {
        "ctypes",
        "typing",
        "re",
        "enum",
        "dataclasses",
        "json",
        "subprocess",
        "signal",
        "logging",
    }

    assert heavy & set(done.stdout.split()) == set()

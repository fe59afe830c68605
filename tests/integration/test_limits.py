"""This process and its host in numbers, and collectors that do not come back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING

import pytest

from watchdog_hook.errand import Errands
from watchdog_hook.evidence import cgroup, family, limits, locks, process
from watchdog_hook.evidence.cgroup import Groups
from watchdog_hook.evidence.here import Evidence
from watchdog_hook.evidence.limited import Limited
from watchdog_hook.evidence.limits import Clocks, Since, process_facts
from watchdog_hook.evidence.stacks import OURS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.linux

psutil = limits.load_psutil()


def tree(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


class TestOwnNumbers:
    def test_what_a_process_has_grows_when_it_takes_more(self):
        # In one of its own: here other tests may have left threads and files, which come to their end meanwhile.
        code = """
            import json, os, resource, threading
            from watchdog_hook.evidence import limits

            psutil = limits.load_psutil()
            before = limits.process_facts(psutil, {})
            pipes = [os.pipe() for _ in range(20)]
            over = threading.Event()
            threading.Thread(target=over.wait).start()
            block = bytearray(os.urandom(1)) * (64 << 20)
            after = limits.process_facts(psutil, {})
            over.set()
            print(json.dumps({
                "descriptors": after.descriptors - before.descriptors,
                "threads": after.threads - before.threads,
                "memory": after.memory > before.memory + len(block) // 2,
                "limit": after.descriptor_limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0],
                "load": len(after.load),
            }))
        """
        found = json.loads(python(code))

        assert found == {"descriptors": 40, "threads": 1, "memory": True, "limit": True, "load": 3}

    def test_the_share_of_a_core_is_taken_since_an_earlier_reading(self):
        begun = (process.cpu_seconds(), time.monotonic())
        while process.cpu_seconds() - begun[0] < 0.2:
            pass
        busy = process_facts(psutil, {}, Since(cpu=begun))
        idle = process_facts(psutil, {}, Since(cpu=(busy.cpu_s, time.monotonic() - 1000)))

        assert busy.cpu_share > 0.05
        assert idle.cpu_share < 0.01
        assert process_facts(psutil, {}).cpu_share is None

    def test_a_jump_of_the_wall_clock_is_seen(self):
        now = Clocks.read()
        forward = Clocks(now.wall - 3600, now.monotonic)

        assert process_facts(psutil, {}, Since(armed=now)).clock_jump_s == pytest.approx(0, abs=0.5)
        assert process_facts(psutil, {}, Since(armed=forward)).clock_jump_s == pytest.approx(
            3600, abs=0.5
        )
        assert process_facts(psutil, {}).clock_jump_s is None

    def test_without_psutil_the_rest_is_there_and_the_reason_too(self):
        missed: dict[str, str] = {}
        facts = process_facts(None, missed, Since(late_s=3.0))

        assert (facts.memory, facts.threads, facts.descriptors) == (None, None, None)
        assert facts.cpu_s > 0
        assert facts.load is not None
        assert facts.late_s == 3.0
        assert missed["memory, threads and descriptors"] == "psutil is not installed"


class TestVersion2:
    def groups(self, tmp_path: Path, files: dict[str, str], path: str = "/pod/box") -> Groups:
        root = tree(tmp_path, {"cgroup.controllers": "cpu memory", **files})
        (tmp_path / "membership").write_text(f"0::{path}\n")
        return cgroup.groups(root, str(tmp_path / "membership"))

    def test_the_tightest_limit_of_all_groups_above_holds(self, tmp_path):
        groups = self.groups(
            tmp_path,
            {
                "pod/box/cpu.max": "max 100000\n",
                "pod/cpu.max": "150000 100000\n",
                "pod/box/memory.max": "2000\n",
                "pod/box/memory.current": "1500\n",
                "pod/memory.max": "9000\n",
                "pod/memory.current": "8999\n",
            },
        )
        facts = process_facts(psutil, {}, groups=groups)

        assert facts.cpu_limit == 1.5
        assert (facts.memory_limit, facts.memory_used) == (2000, 1500)

    def test_max_is_no_limit(self, tmp_path):
        groups = self.groups(
            tmp_path,
            {
                "pod/box/cpu.max": "max 100000\n",
                "pod/box/memory.max": "max\n",
                "pod/box/memory.current": "77\n",
            },
        )
        facts = process_facts(psutil, {}, groups=groups)

        assert (facts.cpu_limit, facts.memory_limit, facts.memory_used) == (None, None, 77)

    def test_in_a_container_the_mount_is_our_group_whatever_the_path_says(self, tmp_path):
        files = {"cpu.max": "50000 100000\n"}
        for number, path in enumerate(("/kubepods/elsewhere", "/../..")):
            groups = self.groups(tmp_path / str(number), files, path)

            assert cgroup.cpu_limit(groups) == 0.5

    def test_pressure_and_throttling_are_read_from_our_own_group(self, tmp_path):
        lines = (
            "some avg10=61.50 avg60=0.00 avg300=0.00 total=9\nfull avg10=12.25 avg60=0.0 total=3\n"
        )
        groups = self.groups(
            tmp_path,
            {
                "pod/box/memory.pressure": lines,
                "pod/box/cpu.pressure": lines,
                "pod/box/io.pressure": lines,
                "pod/box/cpu.stat": "usage_usec 5\nnr_throttled 9\nthrottled_usec 4500000\n",
            },
        )
        facts = process_facts(psutil, {}, Since(throttled_s=1.5), groups=groups)

        assert facts.pressure == (("cpu some", 61.5), ("memory full", 12.25), ("io full", 12.25))
        assert facts.throttled_s == 3.0


class TestVersion1:
    def test_limits_and_throttling_are_read_there_too(self, tmp_path):
        root = tree(
            tmp_path,
            {
                "cpu/docker/cpu.cfs_quota_us": "200000\n",
                "cpu/docker/cpu.cfs_period_us": "100000\n",
                "cpu/docker/cpu.stat": "nr_periods 4\nthrottled_time 2500000000\n",
                "memory/docker/memory.limit_in_bytes": "4096\n",
                "memory/docker/memory.usage_in_bytes": "2048\n",
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/memory.usage_in_bytes": "999999\n",
                "membership": "7:memory:/docker\n3:cpu,cpuacct:/docker\n1:name=systemd:/docker\n",
            },
        )
        facts = process_facts(
            psutil,
            {},
            Since(throttled_s=0.0),
            groups=cgroup.groups(root, f"{root}/membership"),
        )

        assert facts.cpu_limit == 2.0
        assert (facts.memory_limit, facts.memory_used) == (4096, 2048)
        assert facts.throttled_s == 2.5

    def test_no_quota_and_the_largest_number_are_no_limits(self, tmp_path):
        root = tree(
            tmp_path,
            {
                "cpu/cpu.cfs_quota_us": "-1\n",
                "cpu/cpu.cfs_period_us": "100000\n",
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/memory.usage_in_bytes": "2048\n",
                "membership": "7:memory:/\n3:cpu:/\n",
            },
        )
        groups = cgroup.groups(root, f"{root}/membership")

        assert cgroup.cpu_limit(groups) is None
        assert cgroup.memory(groups) == (None, 2048)

    def test_no_groups_at_all_are_no_limits(self, tmp_path):
        groups = cgroup.groups(str(tmp_path / "nothing"), str(tmp_path / "none"))

        assert groups == Groups()
        assert process_facts(psutil, {}, groups=groups).cpu_limit is None


class TestLimited:
    def test_one_that_hangs_is_named_and_holds_up_no_other(self, tmp_path):
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        missed: dict[str, str] = {}
        limited = Limited(missed, patience=0.05)
        started: list[int] = []
        entered = threading.Event()

        def hang() -> str:
            started.append(threading.get_ident())
            entered.set()
            return fifo.read_text()  # nobody ever writes

        found = [limited.run("fifo", hang) for _ in range(3)]
        limited._patience = 20.0  # for those that do come back
        other = limited.run("other", lambda: 17)

        assert found == [None, None, None]
        assert entered.wait(20)
        assert len(started) == 1, "one that is lost is not sent again"
        assert other == 17
        assert missed == {"fifo": "did not answer within 0.05 s"}
        names = [thread.name for thread in threading.enumerate() if thread.ident == started[0]]
        assert names == ["watchdog-hook-fifo"]

        fifo.write_text("at last")
        while limited.run("fifo", lambda: "again") != "again":
            pass
        assert missed == {}

    def test_the_thread_of_a_lost_collector_is_in_no_dump(self):
        over = threading.Event()
        limited = Limited({}, patience=0.01)
        evidence = Evidence()
        limited.run("slow", over.wait)
        shown = [stack.name for stack in evidence.stacks()]
        waits = locks.waits()
        over.set()

        assert not [name for name in shown if name.startswith("watchdog-hook")]
        assert waits == ()

    def test_one_that_fails_is_named_with_its_error(self):
        missed: dict[str, str] = {}
        limited = Limited(missed)

        assert limited.run("broken", lambda: 1 // 0) is None
        assert missed == {"broken": "failed with ZeroDivisionError"}
        assert limited.run("broken", lambda: 2) == 2
        assert missed == {}

    def test_a_child_that_was_forked_while_one_was_lost_runs_its_own(self):
        code = """
            import os, threading, warnings
            warnings.simplefilter("ignore")
            from watchdog_hook.evidence.here import Evidence
            evidence = Evidence()
            evidence._limited._patience = 0.05
            over = threading.Event()
            evidence._limited.run("slow", over.wait)
            evidence._limited._errands["slow"]._turn.acquire()
            evidence._limited._patience = 20.0
            pid = os.fork()
            if pid == 0:
                evidence.forget()
                answer = evidence._limited.run("slow", lambda: "there")
                os._exit(0 if answer == "there" else 3)
            over.set()
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """
        assert python(code).strip() == "0"


class TestObserve:
    def test_everything_is_looked_at(self):
        lock = threading.RLock()
        over = threading.Event()
        ready = threading.Event()

        def has() -> None:
            with lock:
                ready.set()
                over.wait()

        def wants() -> None:
            with lock:
                pass

        threads = [threading.Thread(target=has, name="has"), threading.Thread(target=wants)]
        threads[0].start()
        assert ready.wait(20)
        threads[1].start()
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        evidence = Evidence()
        evidence.pressure()
        since = (process.cpu_seconds(), time.monotonic() - 1)
        while True:
            observed = evidence.observe(threading.get_native_id(), since=since, late_s=0.25)
            if observed.locks:
                break
        over.set()
        for thread in threads:
            thread.join()
        child.communicate(timeout=30)

        assert [wait.owner for wait in observed.locks] == ["has"]
        assert child.pid in [each.pid for each in observed.process.children]
        assert observed.process.late_s == 0.25
        assert observed.process.cpu_share is not None
        assert observed.process.clock_jump_s == pytest.approx(0, abs=0.5)
        assert evidence.observe(None).kernel is None

    def test_a_part_that_hangs_leaves_the_others(self, monkeypatch):
        over = threading.Event()
        monkeypatch.setattr(family, "children", lambda missed: over.wait())
        evidence = Evidence()
        evidence._limited = Limited(evidence._missed, patience=0.05)
        evidence._limited._errands["children"] = Errands(OURS + "children", 0.05)
        evidence._limited._patience = 20.0  # for the others, which do come back
        observed = evidence.observe(None)
        over.set()

        assert observed.process is not None
        assert observed.process.children == ()
        assert ("children", "did not answer within 0.05 s") in evidence.unavailable()

    def test_nothing_is_opened_that_waits_for_another_process(self):
        code = """
            import os, re, subprocess, sys, time
            from watchdog_hook.evidence.here import Evidence

            child = subprocess.Popen(["sleep", "60"])
            opened = []
            sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
            evidence = Evidence()
            while not any(each.pid == child.pid and each.waits for each in
                          evidence.observe(os.getpid()).process.children):
                pass
            evidence.stacks(None)
            child.kill()
            child.wait()
            of_child = {path for path in opened if path.startswith(f"/proc/{child.pid}/")}
            print(*sorted(path.rpartition("/")[2] for path in of_child))
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            check=True,
        )

        # `cmdline`, `environ`, `maps` and `mem` wait for the memory map of the other, which may be locked.
        assert set(done.stdout.split()) <= {"stat", "syscall", "wchan", "comm"}
        assert "stat" in done.stdout.split()

    def test_throttling_is_counted_from_the_reading_before_the_silence(self):
        evidence = Evidence()
        for at, count in ((100.0, 1.0), (200.0, 2.0), (300.0, 5.0)):
            evidence._throttled.append((at, count))

        assert evidence._throttled_by((0.0, 250.0)) == 2.0
        assert evidence._throttled_by((0.0, 50.0)) == 1.0
        assert evidence._throttled_by(None) == 5.0

    def test_psutil_is_imported_when_evidence_is_made_and_not_at_a_dump(self):
        code = """
            import sys
            from watchdog_hook.evidence.here import Evidence
            before = "psutil" in sys.modules
            evidence = Evidence()
            modules = set(sys.modules)
            evidence.stacks(), evidence.observe(1), evidence.process_started(), evidence.versions()
            print(before, "psutil" in modules, sorted(set(sys.modules) - modules))
        """
        assert python(code).strip() == "False True []"


def python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    ).stdout

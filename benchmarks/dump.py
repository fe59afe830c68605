"""How long a dump takes with how many threads, and what the others notice of it; py-spy beside it."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Line, median_line, worst_line

if TYPE_CHECKING:
    from benchmarks.bench import Effort

CHECKOUT = Path(__file__).resolve().parents[1]
THREADS = (1, 100, 1000)
SWITCHES = 4 * 5.0  # ms: four times sys.getswitchinterval()


@dataclass
class Found:
    """What one process showed; all in milliseconds."""

    whole: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    quiet: list[float] = field(default_factory=list)
    spy: list[float] = field(default_factory=list)
    spy_pauses: list[float] = field(default_factory=list)


def measure_dump(effort: Effort) -> Iterator[Line]:
    """Let processes fall silent, again and again."""
    py_spy = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    for threads in THREADS:
        effort.say(f"dumps of {threads} threads")
        found = watch(threads, effort, py_spy=py_spy)
        name = f"{threads:,} thread{'s' if threads > 1 else ''}"
        yield median_line(f"{name}: from threshold to finished dump", found.whole, "ms")
        yield median_line(
            f"{name}: of it from the first stack to the last record", found.work, "ms"
        )
        yield _pause(f"{name}: longest pause of a busy thread in it", found)
        if py_spy is None:
            yield Line(f"{name}: py-spy dump", note="not measured: py-spy is not on PATH")
        elif not found.spy:
            yield Line(f"{name}: py-spy dump", note="not measured: py-spy may not trace here")
        else:
            yield median_line(f"{name}: py-spy dump, start to end", found.spy, "ms")
            yield worst_line(
                f"{name}: longest pause of a busy thread in it", found.spy_pauses, "ms"
            )
    for threads in THREADS[1:]:
        name = f"{threads:,} threads, with Airflow's secrets masker"
        if not find_spec("airflow"):
            yield Line(name, note="not measured: Airflow is not installed here")
            continue
        effort.say(f"dumps of {name}")
        found = watch(threads, effort, airflow=True)
        yield median_line(f"{name}: the work", found.work, "ms")
        yield _pause(f"{name}: pause", found)


def _pause(what: str, found: Found) -> Line:
    note = f"the same thread over as long a time without a dump: at worst {max(found.quiet):.1f} ms"
    return worst_line(what, found.pauses, "ms", SWITCHES, note)


def watch(
    threads: int, effort: Effort, *, py_spy: str | None = None, airflow: bool = False
) -> Found:
    """Have one process dump itself several times, and be dumped by py-spy."""
    found, chance = Found(), random.Random(threads)
    poll = effort(10, 2) / 10
    with tempfile.TemporaryDirectory() as folder, _crowd(threads, folder, poll, airflow) as crowd:
        for number in range(effort(12, 4)):
            time.sleep(chance.uniform(0, poll))  # so that silence begins anywhere between two looks
            crowd.tell("stall")
            times = crowd.hear()
            began, finished = times["began"], times["finished"]
            time.sleep(1.5 * poll)  # until the next look is over
            if not number:
                continue  # what the first dump imports is imported once
            found.whole.append(1000 * (finished - times["threshold"]))
            found.work.append(1000 * (finished - began))
            found.pauses.append(crowd.pause(began, finished))
            quiet = time.monotonic()
            time.sleep(min(1.0, finished - began) + 0.05)
            found.quiet.append(crowd.pause(quiet, quiet + finished - began))
        for _ in range(effort(12, 4)) if py_spy else ():
            began = time.monotonic()
            done = subprocess.run(
                [py_spy, "dump", "--pid", str(crowd.pid)], capture_output=True, check=False
            )
            ended = time.monotonic()
            if done.returncode:
                break
            time.sleep(0.05)
            found.spy.append(1000 * (ended - began))
            found.spy_pauses.append(crowd.pause(began, ended))
    return found


class _Crowd:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("answer "):
                return json.loads(line.partition(" ")[2])
        raise RuntimeError(f"the crowd ended with {self._process.wait()}")

    def pause(self, since: float, until: float) -> float:
        """Return the busy thread's longest pause in that time, in milliseconds."""
        self.tell(f"pause {since!r} {until!r}")
        return 1000 * float(self.hear())


@contextlib.contextmanager
def _crowd(threads: int, folder: str, poll: float, airflow: bool) -> Iterator[_Crowd]:
    command = [sys.executable, "-m", "benchmarks.crowd", str(threads), "--poll", str(poll)]
    command += ["--folder", folder, *(["--airflow"] if airflow else [])]
    with (
        (Path(folder) / "stderr").open("wb") as errors,
        subprocess.Popen(
            command,
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={"PATH": "/usr/bin:/bin", "HOME": folder, "AIRFLOW_HOME": folder},
        ) as process,
    ):
        crowd = _Crowd(process)
        try:
            if crowd.hear() != "ready":
                raise RuntimeError("the crowd did not start")
            yield crowd
        finally:
            process.kill()

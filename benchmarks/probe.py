"""What a Kubernetes probe costs: ours beside the one of Airflow's chart."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Line, NotMeasured, median_line

if TYPE_CHECKING:
    from benchmarks.bench import Effort

CHECKOUT = Path(__file__).resolve().parents[1]
BOUND = 100.0  # ms of processor time
LIVES = 600  # seconds, should nobody end it
WATCHED = f"""
import time
from watchdog_hook import Config, Watchdog
with Watchdog(Config()) as dog:
    print("ready", flush=True)
    end = time.monotonic() + {LIVES}
    while time.monotonic() < end:
        dog.beat()
        time.sleep(0.2)
"""


def measure_probe(effort: Effort) -> Iterator[Line]:
    """Ask about a watched loop, and ask Airflow about a scheduler's job, in processes of their own."""
    with tempfile.TemporaryDirectory() as home:
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": home,
            "AIRFLOW_HOME": home,
            "PYTHONPATH": str(CHECKOUT),
        }
        yield from _ours(effort, environment)
        try:
            yield from _airflows(effort, environment)
        except NotMeasured as why:
            yield Line(
                "airflow jobs check --job-type SchedulerJob --local", note=f"not measured: {why}"
            )


def _ours(effort: Effort, environment: dict[str, str]) -> Iterator[Line]:
    with subprocess.Popen(
        [sys.executable, "-c", WATCHED], env=environment, stdout=subprocess.PIPE
    ) as watched:
        try:
            assert watched.stdout is not None
            watched.stdout.readline()
            asks = [sys.executable, "-m", "watchdog_hook", "live", "--pid", str(watched.pid)]
            seeks = asks[:-2]
            bare = [sys.executable, "-c", "pass"]
            found = _turn_about(effort(41, 9), environment, asks, seeks, bare)
        finally:
            watched.kill()
    yield median_line("watchdog-hook live --pid PID, processor time", found[0], "ms", BOUND)
    processes = sum(name.isdigit() for name in os.listdir("/proc"))
    note = f"it looks for what is watched among {processes} processes"
    yield median_line("watchdog-hook live, processor time", found[1], "ms", BOUND, note)
    yield median_line("python -c pass", found[2], "ms")


def _airflows(effort: Effort, environment: dict[str, str]) -> Iterator[Line]:
    if not find_spec("airflow"):
        raise NotMeasured("Airflow is not installed here")
    airflow = str(Path(sys.executable).with_name("airflow"))
    # As the chart has it, but for the entry point, which only execs it.
    environment = {
        **environment,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    }
    migrated = subprocess.run(
        [airflow, "db", "migrate"], env=environment, capture_output=True, check=False
    )
    if migrated.returncode:
        raise NotMeasured("airflow db migrate failed")
    checks = [airflow, "jobs", "check", "--job-type", "SchedulerJob", "--local"]
    effort.say("airflow jobs check takes seconds")
    # There is no scheduler, so it says no: the way there is the same.
    (found,) = _turn_about(effort(11, 4), environment, checks, fine=(1,))
    yield median_line("airflow jobs check --job-type SchedulerJob --local", found, "ms")


def _turn_about(
    times: int, environment: dict[str, str], *commands: list[str], fine: tuple[int, ...] = (0,)
) -> list[list[float]]:
    """Run commands turn about; return the processor time of each run, in milliseconds."""
    found: list[list[float]] = [[] for _ in commands]
    for number in range(times):
        for place, command in enumerate(commands):
            took = _processor_ms(
                lambda command=command: (
                    subprocess.run(  # type: ignore[misc]
                        command, env=environment, capture_output=True, check=False
                    ).returncode
                ),
                fine,
            )
            if number:  # the first one may have compiled
                found[place].append(took)
    return found


def _processor_ms(run: Callable[[], int], fine: tuple[int, ...]) -> float:
    """Return what a child took, user and system."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    code = run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code not in fine:
        raise RuntimeError(f"it ended with {code} after {time.monotonic() - began:.1f} s")
    return 1000 * (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)

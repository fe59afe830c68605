"""
A real `airflow scheduler` that counts its loops: `python metered_scheduler.py OUT …`.

`--pairs N --loops M` takes the hook on and off in the same process, M loops each, and writes the
processor seconds of every loop. `--modules NAMES` imports modules, as a twin that has the libraries
and not the hook. Without either it only counts. OUT gets one JSON object a line.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import itertools
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

WARM = 15  # loops before anything is measured


class Meter:
    """Stands around `_do_scheduling`, in the scheduler's own class, under the hook's wrapper."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._out: Path = arguments.out
        self._pairs: int = arguments.pairs
        self._loops: int = arguments.loops
        self._modules: list[str] = arguments.modules
        self._switch = Switch()
        self._count = 0
        self._marks: list[float] = []
        self._watched = 0.0
        # The hook on or off, turn about: on off, off on, on off …
        self._plan = [on for pair in range(self._pairs) for on in (pair % 2 == 0, pair % 2 == 1)]

    def put_on(self, runner: type) -> None:
        """Count the loops of this class from now on."""
        scheduling = runner._do_scheduling  # type: ignore[attr-defined]

        def counted(instance: Any, *args: Any, **kwargs: Any) -> Any:
            self._count += 1
            if self._count == WARM:
                for name in self._modules:
                    importlib.import_module(name)
            if self._plan:
                self._step(instance)
            elif not self._pairs:
                self._report()
            return scheduling(instance, *args, **kwargs)

        runner._do_scheduling = counted  # type: ignore[attr-defined]

    def _step(self, runner: Any) -> None:
        past = self._count - WARM
        if past < 0:
            return
        # Two loops more than are measured: the first after a switch begins under the old state.
        place = past % (self._loops + 2)
        if place == 0:
            self._switch.turn(self._plan[0], runner)
            return
        if place == 1:
            self._marks = []
            self._watched = watchdog_seconds()
        self._marks.append(time.process_time())
        if place == self._loops + 1:
            loops = [after - before for before, after in itertools.pairwise(self._marks)]
            watching = (watchdog_seconds() - self._watched) / self._loops
            self._write({"on": self._plan.pop(0), "loops_s": loops, "watchdog_s": watching})

    def _report(self) -> None:
        if self._count == WARM + 5:
            gc.collect()
            self._write({"modules": sorted(sys.modules)})
        self._write(
            {
                "loop": self._count,
                "at": time.monotonic(),
                "cpu_s": time.process_time(),
                "watchdog_s": watchdog_seconds(),
            }
        )

    def _write(self, found: dict[str, Any]) -> None:
        with self._out.open("a") as out:
            out.write(json.dumps(found) + "\n")


def watchdog_seconds() -> float:
    """Return the processor time of the watchdog's thread so far; 0 where there is none."""
    threads = [each.ident for each in threading.enumerate() if each.name == "watchdog-hook"]
    return sum(time.clock_gettime(time.pthread_getcpuclockid(ident or 0)) for ident in threads)


class Switch:
    """Takes the whole hook on and off. Imports nothing of it before it is first put on."""

    def __init__(self) -> None:
        self._armed: Any = None

    def turn(self, on: bool, runner: Any) -> None:
        """Arm, or disarm."""
        from watchdog_hook.integrations.airflow import arming, scheduler

        if on and self._armed is None:
            self._armed = scheduler.arm(runner)
            if self._armed is None:
                raise RuntimeError("the hook did not arm")
        elif not on and self._armed is not None:
            arming.disarm(self._armed)
            self._armed = None
            gc.collect()  # as arming does, so that what comes after begins alike


def main() -> None:
    """Run the scheduler."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--pairs", type=int, default=0)
    parser.add_argument("--loops", type=int, default=40)
    parser.add_argument("--modules", nargs="*", default=[])
    arguments = parser.parse_args()

    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

    Meter(arguments).put_on(SchedulerJobRunner)
    from airflow.__main__ import main as airflow

    sys.argv = ["airflow", "scheduler", "--skip-serve-logs"]
    airflow()


if __name__ == "__main__":
    main()

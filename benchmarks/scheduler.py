"""A real scheduler with the hook and without: its processor time, and its memory."""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.calls import api_server
from benchmarks.figures import Line, NotMeasured, median_line

if TYPE_CHECKING:
    from benchmarks.bench import Effort
    from tests.e2e.scheduler import Scheduler

HERE = Path(__file__).resolve().parent
START = 180.0  # seconds until a scheduler of the twins has done its first loops
HOOK = "import watchdog_hook\n\nwatchdog_hook.install()\n"
DAG_RUNS = 16  # of three tasks each, all of them waiting for their pods
BACK_TO_BACK = 0.1  # seconds: loops and looks ten times as often as by default, both of them


def measure_scheduler(effort: Effort) -> Iterator[Line]:
    """Take the hook on and off in one scheduler, in the middle of its loop: idle, and with work."""
    yield from _on_and_off(effort, "idle", 0)
    yield from _on_and_off(effort, f"with {DAG_RUNS} DAG runs under way", DAG_RUNS)


def _on_and_off(effort: Effort, how: str, dag_runs: int) -> Iterator[Line]:
    pairs, turns, loops = effort(10, 4), effort(10, 2), effort(12, 8)
    faster = {
        "scheduler.scheduler_idle_sleep_time": BACK_TO_BACK,
        "watchdog_hook.poll_interval": BACK_TO_BACK,
    }
    with _homes(["metered"], faster) as (home,):
        effort.say(f"{how}: {pairs} pairs of twice {turns * loops} loops")
        home.release(dag_runs)
        with home.started("--pairs", str(pairs * turns), "--loops", str(loops)) as twin:
            enough = 2 * pairs * turns
            found = twin.wait(lambda lines: len(lines) >= enough, START + enough * loops)
    taken = []
    for number in range(pairs):
        # Of one pair the hook goes on and off several times, so that both sides see the same minute.
        pair = found[2 * turns * number : 2 * turns * (number + 1)]
        taken.append(
            [
                [loop for line in pair if line["on"] is on for loop in line["loops_s"]]
                for on in (True, False)
            ]
        )
    # By the median loop: the loop's own timers (a heartbeat every 5 s) fall into one stretch or another.
    by_median = [100 * (statistics.median(on) / statistics.median(off) - 1) for on, off in taken]
    by_sum = [100 * (sum(on) / sum(off) - 1) for on, off in taken]
    hooked, bare = (
        [1000 * statistics.median(each) for each in side] for side in zip(*taken, strict=True)
    )
    yield median_line(f"added to the median loop, {how}", by_median, "%", 2)
    yield median_line("  to the sum of all loops, with the loop's own timers", by_sum, "%")
    watching = [1000 * line["watchdog_s"] for line in found if line["on"]]
    yield median_line("  of it the watchdog's thread, per loop", watching, "ms")
    yield median_line("  median loop with the hook", hooked, "ms")
    yield median_line("  median loop without it", bare, "ms")


def measure_memory(effort: Effort) -> Iterator[Line]:
    """Run twins at once: with the hook, without, and without but with the libraries it imports."""
    rounds, loops = effort(5, 1), effort(45, 25)
    added, alone, libraries, cpu, watching = [], [], [], [], []
    others: list[str] = []
    with _homes(["hooked", "bare", "libraries"], {}) as homes:
        for number in range(rounds):
            effort.say(f"round {number + 1} of {rounds}: three schedulers, {loops} loops")
            with contextlib.ExitStack() as stack:
                # What the libraries are is known after the first round; before it, the twin is a bare one.
                modules = ["--modules", *others] if others else []
                twins = [
                    stack.enter_context(
                        home.started(*(modules if home.name == "libraries" else []))
                    )
                    for home in homes
                ]
                for twin in twins:
                    twin.wait(lambda lines: lines[-1].get("loop", 0) >= loops, START + 2 * loops)
                whole = [twin.memory() for twin in twins]
                own = [twin.memory(family=False) for twin in twins]
                found = [twin.lines() for twin in twins]
            added.append(whole[0] - whole[1])
            alone.append(own[0] - own[1])
            if others:
                libraries.append(whole[2] - whole[1])
            others = others or _of_others(*found[:2])
            with_hook, without = (_per_loop(lines) for lines in found[:2])
            cpu.append(100 * (with_hook / without - 1))
            watching.append(_share_of_thread(found[0]))
    packages = ", ".join(others[:6]) or "none"
    yield median_line("added to the scheduler's process, PSS", alone, "MiB", 8)
    unshared = "a full garbage collection in a forked child, where one falls due, un-shares what it inherited"
    yield median_line("added to it and its children, PSS", added, "MiB", 8, unshared)
    what = "libraries that Airflow has not imported itself, children included"
    note = f"{len(others)} modules: {packages}"
    if libraries:
        yield median_line(what, libraries, "MiB", note=note)
    else:
        yield Line(what, note=f"not measured in one round; {note}")
    yield median_line(
        "beside it: the watchdog's thread there, share of one core", watching, "%", 0.1
    )
    yield median_line("beside it: processor time per loop against the twin", cpu, "%")


def _of_others(hooked: list[dict[str, Any]], bare: list[dict[str, Any]]) -> list[str]:
    """Return the modules, not ours, that only the scheduler with the hook has."""
    (with_hook,), (without,) = (
        [set(line["modules"]) for line in lines if "modules" in line] for lines in (hooked, bare)
    )
    return sorted(
        name
        for name in with_hook - without
        if name.split(".")[0] not in ("watchdog_hook", "__mp_main__")
    )


def _counted(lines: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the first and the last report of a steady scheduler."""
    reports = [line for line in lines if line.get("loop", 0) >= 20]
    return reports[0], reports[-1]


def _per_loop(lines: list[dict[str, Any]]) -> float:
    first, last = _counted(lines)
    return float((last["cpu_s"] - first["cpu_s"]) / (last["loop"] - first["loop"]))


def _share_of_thread(lines: list[dict[str, Any]]) -> float:
    first, last = _counted(lines)
    return float(100 * (last["watchdog_s"] - first["watchdog_s"]) / (last["at"] - first["at"]))


class Twin:
    """One running scheduler and what it has counted."""

    def __init__(self, scheduler: Scheduler, out: Path) -> None:
        self._scheduler = scheduler
        self._out = out

    def lines(self) -> list[dict[str, Any]]:
        """Return what it has written so far."""
        text = self._out.read_text() if self._out.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def wait(self, condition: Any, seconds: float) -> list[dict[str, Any]]:
        """Wait until a condition holds for what it has written."""

        def holds() -> bool:
            found = self.lines()
            return bool(found) and bool(condition(found))

        self._scheduler.wait_for(holds, seconds, "a scheduler's loops")
        return self.lines()

    def memory(self, *, family: bool = True) -> float:
        """Return the proportional set size in MiB, of it alone or with its children."""
        total = 0
        for process in self._scheduler.family() if family else [self._scheduler]:
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            total += next(
                int(row.split()[1]) for row in rollup.splitlines() if row.startswith("Pss:")
            )
        return total / 1024


class Home:
    """An AIRFLOW_HOME whose scheduler counts."""

    def __init__(self, name: str, home: Any) -> None:
        self.name = name
        self._home = home
        self._number = 0

    def release(self, dag_runs: int) -> None:
        """Let that many of the waiting DAG runs go; their pods stay pending."""
        self._home.database.release(*(f"step_{number:02}" for number in range(dag_runs)))

    @contextlib.contextmanager
    def started(self, *arguments: str) -> Iterator[Twin]:
        """Run its scheduler for as long as the `with` lasts."""
        from tests.e2e.scheduler import Scheduler

        self._number += 1
        out = self._home.folder / f"meter-{self._number}.jsonl"
        self._home.arguments = [
            sys.executable,
            str(HERE / "metered_scheduler.py"),
            str(out),
            *arguments,
        ]
        scheduler = Scheduler(self._home)
        try:
            yield Twin(scheduler, out)
        finally:
            scheduler.close()
            self._home.database.forget_scheduler()


@contextlib.contextmanager
def _homes(names: list[str], settings: dict[str, object]) -> Iterator[list[Home]]:
    for needed in ("airflow", "trustme", "airflow.providers.cncf.kubernetes"):
        with contextlib.suppress(ModuleNotFoundError):
            if find_spec(needed):
                continue
        shown = {"airflow": "Airflow", "trustme": "trustme"}.get(needed, "its Kubernetes provider")
        raise NotMeasured(f"{shown} is not installed here")
    from tests.e2e.airflow_home import AirflowHome, make_template

    class Metered(AirflowHome):
        """Starts our program where the tests start `airflow scheduler`."""

        arguments: list[str]

        def command(self, *words: str) -> list[str]:
            return self.arguments if words[0] == "scheduler" else super().command(*words)

        def environment(self) -> dict[str, str]:
            # The same order of hashing in all twins: it moves memory and time by more than we do.
            ours = {"PYTHONHASHSEED": "0", "PYTHONPATH": str(HERE.parent)}
            return {**super().environment(), **ours}

    root = Path(tempfile.mkdtemp(prefix="bench-"))
    root.chmod(0o755)
    homes: list[Any] = []
    try:
        with api_server() as kubeconfig:
            template = make_template(root / "templates")
            options = {"kubernetes_executor.config_file": kubeconfig, **settings}
            for name in names:
                text = HOOK if name == "hooked" else ""
                homes.append(Metered(root / name, options, template=template, local_settings=text))
            yield [Home(name, home) for name, home in zip(names, homes, strict=True)]
    finally:
        for home in homes:
            home.close()
        shutil.rmtree(root, ignore_errors=True)

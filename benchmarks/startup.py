"""What the two lines in `airflow_local_settings.py` cost every Airflow process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Line, median_line

if TYPE_CHECKING:
    from benchmarks.bench import Effort

CHECKOUT = Path(__file__).resolve().parents[1]
BOUNDS = {"alone": 5.0, "after import airflow": 1.0}  # ms

# Nothing may be imported for the measurement itself before the measurement is over.
PROGRAM = """
import os, sys, time
{before}
# Airflow 3 has asked for our list of options by now, and has some of us in memory.
for name in [name for name in sys.modules if name.partition(".")[0] == "watchdog_hook"]:
    del sys.modules[name]
modules, threads = set(sys.modules), len(os.listdir("/proc/self/task"))
began = time.perf_counter_ns()
import watchdog_hook
watchdog_hook.install()
took = time.perf_counter_ns() - began
new = sorted(set(sys.modules) - modules)
threads = len(os.listdir("/proc/self/task")) - threads
import json
print("\\n" + json.dumps([took / 1e6, new, threads]))
"""


def measure_import(effort: Effort) -> Iterator[Line]:
    """Import and install in fresh interpreters, turn about with and without Airflow."""
    programs = {"alone": PROGRAM.format(before="")}
    if find_spec("airflow"):
        programs["after import airflow"] = PROGRAM.format(before="import airflow")
    found: dict[str, list[tuple[float, list[str], int]]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as home:
        for number in range(effort(31, 7)):
            for name, program in programs.items():
                result = _run(program, home)
                if number:  # the first one may have compiled
                    found[name].append(result)
    for name, bound in BOUNDS.items():
        if name not in found:
            yield Line(name, note="not measured: Airflow is not installed here")
            continue
        yield median_line(name, [took for took, _, _ in found[name]], "ms", bound)
        own = {module for _, new, _ in found[name] for module in new}
        others = sorted(one for one in own if one.split(".")[0] != "watchdog_hook")
        count = len(own) - len(others)
        note = f"{', '.join(others) or f'all {count} new ones are ours'}"
        yield Line(
            f"modules of others that it imports, {name}", len(others), "", bound=1, note=note
        )
        threads = max(threads for _, _, threads in found[name])
        yield Line(f"threads that it starts, {name}", threads, "", bound=1)


def _run(program: str, home: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": home,
            "AIRFLOW_HOME": home,
            "PYTHONPATH": str(CHECKOUT),
        },
        cwd=home,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])

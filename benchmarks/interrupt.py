"""How long it takes from the decision to end a call until its caller has the exception."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.calls import api_server
from benchmarks.figures import Line, NotMeasured, interval_of_median

if TYPE_CHECKING:
    from benchmarks.bench import Effort

CHECKOUT = Path(__file__).resolve().parents[1]
PLACES = {
    "main": "dog.guard in the main thread, by signal",
    "worker": "dog.guard in another thread, by shutdown of the socket",
    "api": "create_namespaced_pod in the main thread, by signal",
}
PATIENCE = 5.0  # seconds for one call


def measure_interrupt(effort: Effort) -> Iterator[Line]:
    """Let calls get stuck for a tenth of a second each."""
    count = effort(200, 30)
    for where, name in PLACES.items():
        effort.say(f"{count} x {name}")
        try:
            took = _stuck(where, count)
        except NotMeasured as why:
            yield Line(name, note=f"not measured: {why}")
            continue
        least, most = interval_of_median(took)
        yield Line(
            f"{name}: median", statistics.median(took), "ms", (least, most), f"95 % of {count}"
        )
        yield Line(f"{name}: worst", max(took), "ms")


def _stuck(where: str, count: int) -> list[float]:
    command = [sys.executable, "-m", "benchmarks.stuck", where, str(count)]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        if where == "api":
            if not find_spec("kubernetes"):
                raise NotMeasured("kubernetes is not installed here")
            server = stack.enter_context(api_server("--fault", "request", "--on", "create"))
            command += ["--kubeconfig", server]
        done = subprocess.run(
            [*command, "--folder", folder],
            cwd=CHECKOUT,
            env={"PATH": "/usr/bin:/bin", "HOME": folder},
            timeout=60 + PATIENCE * count,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"the stuck process ended with {done.returncode}: {done.stderr[-1000:]}")
    return [float(each) for each in json.loads(done.stdout.splitlines()[-1])]

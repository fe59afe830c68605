"""A loop of anybody's, with neither Airflow nor Kubernetes beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2]
EXAMPLE = HERE / "examples" / "plain_loop.py"
ALONE = """
import runpy, sys
for name in ("airflow", "kubernetes", "urllib3", "wrapt", "rich"):
    sys.modules[name] = None  # as if it were not installed
path, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = path
runpy.run_path(path, run_name="__main__")
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE, str(EXAMPLE), *arguments],
        env={**os.environ, "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.linux
def test_the_example_ends_the_stuck_calls_and_goes_on(tmp_path):
    done = run("--after", "0.4", "--incidents", str(tmp_path))
    print(done.stderr)

    assert done.returncode == 0
    rounds = [line for line in done.stdout.splitlines() if line.startswith("round ")]
    assert [line.split(":")[0] for line in rounds] == [f"round {number}" for number in range(1, 7)]
    assert [number for number, line in enumerate(rounds, 1) if "outcome unknown" in line] == [3, 4]
    assert "6 rounds, 2 ended by the watchdog" in done.stdout
    for event in ("stall_began", "dump", "interrupt", "stall_ended"):
        assert f"watchdog_hook: event={event} " in done.stderr

    incidents = [
        json.loads((folder / "incident.json").read_text()) for folder in sorted(tmp_path.iterdir())
    ]
    # A busy machine may have made the loop late elsewhere, and that ends nothing.
    interrupted = [
        each["phase"]
        for each in incidents
        if "interrupt" in [action["deed"] for action in each["actions"]]
    ]
    assert interrupted == ["round 3", "round 4"]


def test_a_healthy_loop_hears_nothing_of_the_watchdog(tmp_path):
    done = run("--rounds", "2", "--after", "30", "--incidents", str(tmp_path))

    assert done.returncode == 0
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_the_example_tells_how_it_is_used():
    done = run("--help")

    assert done.returncode == 0
    assert "--rounds" in done.stdout

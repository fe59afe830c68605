"""The demo does what it says, in an environment that is there already."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.e2e.airflow_home import AIRFLOW, CHECKOUT


@pytest.mark.skipif(AIRFLOW[:2] != (3, 3), reason="the demo shows Airflow 3.3")
def test_the_demo_shows_a_scheduler_coming_back():
    command = [sys.executable, CHECKOUT / "examples" / "demo.py", "--venv", sys.prefix]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    shown = done.stdout

    assert done.returncode == 0, shown + done.stderr
    for word in ("event=stall_began", "event=dump", "event=interrupt", "event=requeued"):
        assert word in shown
    assert "It came back" in shown
    assert "10 for 10 tasks" in shown

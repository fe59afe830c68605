"""What holds for every test."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

# Their races are decided at single instructions, and some trace by themselves: not under coverage.
UNTRACED = ("test_interrupt_race.py",)

# Properties are slow under coverage and beside real schedulers: time proves nothing here. The
# environments beside an old Airflow have no hypothesis, and no test that needs it.
with contextlib.suppress(ImportError):
    from hypothesis import settings

    settings.register_profile("house", deadline=None, print_blob=True)
    settings.load_profile("house")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if (HERE / "e2e") in item.path.parents:
            item.add_marker(pytest.mark.e2e)
        if item.path.name in UNTRACED:
            item.add_marker(pytest.mark.long)
        if item.get_closest_marker("linux") and not sys.platform.startswith("linux"):
            item.add_marker(pytest.mark.skip(reason="reads /proc or Linux socket options"))

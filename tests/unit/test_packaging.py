"""What is installed: the package, whole, with its two entry points, and nothing that acts by itself."""

from __future__ import annotations

import configparser
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import watchdog_hook

ROOT = Path(__file__).parents[2]
SETUP = configparser.ConfigParser(interpolation=None)
SETUP.read(ROOT / "setup.cfg")


@pytest.fixture(scope="module")
def wheel() -> importlib.metadata.Distribution:
    """Return what is installed, if it came from a wheel and not from this folder."""
    for found in importlib.metadata.distributions(name="watchdog-hook"):
        if any(file.parts[0].endswith(".dist-info") for file in found.files or ()) and any(
            str(file) == "watchdog_hook/__init__.py" for file in found.files or ()
        ):
            return found
    pytest.skip("the wheel is not installed here: tox does that")


def test_every_module_and_every_template_is_in_the_wheel(wheel):
    sources = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "watchdog_hook").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    installed = {
        str(file)
        for file in wheel.files or ()
        if file.parts[0] == "watchdog_hook" and file.suffix != ".pyc"
    }

    assert installed == sources
    assert "watchdog_hook/cli/templates/page.html.jinja" in sources


def test_the_wheel_brings_no_tests_and_no_examples(wheel):
    assert {file.parts[0] for file in wheel.files or () if file.parts[0] != ".."} == {
        "watchdog_hook",
        f"watchdog_hook-{watchdog_hook.__version__}.dist-info",
    }


def test_the_licence_is_in_the_wheel(wheel):
    assert wheel.metadata["License-Expression"] == "Apache-2.0"
    assert any(file.name == "LICENSE" for file in wheel.files or ())


def test_the_version_is_the_one_that_the_package_says(wheel):
    assert wheel.version == watchdog_hook.__version__


def test_the_wheel_hooks_into_airflow_by_its_description_only(wheel):
    assert {(each.group, each.name) for each in wheel.entry_points} == {
        ("console_scripts", "watchdog-hook"),
        ("apache_airflow_provider", "provider_info"),
    }
    for each in wheel.entry_points:
        assert callable(each.load())


def test_the_runtime_dependencies_are_the_five_that_are_beside_airflow_anyway():
    needed = {
        re.split(r"\W*[<>=]", line)[0] for line in SETUP["options"]["install_requires"].split()
    }

    assert needed == {"Jinja2", "psutil", "rich", "rich-argparse", "wrapt"}


def test_every_room_of_the_house_has_its_floor():
    layers = SETUP["importlinter:contract:floors"]["layers"]
    placed = set(re.findall(r"\w+", layers))
    rooms = {
        path.stem
        for path in (ROOT / "watchdog_hook").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }

    assert rooms - {"__init__"} <= placed


def test_a_room_without_a_floor_breaks_the_build():
    assert SETUP["importlinter:contract:floors"]["exhaustive"] == "True"


@pytest.mark.parametrize(
    "command", [["-m", "watchdog_hook", "--help"], ["-m", "watchdog_hook", "show", "--help"]]
)
def test_python_m_watchdog_hook_is_the_command_line(command):
    shown = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert "watchdog-hook" in shown.stdout
    assert shown.stderr == ""


def test_continuous_integration_runs_the_readmes_command_and_nothing_else():
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    (command,) = [line.removeprefix("exec ") for line in script if line.startswith("exec ")]

    assert command == "python3 tests/run.py"
    assert f"\n{command}\n" in (ROOT / "README.md").read_text()


def test_the_helper_of_the_readme_says_what_it_runs():
    shown = subprocess.run(
        [sys.executable, "tests/run.py", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert "lint, types, unit, long, browser" in " ".join(shown.stdout.split())

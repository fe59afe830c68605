"""Airflow's provider manager learns every option from Config, and accepts what it is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from watchdog_hook.config import KNOBS, parse
from watchdog_hook.integrations.airflow.provider import get_provider_info

ROOT = Path(__file__).parents[2]


def options():
    return get_provider_info()["config"]["watchdog_hook"]["options"]


def test_every_option_of_config_is_registered_and_no_other():
    assert list(options()) == list(KNOBS)


def test_every_option_has_the_keys_that_airflow_wants_and_no_other():
    for option in options().values():
        assert set(option) == {"description", "version_added", "type", "example", "default"}
        assert option["type"] in ("string", "boolean", "integer", "float")
        assert isinstance(option["default"], str)
        assert option["description"]


def test_every_default_is_read_back_as_the_default_of_config():
    for name, option in options().items():
        assert parse(name, option["default"]) == KNOBS[name].default


def test_every_example_is_a_value_that_the_option_takes():
    for name, option in options().items():
        if option["example"] is not None:
            parse(name, option["example"])


def test_no_text_has_a_brace_or_percent_that_airflow_would_expand():
    assert not [name for name, option in options().items() if set(option["default"]) & set("{}%$")]


def airflow(tmp_path, *command):
    return subprocess.run(
        [sys.executable, "-m", "airflow", *command],
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


VALIDATE = """
import json, jsonschema
from importlib.resources import files
from watchdog_hook.integrations.airflow.provider import get_provider_info
schema = json.loads((files("airflow") / "provider_info.schema.json").read_text())
jsonschema.validate(get_provider_info(), schema)
print("valid")
"""


@pytest.mark.airflow
def test_airflow_finds_the_description_valid(tmp_path):
    shown = subprocess.run(
        [sys.executable, "-c", VALIDATE],
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert shown.stdout.splitlines()[-1] == "valid"


@pytest.mark.airflow
@pytest.mark.timeout(120)
def test_airflow_lists_section_texts_and_defaults(tmp_path):
    shown = airflow(
        tmp_path,
        "config",
        "list",
        "--section",
        "watchdog_hook",
        "--include-descriptions",
        "--defaults",
    )

    assert "[watchdog_hook]" in shown
    for name, one in KNOBS.items():
        assert one.text in shown
        assert f"{name} = " in shown


@pytest.mark.airflow
@pytest.mark.timeout(120)
def test_airflow_gives_the_default_of_an_option_that_nobody_set(tmp_path):
    assert (
        airflow(tmp_path, "config", "get-value", "watchdog_hook", "dump_after").split()[-1] == "30"
    )


@pytest.mark.airflow
@pytest.mark.timeout(120)
def test_airflow_counts_us_among_its_providers(tmp_path):
    shown = airflow(tmp_path, "providers", "list", "--output", "json")
    listed = json.loads(shown[shown.index("[{") :])

    assert "watchdog-hook" in [each["package_name"] for each in listed]

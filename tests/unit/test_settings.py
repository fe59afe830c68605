"""The section [watchdog_hook] is read once, and nothing in it can stop a scheduler."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from watchdog_hook.config import Config
from watchdog_hook.integrations.airflow.settings import PREFIX, read

ROOT = Path(__file__).parents[2]


class AirflowConfigException(Exception):
    """Stands for Airflow's own."""


class Conf(configparser.ConfigParser):
    """airflow.cfg as Airflow reads it: the environment first, an exception where there is nothing."""

    def __init__(self, text: str = "", base: str | None = "/logs") -> None:
        super().__init__()
        if base:
            self.read_dict({"logging": {"base_log_folder": base}})
        self.read_string(text)

    def get(self, section, option, **kwargs):
        name = f"AIRFLOW__{section.upper()}__{option.upper()}"
        if name in os.environ:
            return os.environ[name]
        try:
            return super().get(section, option, **kwargs)
        except configparser.InterpolationError:
            raise
        except configparser.Error as error:
            raise AirflowConfigException(f"section/key [{section}/{option}] not found") from error


class BrokenConf:
    """Raises for whatever it is asked."""

    def __getattr__(self, name):
        raise AirflowConfigException("no configuration today")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


def section(*lines: str) -> Conf:
    return Conf("\n".join(["[watchdog_hook]", *lines]))


def test_without_a_section_everything_is_at_its_default():
    settings = read(Conf())

    assert settings.config == Config(incident_dir="/logs/watchdog_hook")
    assert settings.problems == ()
    assert set(settings.sources.values()) == {"default"}


def test_airflow_cfg_is_read():
    settings = read(section("dump_after = 20", "interrupt = off"))

    assert settings.config.dump_after == 20
    assert not settings.config.may_interrupt
    assert settings.sources["dump_after"] == "airflow.cfg"
    assert settings.problems == ()


def test_the_environment_goes_before_airflow_cfg(monkeypatch):
    monkeypatch.setenv(f"{PREFIX}DUMP_AFTER", "25")

    settings = read(section("dump_after = 20"))

    assert settings.config.dump_after == 25
    assert settings.sources["dump_after"] == "environment"


def test_a_bad_value_is_one_sentence_with_option_value_and_remedy_and_the_default_stands_in():
    settings = read(section("dump_after = soon", "poll_interval = 2"))

    assert settings.config.dump_after == 30
    assert settings.config.poll_interval == 2
    assert settings.problems == (
        "[watchdog_hook] dump_after must be a number of seconds above 0, not 'soon'; its default 30 is used",
    )
    assert settings.sources["dump_after"] == "default"


def test_every_bad_value_is_named():
    settings = read(section("enabled = perhaps", "breaker_after = 0", "request_timeout = 1,2,3"))

    assert [problem.split()[1] for problem in settings.problems] == [
        "enabled",
        "breaker_after",
        "request_timeout",
    ]
    assert settings.config == Config(incident_dir="/logs/watchdog_hook")


def test_an_unknown_option_is_named_with_the_nearest_known_one(monkeypatch):
    monkeypatch.setenv(f"{PREFIX}INTERUPT_AFTER", "10")

    settings = read(section("dump_afer = 5", "colour = blue"))

    assert settings.problems == (
        "[watchdog_hook] has no such option, and it is ignored: colour, "
        "dump_afer (did you mean dump_after?), interupt_after (did you mean interrupt_after?)",
    )


def test_a_name_of_the_default_section_is_no_option_of_ours():
    assert read(Conf("[DEFAULT]\ncolour = blue\n[watchdog_hook]\ndump_after = 20")).problems == ()


def test_a_number_out_of_order_moves_the_others_and_is_said():
    settings = read(section("dump_after = 10"))

    assert settings.config.sample_after == 5
    assert settings.sources["sample_after"] == "moved"
    assert settings.problems == (
        "[watchdog_hook] sample_after is 5 s instead of 15: it stays below dump_after",
    )


def test_a_default_in_airflow_cfg_was_not_chosen_by_anybody(monkeypatch):
    monkeypatch.setenv(f"{PREFIX}DUMP_AFTER", "10")

    settings = read(section("sample_after = 15", "dump_after = 30"))

    assert (settings.config.sample_after, settings.config.dump_after) == (5, 10)
    assert settings.sources["sample_after"] == "moved"


def test_a_default_in_the_environment_was_chosen(monkeypatch):
    monkeypatch.setenv(f"{PREFIX}SAMPLE_AFTER", "15")

    settings = read(section("terminate_after = 20"))

    assert (settings.config.sample_after, settings.config.dump_after) == (15, 17.5)
    assert settings.sources["sample_after"] == "environment"


def test_the_incident_directory_can_be_set():
    settings = read(section("incident_dir = /var/incidents"))

    assert settings.config.incident_dir == "/var/incidents"
    assert settings.sources["incident_dir"] == "airflow.cfg"


def test_an_empty_incident_directory_is_the_default_one():
    settings = read(section("incident_dir ="))

    assert settings.config.incident_dir == "/logs/watchdog_hook"
    assert settings.sources["incident_dir"] == "default"


def test_without_a_log_folder_no_files_are_written_and_that_is_said():
    settings = read(Conf(base=None))

    assert settings.config.incident_dir is None
    assert "base_log_folder" in settings.problems[0]


def test_a_percent_sign_that_cannot_be_interpolated_is_a_problem_not_an_exception():
    settings = read(section("dump_after = %(nothing)s"))

    assert settings.config.dump_after == 30
    assert "dump_after cannot be read" in settings.problems[0]


def test_a_configuration_that_raises_for_everything_gives_the_defaults(monkeypatch):
    monkeypatch.setenv(f"{PREFIX}DUMP_AFTER", "20")

    settings = read(BrokenConf())

    assert settings.config == Config()
    assert any("dump_after cannot be read" in problem for problem in settings.problems)


def test_without_airflow_the_defaults_are_used_and_that_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "airflow", None)
    monkeypatch.setitem(sys.modules, "airflow.configuration", None)

    settings = read()

    assert settings.config == Config()
    assert len(settings.problems) == 1
    assert "airflow.cfg cannot be read" in settings.problems[0]


REAL = """
import json
from watchdog_hook.integrations.airflow.settings import read
settings = read()
print(json.dumps([settings.config.as_text(), settings.problems, settings.sources]))
"""


@pytest.mark.airflow
def test_a_real_airflow_reads_file_and_environment(tmp_path):
    (tmp_path / "airflow.cfg").write_text(
        f"[logging]\nbase_log_folder = {tmp_path}/logs\n"
        "[watchdog_hook]\ndump_after = 20\ninterrupt_after = soon\nguardian = True\npoll_interval = 0.5\n"
    )
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        f"{PREFIX}POLL_INTERVAL": "0.25",
        f"{PREFIX}REQUEUE_LIMIT": "",
    }
    shown = subprocess.run(
        [sys.executable, "-c", REAL], env=environment, capture_output=True, text=True, check=True
    )
    values, problems, sources = json.loads(shown.stdout.splitlines()[-1])

    assert values["dump_after"] == "20"
    assert values["interrupt_after"] == "60"
    assert values["poll_interval"] == "0.25"
    assert values["incident_dir"] == f"{tmp_path}/logs/watchdog_hook"
    assert [problem.split()[1] for problem in problems] == [
        "interrupt_after",
        "requeue_limit",
        "has",
    ]
    assert "guardian" in problems[-1]
    assert sources["dump_after"] == "airflow.cfg"
    assert sources["poll_interval"] == "environment"
    assert sources["interrupt_after"] == "default"

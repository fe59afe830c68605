"""The verb doctor: settings, and whether the watchdog could do its work here."""

from __future__ import annotations

import dataclasses
import json

from rich.table import Table
from rich.text import Text

from watchdog_hook.cli import FINE, PROBLEM, levers
from watchdog_hook.cli.console import make_console, stdout_is_stderr
from watchdog_hook.config import KNOBS
from watchdog_hook.integrations.airflow import doctor as airflow
from watchdog_hook.integrations.airflow.doctor import Check
from watchdog_hook.integrations.airflow.settings import Settings, read

STYLES = {"ok": "green", "warn": "yellow", "problem": "bold red"}


def run(incident_dir: str | None, *, as_json: bool) -> int:
    """Print settings and checks. Return 1 if one of them is a problem."""
    with stdout_is_stderr():
        settings = read()
        if incident_dir is not None:
            settings = dataclasses.replace(
                settings,
                config=dataclasses.replace(settings.config, incident_dir=incident_dir),
                sources={**settings.sources, "incident_dir": "command line"},
            )
        checks = [*_of_settings(settings), *airflow.checks(settings.config)]
        checks += levers.checks(settings.config)
    if as_json:
        print(json.dumps(_plain(settings, checks), indent=2))
    else:
        _print(settings, checks)
    return PROBLEM if any(check.level == "problem" for check in checks) else FINE


def _of_settings(settings: Settings) -> list[Check]:
    checks = []
    if airflow.installed():  # without it there is nothing that could have been set
        checks = [
            Check("warn" if problem in settings.moved else "problem", problem, "")
            for problem in settings.problems
        ]
    if not settings.config.enabled:
        checks.append(
            Check(
                "warn",
                "[watchdog_hook] enabled is False",
                "the watchdog is not armed",
                "set it to True",
            )
        )
    if not settings.config.may_interrupt:
        checks.append(
            Check(
                "warn",
                "[watchdog_hook] interrupt is off",
                "a stall is dumped, and lasts until its call returns or somebody restarts the scheduler",
                "set it to api_calls",
            )
        )
    return checks


def _plain(settings: Settings, checks: list[Check]) -> dict[str, object]:
    values = settings.config.as_text()
    return {
        "settings": [
            {"option": name, "value": values[name], "source": settings.sources[name]}
            for name in KNOBS
        ],
        "checks": [dataclasses.asdict(check) for check in checks],
        "problems": sum(check.level == "problem" for check in checks),
    }


def _print(settings: Settings, checks: list[Check]) -> None:
    console = make_console()
    values = settings.config.as_text()
    table = Table(box=None, pad_edge=False)
    for heading in ("option", "value", "from"):
        table.add_column(heading, overflow="fold")
    for name in KNOBS:
        source = settings.sources[name]
        table.add_row(name, Text(values[name]), Text(source, "dim" if source == "default" else ""))
    console.print(table)
    console.print()
    for check in checks:
        line = Text(f"{check.level:<8} ", STYLES[check.level])
        line.append(f"{check.what}: {check.why}" if check.why else check.what, "default")
        for remedy in check.remedy.splitlines():
            line.append(f"\n         {remedy}", "italic default")
        console.print(line, soft_wrap=not console.is_terminal)
    count = sum(check.level == "problem" for check in checks)
    console.print(f"\n{count or 'No'} problem{'' if count == 1 else 's'} found.")

"""Read section [watchdog_hook] of airflow.cfg and of the environment."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, field
from typing import Any

from watchdog_hook.config import KNOBS, Config, ConfigError, parse

SECTION = "watchdog_hook"
PREFIX = f"AIRFLOW__{SECTION.upper()}__"


@dataclass(frozen=True)
class Settings:
    """What the user set, made whole with defaults."""

    config: Config
    problems: tuple[str, ...] = ()  # one sentence each, to be said once
    moved: tuple[str, ...] = ()  # those of them that are about the ladder's order only
    # Option -> environment, airflow.cfg, default, or moved (to keep the ladder's order).
    sources: dict[str, str] = field(default_factory=dict)


def read(conf: Any = None) -> Settings:
    """
    Return the settings in force now. Never raises.

    A value that cannot be, and a name that is none, becomes a problem; the default stands in. Read
    once, at `SchedulerJobRunner._execute`: a lookup may warn, log and run code of Airflow's.
    """
    problems: list[str] = []
    if conf is None:
        try:
            from airflow.configuration import conf as of_airflow

            conf = of_airflow
        except Exception as error:  # noqa: BLE001 - a broken airflow.cfg raises many things
            problems.append(f"airflow.cfg cannot be read ({error!r}): defaults are used")
    in_file = _names_in_file(conf)
    in_environment = _names_in_environment()
    chosen: dict[str, Any] = {}
    sources = dict.fromkeys(KNOBS, "default")
    for name in KNOBS:
        if name not in in_file and name not in in_environment:
            continue
        try:
            text = conf.get(SECTION, name)
            value = parse(name, "" if text is None else str(text))
        except ConfigError as error:
            problems.append(f"[{SECTION}] {error}; its default {KNOBS[name].default_text} is used")
        except Exception as error:  # noqa: BLE001 - AirflowConfigException, interpolation, a backend
            problems.append(
                f"[{SECTION}] {name} cannot be read ({_first_line(error)}); "
                f"its default {KNOBS[name].default_text} is used"
            )
        else:
            if name in in_environment:
                sources[name] = "environment"
            elif value != KNOBS[name].default:
                sources[name] = "airflow.cfg"
            else:
                # Airflow writes every default into the airflow.cfg that it makes: nobody chose those.
                continue
            chosen[name] = value
    problems += _strangers((in_file | in_environment) - KNOBS.keys())
    if chosen.get("incident_dir") is None:
        chosen["incident_dir"] = _default_incident_dir(conf, problems)
        sources["incident_dir"] = "default"
    asked = dict(chosen)
    try:
        config, sentences = Config.settle(chosen)
    except ConfigError as error:  # not seen: every value was checked above
        return Settings(
            Config(), (*problems, f"[{SECTION}] {error}; defaults are used"), (), sources
        )
    for name, one in KNOBS.items():
        if getattr(config, name) != asked.get(name, one.default):
            sources[name] = "moved"
    moved = tuple(f"[{SECTION}] {sentence}" for sentence in sentences)
    return Settings(config, (*problems, *moved), moved, sources)


def _names_in_file(conf: Any) -> set[str]:
    try:
        return set(conf.options(SECTION)) - set(conf.defaults())
    except Exception:  # noqa: BLE001 - no such section, or no configuration at all
        return set()


def _names_in_environment() -> set[str]:
    return {name[len(PREFIX) :].lower() for name in os.environ if name.startswith(PREFIX)}


def _strangers(names: set[str]) -> list[str]:
    """Name every unknown option in one line, each with the known one that it resembles most."""
    if not names:
        return []
    shown = []
    for name in sorted(names):
        near = difflib.get_close_matches(name, KNOBS, n=1)
        shown.append(f"{name} (did you mean {near[0]}?)" if near else name)
    return [f"[{SECTION}] has no such option, and it is ignored: {', '.join(shown)}"]


def _default_incident_dir(conf: Any, problems: list[str]) -> str | None:
    try:
        return os.path.join(conf.get("logging", "base_log_folder"), "watchdog_hook")
    except Exception as error:  # noqa: BLE001 - as above
        if conf is None:  # said already
            return None
        problems.append(
            f"[{SECTION}] incident_dir has no default here, for [logging] base_log_folder cannot be "
            f"read ({_first_line(error)}): no incident files are written"
        )
        return None


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:200]

"""What Airflow's provider manager is told, so that `airflow config list` shows our options."""

from __future__ import annotations

from typing import Any

from watchdog_hook.config import KNOBS, Knob
from watchdog_hook.integrations.airflow.settings import SECTION


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description, as Airflow's provider_info.schema.json wants it."""
    return {
        "package-name": "watchdog-hook",
        "name": "Watchdog Hook",
        "description": (
            "Notices a scheduler frozen in a call that never returns, says why, and brings it back."
        ),
        "config": {
            SECTION: {
                "description": (
                    "Watches the scheduler's loop from inside, once airflow_local_settings.py says "
                    "watchdog_hook.install(). All times are seconds."
                ),
                "options": {name: _option(one) for name, one in KNOBS.items()},
            }
        },
    }


def _option(one: Knob) -> dict[str, Any]:
    # A default that depends on other options is told in words, for Airflow would take it literally.
    value = one.kind.write(one.default)
    literal = one.default_text == value
    return {
        "description": one.text if literal else f"{one.text} Empty: {one.default_text}.",
        "version_added": one.since,
        "type": one.kind.type,
        "example": one.example,
        "default": value,
    }

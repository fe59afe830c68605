"""
Every option once: its name, default, unit, text and check.

`airflow config list`, the README's table and `watchdog-hook doctor` all read it from here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from watchdog_hook.knobs import (
    COMPONENT_LIST,
    FILE,
    FLAG,
    INTERRUPT,
    PATH,
    PY_SPY,
    SECONDS_OR_NONE,
    TIMEOUT,
    ConfigError,
    Knob,
    Timeout,
    count,
    knob,
    number,
)

__all__ = ["KNOBS", "Config", "ConfigError", "Knob", "Timeout", "parse"]


@dataclass(frozen=True)
class Config:
    """
    How the watchdog behaves. All times are seconds.

    A text is read as airflow.cfg's would be. A value that an option cannot have raises ConfigError.
    The steps of the ladder keep their order: `Config(dump_after=5)` moves `sample_after` too, for a
    number that equals its default counts as not set; two set against each other raise ConfigError.
    """

    enabled: bool = knob(True, "Whether anything is watched at all.", FLAG)
    components: tuple[str, ...] = knob(
        ("scheduler",),
        "Comma list of what is watched: scheduler, dag_processor (by itself or, in Airflow 2, as a child of the "
        "scheduler), triggerer. The last two are dumped and diagnosed, never interrupted.",
        COMPONENT_LIST,
        example="scheduler,dag_processor,triggerer",
    )
    poll_interval: float = knob(
        1.0,
        "How often the watchdog looks; a third as often while the loop beats and no call is in flight.",
        number("a number of seconds", above=0, most=60),
        unit="s",
    )
    sample_after: float = knob(
        15.0, "Silence after which the loop's stack is sampled at every look."
    )
    dump_after: float = knob(30.0, "Silence that is a stall: everything is dumped.")
    interrupt: tuple[str, ...] = knob(
        ("api_calls",),
        "Comma list of what may be interrupted: api_calls; off is observe only, with no requeue and no "
        "breaker either.",
        INTERRUPT,
    )
    interrupt_after: float = knob(
        60.0,
        "A guarded call that has been silent for so long, or open for three times as long, gets "
        "StuckCallTimeout.",
    )
    breaker_after: int = knob(
        3,
        "Interrupted or broken calls to one API server, with no answered one between, after which it "
        "is left alone for a while.",
        count(least=1),
    )
    breaker_open_for: float = knob(
        30.0,
        "How long that server is left alone; doubles up to 300.",
        number("a number of seconds", above=0, most=300),
        unit="s",
    )
    requeue_limit: int = knob(
        3,
        "Times one task try is put back on the queue, counted only while the API server answered others; "
        "then it fails.",
        count(least=0),
    )
    requeue_connection_errors: bool = knob(
        True,
        "Treat a connection that broke during a pod's creation (or another guarded call) like an "
        "interrupted one, instead of Airflow's crash or failed task.",
        FLAG,
    )
    terminate_after: float = knob(
        0.0,
        "Silence after which the process exits with code 75, whichever of `components` it is, also while it "
        "shuts down; 0 is never.",
        SECONDS_OR_NONE,
        example="240",
    )
    startup_grace: float = knob(
        300.0,
        "Silence allowed to the first iteration; 0 allows no more than dump_after. The DAG processor's first "
        "turn clones its bundles.",
        SECONDS_OR_NONE,
    )
    exit_when_fenced: bool = knob(
        False,
        "Exit with code 75 when another scheduler has taken over this one's tasks after a long silence, instead "
        "of dropping what waits and going on.",
        FLAG,
    )
    request_timeout: Timeout = knob(
        None,
        "Seconds, as N or connect,read: default _request_timeout for the executor's calls that have none; "
        "0 adds none.",
        TIMEOUT,
        unit="s",
        example="10,60",
    )
    restart_watchers: bool = knob(
        False,
        "End a process of the KubernetesExecutor that watches pods (KubernetesJobWatcher) once it has shown "
        "no sign of life for three times its read timeout, or can never wake; the executor starts a new one. "
        "Not with interrupt = off.",
        FLAG,
    )
    termination_message: str | None = knob(
        "/dev/termination-log",
        "File in which Kubernetes looks for a container's last words (terminationMessagePath): during a stall the "
        "verdict stands there. Written only where it exists already; empty is never.",
        FILE,
    )
    incident_dir: str | None = knob(
        None,
        "Directory of the incident files.",
        PATH,
        default_text="{[logging] base_log_folder}/watchdog_hook",
        example="/opt/airflow/logs/watchdog_hook",
    )
    incident_retention: int = knob(50, "Incidents of this host that are kept.", count(least=1))
    incident_max_mb: float = knob(
        200.0,
        "Size of all incidents that are kept.",
        number("a number of megabytes", above=0),
        unit="MB",
    )
    sentinel: bool = knob(
        True,
        "Whether a small program beside the scheduler watches the watchdog, and speaks when it cannot.",
        FLAG,
    )
    backstop_after: float = knob(
        90.0,
        "Silence of the watchdog's own thread (GIL held, process stopped) after which the sentinel speaks, or "
        "faulthandler without it; never less than four times poll_interval.",
    )
    py_spy: str = knob(
        "auto",
        "py-spy for the sentinel: its path, auto (PATH, then beside the interpreter) or off.",
        PY_SPY,
    )

    def __post_init__(self) -> None:
        values = {name: checked(name, getattr(self, name)) for name in KNOBS}
        chosen = {name for name, one in KNOBS.items() if values[name] != one.default}
        moved, quarrels = _in_order(values, chosen)
        if quarrels:
            raise quarrels[0]
        for name in KNOBS:
            object.__setattr__(self, name, moved[name])

    @property
    def may_interrupt(self) -> bool:
        """Tell whether anything may be interrupted, put back or refused at all."""
        return bool(self.interrupt)

    @classmethod
    def settle(cls, chosen: Mapping[str, Any]) -> tuple[Config, list[str]]:
        """
        Return the configuration nearest to these options, and a sentence for each number that moved.

        Options that are not in `chosen` make way for those that are. Of two chosen ones that exclude
        each other, `sample_after` and `dump_after` both fall back to their defaults, and
        `terminate_after` to never. A value that an option cannot have raises ConfigError.
        """
        asked = {name: one.default for name, one in KNOBS.items()}
        asked.update({name: checked(name, value) for name, value in chosen.items()})
        moved, quarrels = _in_order(asked, set(chosen))
        sentences = [str(quarrel) for quarrel in quarrels]
        for name, stays in ORDER.items():
            if moved[name] != asked[name]:
                sentences.append(
                    f"{name} is {moved[name]:g} s instead of {asked[name]:g}: it stays {stays}"
                )
        return cls(**moved), sentences

    @classmethod
    def from_text(cls, texts: Mapping[str, str]) -> Config:
        """Return the configuration that `as_text` wrote. Raises ConfigError."""
        return cls(**{name: parse(name, text) for name, text in texts.items()})

    def as_text(self) -> dict[str, str]:
        """Return every option as airflow.cfg would hold it."""
        return {name: one.kind.write(getattr(self, name)) for name, one in KNOBS.items()}


KNOBS: dict[str, Knob] = {
    each.name: Knob(each.name, each.default, *each.metadata["knob"])
    for each in dataclasses.fields(Config)
}

# Where each number of the ladder belongs, as a sentence says it.
ORDER = {
    "sample_after": "below dump_after",
    "dump_after": "between sample_after and terminate_after",
    "interrupt_after": "below terminate_after",
    "backstop_after": "below terminate_after",
    "terminate_after": "0, which is never, or above the other steps",
}


def parse(name: str, text: str) -> Any:
    """Return the value that this text means for an option. Raises ConfigError."""
    kind = KNOBS[name].kind
    try:
        return kind.check(kind.read(text))
    except (ValueError, TypeError):
        raise ConfigError(name, text, kind.must_be) from None


def checked(name: str, value: Any) -> Any:
    """Return a value in its option's own type; a text is parsed. Raises ConfigError."""
    if isinstance(value, str):
        return parse(name, value)
    kind = KNOBS[name].kind
    try:
        return kind.check(value)
    except (ValueError, TypeError):
        raise ConfigError(name, value, kind.must_be) from None


def _in_order(
    values: Mapping[str, Any], chosen: Collection[str]
) -> tuple[dict[str, Any], list[ConfigError]]:
    """Return the values with the ladder's steps in order, and what was chosen against what."""
    result = dict(values)
    fixed = set(chosen) & ORDER.keys()
    quarrels = []
    if {"sample_after", "dump_after"} <= fixed and result["sample_after"] >= result["dump_after"]:
        must_be = f"below dump_after ({result['dump_after']:g})"
        quarrels.append(ConfigError("sample_after", result["sample_after"], must_be))
        for name in ("sample_after", "dump_after"):
            result[name] = KNOBS[name].default
            fixed.discard(name)
    end = result["terminate_after"]
    blocking = [
        name
        for name in ORDER
        if name in fixed and name != "terminate_after" and result[name] >= end
    ]
    if end and blocking:
        must_be = f"0 or above {blocking[-1]} ({result[blocking[-1]]:g})"
        quarrels.append(ConfigError("terminate_after", end, must_be))
        end = result["terminate_after"] = 0.0
    if not end:
        end = math.inf
    if "dump_after" not in fixed:
        low = result["sample_after"] if "sample_after" in fixed else 0.0
        if result["dump_after"] <= low:
            result["dump_after"] = 2 * low
        if result["dump_after"] >= end:
            result["dump_after"] = (low + end) / 2
    if "sample_after" not in fixed and result["sample_after"] >= result["dump_after"]:
        result["sample_after"] = result["dump_after"] / 2
    if "interrupt_after" not in fixed and result["interrupt_after"] >= end:
        result["interrupt_after"] = end / 2
    if "backstop_after" not in fixed and result["backstop_after"] >= end:
        result["backstop_after"] = (result["dump_after"] + end) / 2
    return result, quarrels

"""The loop where it is not stuck: somebody only asked after it, or it is over."""

from __future__ import annotations

from watchdog_hook.core.model import NO_STALL
from watchdog_hook.core.rules.rule import WHOLE, Rule, caller, span
from watchdog_hook.core.signs import Case, both, neither

_EXECUTOR_END = "executor.end"
# Phases behind it, as integrations and the watchdog name them.
_AFTER = {
    "shutdown": "what it had started is being shut down",
    "exit": "the process has not ended: its exit hooks run, or what Airflow does last",
}
# What is no fault of the executor's.
_TAKES_TIME = {
    "KubernetesExecutor": " It gives its watchers some 20 s to end; more is not normal.",
    "LocalExecutor": " It waits for the tasks that it still runs, however long they take.",
}
_JUST_NOW = 5.0  # seconds since a beat in which nobody asks where the next one is


def _asked(case: Case) -> bool:
    return case.how == "asked"


def _is_over(case: Case) -> bool:
    phase = case.phase or ""
    return phase.startswith(_EXECUTOR_END) or phase in _AFTER


def _no_stall(case: Case) -> str:
    found = "nothing is wrong" if case.silence_s < _JUST_NOW else "so far this is no stall"
    return (
        f"{found}; the loop's last beat came {span(case.silence_s)} ago{_phase(case)}, and it stands in"
        f" {case.leaf}{caller(case)}"
    )


def _phase(case: Case) -> str:
    return f" in phase {case.phase}" if case.phase else ""


def _ends(case: Case) -> str:
    by = f" (ended by {case.seen.ended_by})" if case.seen.ended_by else ""
    phase = case.phase or ""
    what = "the executor is being shut down" if phase.startswith(_EXECUTOR_END) else _AFTER[phase]
    whom = f" for {case.awaited.name}, pid {case.awaited.pid}" if case.awaited else ""
    normal = next((words for name, words in _TAKES_TIME.items() if name in phase), "")
    return (
        f"the loop is over{by}, and {what}; that waits in {case.leaf}{caller(case)}{whom}.{normal}"
        f" The process does not {'schedule' if case.component is None else 'work'} any more"
    )


RULES = (
    Rule(
        NO_STALL,
        both(_asked, neither(_is_over)),
        _no_stall,
        "Nothing has to be done: this dump was asked for, by `watchdog-hook dump`.",
        raise_helps=False,
        rank=WHOLE,
    ),
    Rule(
        "shutdown",
        _is_over,
        _ends,
        "Nothing is scheduled any more: restart the process, unless it only waits for the tasks of a"
        " LocalExecutor. [watchdog_hook] terminate_after ends a process that has been silent for so long while it"
        " leaves.",
        raise_helps=False,
        known=("apache/airflow#28328", "apache/airflow#52284", "apache/airflow#67870"),
    ),
)

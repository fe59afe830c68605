"""The loop where it is not stuck: somebody only asked after it, or it is over."""

from __future__ import annotations

import re

from watchdog_hook.core.model import NO_STALL
from watchdog_hook.core.observed import Child
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
# LocalExecutor.end of Airflow 3 goes through its workers and puts one closing message for each that it finds alive
# (executors/local_executor.py, 3.0-3.3). Where a worker has taken another one's and is gone before its own turn,
# none is put for it: the other one waits for ever, and the scheduler for the other one. Of several such workers
# one reads from their queue and the rest wait for its lock, for good where the reader alone is killed.
_WORKER = re.compile(r"(?:Fork|Spawn|ForkServer)?Process-\d+")
_WAITS_FOR_WORK = ("read on a pipe", "futex shared with other processes")
_NEVER_TOLD = (
    " It runs no task, and that worker still waits for work: another one took its closing message, and there will"
    " be no second one. It waits for ever: kill -9 {pids} lets the scheduler end."
)
_RUNS_NOTHING = " By its books it runs no task any more."
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
    return (
        f"the loop is over{by}, and {what}; that waits in {case.leaf}{caller(case)}{whom}.{_patience(case, phase)}"
        f" The process does not {'schedule' if case.component is None else 'work'} any more"
    )


def _patience(case: Case, phase: str) -> str:
    """Return how long the end of an executor may take, or that it never comes."""
    executor = next((name for name in _TAKES_TIME if name in phase), None)
    if executor is None:
        return ""
    if executor != "LocalExecutor" or _running(case, executor) != 0:
        return _TAKES_TIME[executor]
    idle = [child.pid for child in case.children if _waits_for_work(child)]
    if case.awaited is None or case.awaited.pid not in idle:
        return _RUNS_NOTHING
    return _NEVER_TOLD.format(pids=" ".join(map(str, sorted(idle))))


def _running(case: Case, name: str) -> int | None:
    return next((each.running for each in case.seen.executors if each.name == name), None)


def _waits_for_work(child: Child) -> bool:
    return child.waits in _WAITS_FOR_WORK and _WORKER.fullmatch(child.name) is not None


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
        "Nothing is scheduled any more: restart the process, unless it only waits for tasks that a LocalExecutor"
        " still runs. [watchdog_hook] terminate_after ends a process that has been silent for so long while it"
        " leaves.",
        raise_helps=False,
        known=(
            "apache/airflow#28328",
            "apache/airflow#45329",
            "apache/airflow#52284",
            "apache/airflow#67870",
        ),
    ),
)

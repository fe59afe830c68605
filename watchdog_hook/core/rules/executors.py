"""A loop that turns while nothing comes of it: its executors, and the pod watchers that tell them."""

from __future__ import annotations

from watchdog_hook.core.observed import Child, ExecutorFacts, Watcher
from watchdog_hook.core.progress import gets_nowhere
from watchdog_hook.core.rules.rule import WHOLE, Rule, span
from watchdog_hook.core.signs import Case, both
from watchdog_hook.core.watchers import doing_text, heard_text, is_silent


def _turns(case: Case) -> bool:
    return case.how == "turning"


def _silent_watchers(case: Case) -> list[tuple[Watcher, Child | None]]:
    children = {child.pid: child for child in case.children}
    watchers = [watcher for facts in case.seen.executors for watcher in facts.watchers]
    pairs = [(watcher, children.get(watcher.pid or 0)) for watcher in watchers]
    return [(watcher, child) for watcher, child in pairs if is_silent(watcher, child)]


def _watcher_silent(case: Case) -> str:
    found = []
    for watcher, child in _silent_watchers(case):
        waits = f" in {child.waits}" if child is not None and child.waits else ""
        found.append(
            f"the pod watcher of namespace {watcher.namespace} (KubernetesJobWatcher, pid {watcher.pid}) shows no"
            f" sign of life: {doing_text(watcher, child)}{waits}; {heard_text(watcher)}"
        )
    return "; ".join(found) + "; so the executor does not learn which pods have ended"


def _no_progress(case: Case) -> str:
    stuck = [facts for facts in case.seen.executors if gets_nowhere(facts)]
    said = [_numbers(facts) for facts in stuck] or ["an executor has work and starts none"]
    silent = [
        f"the pod watcher of namespace {watcher.namespace} has been silent for {span(watcher.silent_s or 0.0)}"
        for watcher, _ in _silent_watchers(case)
    ]
    return "; ".join([*said, *silent])


def _numbers(facts: ExecutorFacts) -> str:
    waits = (facts.task_queue or 0) + (facts.queued or 0)
    if not waits:
        return (
            f"{facts.running or 0} tasks run by the books of {facts.name}, and none has ended there"
        )
    room = "" if facts.open_slots is None else f" with {facts.open_slots} slots open"
    return f"{waits} tasks wait in {facts.name}{room}, and none is started"


RULES = (
    Rule(
        "watcher-silent",
        both(_turns, lambda case: bool(_silent_watchers(case))),
        _watcher_silent,
        "End that child (and only it): kill -9 its pid; the executor's health check starts a new one at its next"
        " turn, and that one begins with a list of all pods. [watchdog_hook] restart_watchers = True does it.\n"
        "A watch without a read timeout may wait on a dead connection for ever: it has one of 30 s from provider"
        " 8.3 on, unless [kubernetes_executor] kube_client_request_args replaces it (from 10.4 on).\n"
        "[kubernetes_executor] enable_tcp_keepalive, tcp_keep_idle: keep the idle time below the load balancer's"
        " (Azure: 240 s).",
        raise_helps=False,
        rank=WHOLE,
        known=("apache/airflow#12644", "apache/airflow#14791", "apache/airflow#10860"),
    ),
    Rule(
        "no-progress",
        _turns,
        _no_progress,
        "Nothing is blocked: it is the executor's accounting, a quota, or a date until which it"
        " waits. Look at the answers"
        " to the last calls below, at the namespace's quota and at the watchers' last events. A restart of the"
        " scheduler rebuilds the executor's books.",
        confidence="medium",
        raise_helps=False,
        rank=WHOLE,
        known=("apache/airflow#36998", "apache/airflow#56045", "apache/airflow#71380"),
    ),
)

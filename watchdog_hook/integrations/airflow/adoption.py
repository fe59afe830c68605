"""
Adoptions without an answer. The PATCH that gives a pod our label may have been applied: the next pass would
not find the pod under its old label, and would reset a task that runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from watchdog_hook.integrations.airflow.pods import read_pod
from watchdog_hook.integrations.kubernetes import StuckApiCall

if TYPE_CHECKING:
    from watchdog_hook.watchdog import Watchdog


@dataclass
class Doubt:
    """A pod whose adoption got no answer."""

    pod: str
    namespace: str


class Adoptions:
    """The doubtful ones of one executor. A task instance is withheld from the reset until its pod was read."""

    def __init__(self, dog: Watchdog, executor: Any) -> None:
        self._dog = dog
        self._executor = executor
        self._doubts: dict[Any, Doubt] = {}

    def adopt_one(self, wrapped: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Stand in for `adopt_launched_task`: note what was being adopted when no answer came."""
        pod = kwargs.get("pod", args[1] if len(args) > 1 else None)
        by_key = kwargs.get("tis_to_flush_by_key", args[2] if len(args) > 2 else {})
        before = set(by_key)
        try:
            return wrapped(*args, **kwargs)
        except StuckApiCall as error:
            if error.why != "refused" and pod is not None:
                key = self._dog.fail.run("adoption", _key_of, pod)
                if key in before:
                    self._doubts[key] = Doubt(pod.metadata.name, pod.metadata.namespace)
            raise

    def adopt_all(self, wrapped: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """
        Stand in for `try_adopt_task_instances`.

        Reads the doubtful pods first. Where the server is still silent the whole pass ends, as it did
        before: nothing is reset, and the next pass asks again.
        """
        tis = list(kwargs.get("tis", args[0] if args else ()))
        # Those that were adopted before the pass was cut short are not found under their old label either.
        running = self._executor.running
        rest = [ti for ti in tis if ti.key not in running and not self._is_withheld(ti)]
        return wrapped(rest)

    def _is_withheld(self, ti: Any) -> bool:
        """Tell whether to keep a task instance out of this pass: its adoption was applied, or may have been."""
        doubt = self._doubts.get(ti.key)
        if doubt is None:
            return False
        try:
            pod = read_pod(self._executor, doubt.pod, doubt.namespace)
        except StuckApiCall:
            raise
        except Exception:  # noqa: BLE001 - an error answer: still not known
            return True
        del self._doubts[ti.key]
        if pod is None:
            return False  # gone: Airflow resets the task, as it should
        label = (pod.metadata.labels or {}).get("airflow-worker")
        if label != self._executor._make_safe_label_value(str(self._executor.scheduler_job_id)):
            return False  # not applied: it is found under its old label, and adopted now
        key = self._executor.get_task_key(ti) if hasattr(self._executor, "get_task_key") else ti.key
        self._executor.running.add(key)
        self._dog.note(
            "created_already",
            ti=str(ti.key),
            pod=doubt.pod,
            action="adopted",
            outcome="the adoption without an answer had been applied",
        )
        return True


def _key_of(pod: Any) -> Any:
    from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import annotations_to_key

    return annotations_to_key(pod.metadata.annotations)

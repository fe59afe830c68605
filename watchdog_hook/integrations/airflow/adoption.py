"""
Adoptions without an answer. The PATCH that gives a pod our label may have been applied: the next pass would
not find the pod under its old label, and would reset a task that runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
        adopted = [ti for ti in tis if ti.key in self._doubts and self._is_ours(ti)]
        if not adopted:
            return wrapped(*args, **kwargs)
        keys = {ti.key for ti in adopted}
        return wrapped([ti for ti in tis if ti.key not in keys])

    def _is_ours(self, ti: Any) -> bool:
        """Tell whether the doubtful adoption was applied; if so the executor takes the task instance."""
        from kubernetes.client import ApiException

        doubt = self._doubts[ti.key]
        arguments = self._executor.kube_config.kube_client_request_args or {}
        try:
            pod = self._executor.kube_client.read_namespaced_pod(
                doubt.pod, doubt.namespace, **arguments
            )
        except ApiException as error:
            if error.status == 404:
                del self._doubts[ti.key]  # gone: Airflow resets the task, as it should
                return False
            raise StuckApiCall("GET pod of a doubtful adoption", 0.0) from error
        del self._doubts[ti.key]
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

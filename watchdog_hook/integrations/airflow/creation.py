"""A pod is created under the name of the attempt before it, so that the server itself refuses a second one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from watchdog_hook.integrations.airflow.jobs import Jobs, ti_text
from watchdog_hook.integrations.airflow.pods import (
    CONFLICT,
    INVALID,
    OutcomeUnknown,
    read_pod,
    same_pod,
)
from watchdog_hook.integrations.kubernetes import StuckApiCall
from watchdog_hook.integrations.patch import entry

if TYPE_CHECKING:
    from watchdog_hook.watchdog import Watchdog


class Creation:
    """Stands in for `create_namespaced_pod` of one executor's own client object."""

    def __init__(self, dog: Watchdog, executor: Any, jobs: Jobs) -> None:
        self._dog = dog
        self._executor = executor
        self._jobs = jobs
        self.key: Any = None  # whose pod is being created
        # By namespace, when the last pod was asked for and when that was answered: its event may come between.
        self.made: dict[str, tuple[float, float]] = {}
        create = executor.kube_client.create_namespaced_pod
        executor.kube_client.create_namespaced_pod = self._creator(create)

    def _creator(self, create: Callable[..., Any]) -> Callable[..., Any]:
        """Return what stands in for the client's own method."""

        def create_namespaced_pod(*args: Any, **kwargs: Any) -> Any:
            body = kwargs.get("body")
            if self.key is None or not isinstance(body, dict):
                return create(*args, **kwargs)
            return guarded(create, None, args, kwargs)

        def first_or_again(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
            metadata = kwargs["body"]["metadata"]
            return self._create(wrapped, args, kwargs, metadata, kwargs.get("namespace", ""))

        guarded = entry("create_namespaced_pod", first_or_again, self._dog.fail)
        return create_namespaced_pod

    def _create(
        self,
        create: Callable[..., Any],
        args: Any,
        kwargs: Any,
        metadata: dict[str, Any],
        namespace: str,
    ) -> Any:
        from kubernetes.client import ApiException

        attempt = self._jobs.attempt(self.key)
        # A hook may leave the name to the server; then there would be none to keep.
        fresh = metadata.get("name") or f"{metadata.get('generateName', 'task-')}{uuid4().hex[:8]}"
        kept = attempt is not None and attempt.name and attempt.namespace == namespace
        metadata["name"] = name = attempt.name if attempt is not None and kept else fresh
        try:
            return self._make(create, args, kwargs, namespace)
        except StuckApiCall as error:
            raise OutcomeUnknown(error, name, namespace) from error
        except ApiException as error:
            if not kept or error.status in INVALID:
                raise
            if error.status != CONFLICT:
                # Quota, throttling, a server that just came back: says nothing of the attempt before.
                why = f"the server answered {error.status}"
                raise OutcomeUnknown(error, name, namespace, why) from error
            pod = self.answer_to_conflict(error, name, namespace, metadata)
            if pod is not None:
                return pod
            if fresh == name:
                raise
        metadata["name"] = fresh
        try:
            return self._make(create, args, kwargs, namespace)
        except StuckApiCall as error:
            raise OutcomeUnknown(error, fresh, namespace) from error

    def _make(self, create: Callable[..., Any], args: Any, kwargs: Any, namespace: str) -> Any:
        asked = self._dog.now
        pod = create(*args, **kwargs)
        self.made[namespace] = asked, self._dog.now
        return pod

    def answer_to_conflict(
        self, conflict: Exception, name: str, namespace: str, metadata: dict[str, Any]
    ) -> Any:
        """
        Return the pod that has our name already, if it is ours; None if it is another's.

        Raises OutcomeUnknown when that cannot be told now: the job goes back, and the name is kept.
        """
        try:
            pod = read_pod(self._executor, name, namespace)
        except Exception as error:  # noqa: BLE001
            # Whatever it is: the pod exists, and a task whose pod exists must not fail for it.
            raise OutcomeUnknown(error, name, namespace) from conflict
        if pod is None or pod.metadata.deletion_timestamp is not None:
            # Gone in between, or going: the name comes free, and the next attempt finds out.
            raise OutcomeUnknown(conflict, name, namespace, "pod is being deleted")
        if not same_pod(pod.metadata.labels or {}, metadata.get("labels") or {}):
            self._dog.note(
                "requeued",
                ti=ti_text(self.key),
                pod=name,
                action="a fresh pod name is used",
                outcome="another pod has that name",
            )
            return None
        phase = pod.status.phase if pod.status else None
        self._dog.note(
            "created_already",
            incident=attempt.incident if (attempt := self._jobs.attempt(self.key)) else None,
            ti=ti_text(self.key),
            pod=name,
            outcome=f"phase {phase}"
            + ("" if phase in ("Pending", "Running", None) else ", left to the watcher"),
        )
        return pod

"""The KubernetesExecutor's methods that are wrapped, and what stands in for each of them."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

from watchdog_hook.integrations.airflow.recovery import Recovery

if TYPE_CHECKING:
    from watchdog_hook.integrations.airflow.fence import Fence
    from watchdog_hook.integrations.kubernetes import ApiCalls
    from watchdog_hook.integrations.patch import Patches
    from watchdog_hook.watchdog import Watchdog

MODULE = "airflow.providers.cncf.kubernetes.executors.kubernetes_executor"

# Parts without which an ended call would cost a task or a pod too many: with one off, no call is ended.
VITAL = {
    "AirflowKubernetesScheduler.run_next",
    "AirflowKubernetesScheduler.run_next_batch",
    "BaseExecutor.heartbeat",
    "KubernetesExecutor._change_state",
    "KubernetesExecutor.start",
    "create_namespaced_pod",
    "recovery",
    "requeue",
}


class KubernetesExecutors:
    """The patches of the provider's classes, and the `Recovery` of each executor that was started."""

    def __init__(self, dog: Watchdog, calls: ApiCalls) -> None:
        self._dog = dog
        self._calls = calls
        self.recoveries: list[Recovery] = []
        self.fence: Fence | None = None

    def patch(self, patches: Patches) -> None:
        """Wrap what is there of the provider's version, and say what is not."""
        from airflow.providers.cncf.kubernetes.executors.kubernetes_executor import (
            KubernetesExecutor as Executor,
        )
        from airflow.providers.cncf.kubernetes.executors.kubernetes_executor_utils import (
            AirflowKubernetesScheduler as Scheduler,
        )

        in_every_version = (
            (Executor, "start", self._started),
            (Executor, "execute_async", self._queued_anew),
            (Executor, "_change_state", self._on("finished.change_state")),
            (Executor, "try_adopt_task_instances", self._on("adoptions.adopt_all")),
            (Executor, "adopt_launched_task", self._on("adoptions.adopt_one")),
            (Scheduler, "run_next", self._on("run_next")),
            (Scheduler, "process_watcher_task", self._watcher_task),
            (Scheduler, "delete_pod", self._on("finished.finish")),
            (Scheduler, "patch_pod_executor_done", self._on("finished.finish")),
        )
        self._calls.vital |= VITAL
        for owner, name, wrapper in in_every_version:
            if not patches.wrap(owner, name, wrapper, "recovery"):
                self._dog.fail.off.add(f"{owner.__name__}.{name}")
                self._dog.note(
                    "part_off",
                    part=f"{owner.__name__}.{name}",
                    outcome="this provider has none, so recovery does not cover it",
                )
        patches.wrap(Executor, "revoke_task", self._on("revoke"), "recovery")  # from 10.0 on
        # From provider 10.21 and 10.23 on.
        for name in ("_create_pods_sequentially", "_create_pods_concurrently"):
            patches.wrap(Executor, name, self._on("create_pods"))
        patches.wrap(Executor, "_discard_stale_pod_creation_task", self._on("admission.discard"))
        patches.wrap(Scheduler, "run_next_batch", self._on("batches.run_next"))
        patches.wrap(Scheduler, "_build_pod_request", self._build_pod_request)

    def of(self, instance: Any) -> Recovery | None:
        """Return the recovery of an executor or of its AirflowKubernetesScheduler."""
        if not self._calls.active:
            return None
        for recovery in self.recoveries:
            executor = recovery.executor
            if instance is executor or instance is executor.kube_scheduler:
                return recovery
        return None

    def _started(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        result = wrapped(*args, **kwargs)
        recovery = self._dog.fail.run("recovery", Recovery, self._dog, self._calls, instance)
        if recovery is not None:
            recovery.admission.fence = self.fence
            self.recoveries = [old for old in self.recoveries if old.executor is not instance]
            self.recoveries.append(recovery)
        return result

    def _queued_anew(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        recovery = self.of(instance)
        key = kwargs.get("key", args[0] if args else None)
        if recovery is not None and key is not None:
            self._dog.fail.run("jobs", recovery.jobs.settled, key)
        return wrapped(*args, **kwargs)

    def _on(self, method: str) -> Any:
        stand_in = attrgetter(method)

        def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            recovery = self.of(instance)
            if recovery is None:
                return wrapped(*args, **kwargs)
            return stand_in(recovery)(wrapped, args, kwargs)

        return wrapper

    def _build_pod_request(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        pod = wrapped(*args, **kwargs)
        recovery = self.of(instance)
        if recovery is None or recovery.creation.key is not None:
            return pod  # one at a time: the name is given at create_namespaced_pod
        job = args[0] if args else kwargs["next_job"]
        return self._dog.fail.run("name", recovery.batches.name_pod, job, pod) or pod

    def _watcher_task(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        recovery = self.of(instance)
        if recovery is not None:
            event = args[0] if args else kwargs["task"]
            named = hasattr(event, "pod_name")  # a tuple up to provider 9.x
            name, namespace = (event.pod_name, event.namespace) if named else event[:2]
            self._dog.fail.run("jobs", recovery.pod_event, name, namespace)
        return wrapped(*args, **kwargs)

"""
The KubernetesExecutor comes back from a call without an answer: no task lost, no pod created twice.

A creation without an answer has an unknown outcome. The job goes back on the task queue, and the next attempt
uses the same pod name: if the first was applied after all, the API server itself refuses the second.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from watchdog_hook.integrations.airflow.admission import Admission
from watchdog_hook.integrations.airflow.adoption import Adoptions
from watchdog_hook.integrations.airflow.batches import Batches
from watchdog_hook.integrations.airflow.creation import Creation
from watchdog_hook.integrations.airflow.finished import FinishedPods
from watchdog_hook.integrations.airflow.jobs import Jobs, key_of, ti_text
from watchdog_hook.integrations.airflow.pods import OutcomeUnknown, read_pod
from watchdog_hook.integrations.airflow.task_queue import TaskQueue
from watchdog_hook.integrations.kubernetes import BROKEN, ApiCalls, StuckApiCall

if TYPE_CHECKING:
    from watchdog_hook.watchdog import Watchdog

SKIP = 2.0  # seconds for which an open breaker keeps the executor from creating pods; renewed each loop


class Recovery:
    """What is kept beside one executor."""

    def __init__(self, dog: Watchdog, calls: ApiCalls, executor: Any) -> None:
        self._dog = dog
        self.executor = executor
        self.jobs = Jobs()
        self.adoptions = Adoptions(dog, executor)
        self.events: dict[str, float] = {}  # by namespace, when its watcher's last one came
        self.finished = FinishedPods(calls, executor)
        self._answers = 0  # the server's, when the present attempt began
        self.queue = TaskQueue(dog, executor, self.jobs)
        self.creation = Creation(dog, executor, self.jobs)
        # Last: from here on calls may be ended, and what they leave has to be picked up above.
        self.server = calls.own(executor.kube_client.api_client)
        self.server.on_failure.append(self.jobs.doubt_all)
        self.admission = Admission(dog, executor, self.jobs, self.queue, self.server)
        self.batches = Batches(dog, self)

    def run_next(self, wrapped: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Stand in for `AirflowKubernetesScheduler.run_next`."""
        job = args[0] if args else kwargs["next_job"]
        key = key_of(job)
        if not self.admission.may_start(job, key):
            return None
        self.creation.key = key
        self.attempt_begins()
        try:
            result = wrapped(*args, **kwargs)
        except OutcomeUnknown as unknown:
            self.put_back_safely(job, key, unknown)
            return None
        except StuckApiCall as error:
            # Past our stand-in for create_namespaced_pod: no name to keep, but no job to lose either.
            self.put_back_safely(job, key, OutcomeUnknown(error, "", ""))
            return None
        except Exception:
            self.jobs.settled(key)  # an answer, or a pod that cannot be built: Airflow's to handle
            raise
        finally:
            self.creation.key = None
        self.jobs.settled(key)
        return result

    def attempt_begins(self) -> None:
        """Remember how many answers the server had given when the attempt began."""
        self._answers = self.server.answers

    def revoke(self, wrapped: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Stand in for `revoke_task`: where it did not get through, what it forgot first is put back."""
        executor, ti = self.executor, kwargs.get("ti", args[0] if args else None)
        key = executor.get_task_key(ti) if hasattr(executor, "get_task_key") else ti.key
        launches = getattr(executor, "pod_launch_attempts", {})
        was_running, launch = key in executor.running, launches.get(key)
        try:
            return wrapped(*args, **kwargs)
        except Exception as error:
            if not isinstance(error, StuckApiCall) and not hasattr(error, BROKEN):
                raise  # an answer
            if was_running:
                executor.running.add(key)
            if launch is not None:
                launches[key] = launch
            raise

    def put_back_safely(self, job: Any, key: Any, unknown: OutcomeUnknown) -> None:
        try:
            self._put_back(job, key, unknown)
        except Exception:  # noqa: BLE001 - a mistake of ours must not lose the job
            self._dog.fail.broke("requeue")
            self.queue.hold(job, key)

    def _put_back(self, job: Any, key: Any, unknown: OutcomeUnknown) -> None:
        error = unknown.error
        incident = getattr(error, "incident", None)
        answers = (self._answers, self.server.answers)
        failures = self.jobs.unknown(
            key, unknown.name, unknown.namespace, answers, incident, unknown.counts
        )
        limit = self._dog.config.requeue_limit
        fields = {
            "incident": incident,
            "call": getattr(error, "call", None),
            "peer": str(self.server.peer),
            "age_s": getattr(error, "age_s", None),
            "ti": ti_text(key),
            "pod": unknown.name,
        }
        if failures > limit and unknown.counts and self._is_not_there(key, unknown):
            self.jobs.settled(key)
            self._dog.note(
                "dropped",
                **fields,
                action="fail the task",
                outcome=f"no answer to {failures} attempts, while the server answered others",
            )
            self.executor.fail(key, error)
            return
        self.queue.rest()
        self.queue.hold(job, key)
        self._dog.note(
            "requeued",
            **fields,
            action="put back on the task queue, same pod name",
            outcome=unknown.why or getattr(error, "why", "broken"),
        )
        self._dog.count("requeues")

    def _is_not_there(self, key: Any, unknown: OutcomeUnknown) -> bool:
        """Ask once more, by name, before a task fails: its pod may run, and then it must not."""
        try:
            pod = read_pod(self.executor, unknown.name, unknown.namespace) if unknown.name else None
        except Exception:  # noqa: BLE001 - no answer to that either, so it is not this job's fault
            return False
        if pod is not None:
            unknown.why = "the pod exists"
        return pod is None

    def pod_event(self, name: str, namespace: str) -> None:
        """A watcher's event reached the executor."""
        self.events[namespace] = self._dog.now
        self.jobs.pod_seen(name)

    def before_heartbeat(self) -> None:
        """Have pod creation wait while the server is left alone; make good what is owed once it answers."""
        self.queue.wake()
        if not self.server.allows():
            if self._waits_by_date():
                until = datetime.now() + timedelta(seconds=SKIP)  # noqa: DTZ005 - as the executor compares
                after = self.executor.create_pods_after
                if after is None or after < until:
                    self.executor.create_pods_after = until
            return
        self.finished.make_good()

    def _waits_by_date(self) -> bool:
        # From 10.16 on. Where creation is a method of its own (10.21) that one is left out instead: the
        # executor would log a "kubernetes rate limit" in each loop, and that is not what it is.
        return hasattr(self.executor, "create_pods_after") and not hasattr(
            self.executor, "_create_pods_sequentially"
        )

    def create_pods(self, wrapped: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Stand in for `_create_pods_sequentially` and `_create_pods_concurrently`."""
        return wrapped(*args, **kwargs) if self.server.allows() else None

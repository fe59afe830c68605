"""
The KubernetesExecutor comes back from a call without an answer: no task lost, no pod created twice.

A creation without an answer has an unknown outcome. The job goes back on the task queue, and the next attempt
uses the same pod name: if the first was applied after all, the API server itself refuses the second.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta
from queue import Empty
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from watchdog_hook.integrations.airflow.adoption import Adoptions
from watchdog_hook.integrations.airflow.batches import Batches
from watchdog_hook.integrations.airflow.fence import Answer, forget
from watchdog_hook.integrations.airflow.finished import FinishedPods
from watchdog_hook.integrations.airflow.jobs import Attempt, Jobs, key_of, ti_text
from watchdog_hook.integrations.airflow.pods import (
    CONFLICT,
    INVALID,
    OutcomeUnknown,
    read_pod,
    same_pod,
)
from watchdog_hook.integrations.airflow.task_instances import Standing, standing
from watchdog_hook.integrations.kubernetes import BROKEN, ApiCalls, StuckApiCall
from watchdog_hook.integrations.patch import entry

if TYPE_CHECKING:
    from watchdog_hook.integrations.airflow.fence import Fence
    from watchdog_hook.watchdog import Watchdog

REST = 0.5  # seconds without a creation after one that got no answer; a heartbeat ends them sooner
SKIP = 2.0  # seconds for which an open breaker keeps the executor from creating pods; renewed each loop


class Recovery:
    """What is kept beside one executor."""

    def __init__(self, dog: Watchdog, calls: ApiCalls, executor: Any) -> None:
        self._dog = dog
        self.executor = executor
        self.jobs = Jobs()
        self.adoptions = Adoptions(dog, executor)
        self.fence: Fence | None = None
        self.creating: Any = None  # the key whose pod is being created
        # After an attempt without an answer nothing is created until the next heartbeat: the loop has to
        # turn. That job goes back last, so that one which always gets stuck does not keep the others.
        self._rest_until = 0.0
        self._held: list[tuple[Any, Any]] = []
        self.events: dict[str, float] = {}  # by namespace, when its watcher's last one came
        # By namespace, when the last pod was asked for and when that was answered: its event may come between.
        self.made: dict[str, tuple[float, float]] = {}
        self.finished = FinishedPods(calls, executor)
        self._answers = 0  # the server's, when the present attempt began
        self._follow_queue(executor.task_queue)
        create = executor.kube_client.create_namespaced_pod
        executor.kube_client.create_namespaced_pod = self._creator(create)
        # Last: from here on calls may be ended, and what they leave has to be picked up above.
        self.server = calls.own(executor.kube_client.api_client)
        self.server.on_failure.append(self.jobs.doubt_all)
        self.batches = Batches(dog, self)

    def _follow_queue(self, queue: Any) -> None:
        """Count jobs in and out. On the proxy itself: only this process uses it."""
        put, get = queue.put, queue.get_nowait
        dog, fail, jobs = self._dog, self._dog.fail, self.jobs
        self.put_back_raw = put

        def counted_put(job: Any, *args: Any, **kwargs: Any) -> Any:
            fail.run("jobs", lambda: jobs.put(key_of(job), dog.now))
            return put(job, *args, **kwargs)

        def counted_get() -> Any:
            if self._held and not self._rests():
                fail.run("requeue", self._release)
            job = get()
            fail.run("jobs", lambda: jobs.taken(key_of(job)))
            return job

        queue.put, queue.get_nowait = counted_put, counted_get

    # --- creation -------------------------------------------------------------------------------

    def run_next(self, wrapped: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Stand in for `AirflowKubernetesScheduler.run_next`."""
        job = args[0] if args else kwargs["next_job"]
        key = key_of(job)
        if not self.may_start(job, key):
            return None
        self.creating = key
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
            self.creating = None
        self.jobs.settled(key)
        return result

    def attempt_begins(self) -> None:
        """Remember how many answers the server had given when the attempt began."""
        self._answers = self.server.answers

    def may_start(self, job: Any, key: Any) -> bool:
        """Tell whether a pod for this job should be created now; where not, the job has been dealt with."""
        if self.jobs.outdated(key):
            self.drop(key, "a newer job of this task instance waits", forget=False)
            return False
        ours, attempt = self.jobs.put_back(key), self.jobs.attempt(key)
        if attempt is not None and attempt.seen:
            self.jobs.settled(key)
            if ours:
                self._created_already(key, attempt, "seen by the watcher")
                return False
            # The provider's own requeue of a pod that failed before its start: it must get a new pod.
        if self._rests() or not self.server.allows():
            self.queue(job, key, ours=ours)
            return False
        answer = Answer.OURS if self.fence is None else self.fence.look()
        if answer is Answer.UNKNOWN:
            self._rest_until = self._dog.now + REST
            self.queue(job, key, ours=ours)
            self._dog.note("requeued", ti=ti_text(key), outcome="database did not answer")
            return False
        if answer is Answer.FENCED:
            self._give_up(key)
            return False
        if not self.jobs.doubtful(key):
            return True
        try:
            found = standing(key, self.executor.job_id)
        except Exception:  # noqa: BLE001 - a database that does not answer is no reason to lose or double a task
            self.queue(job, key, ours=True)
            self._dog.note("requeued", ti=ti_text(key), outcome="database did not answer")
            return False
        if found is Standing.OURS:
            return True
        if found is Standing.STARTED:
            self.jobs.settled(key)  # and stays in the executor's books: its end will be reported
            self._created_already(key, attempt, found.value)
            return False
        # Else Airflow up to 2.9 would never queue it again: "still running".
        self.executor.running.discard(key)
        self.drop(key, found.value)
        return False

    def fenced(self, jobs: list[Any]) -> bool:
        """Tell whether another scheduler has taken over; then these jobs, out of the queue, are forgotten."""
        if self.fence is None or self.fence.look() is not Answer.FENCED:
            return False
        for job in jobs:
            self._give_up(key_of(job))
        return True

    def _give_up(self, key: Any) -> None:
        forget(self.executor, key)
        self.drop(key, "another scheduler has taken it over")

    def _created_already(self, key: Any, attempt: Attempt | None, outcome: str) -> None:
        self._dog.note(
            "created_already",
            incident=attempt.incident if attempt else None,
            ti=ti_text(key),
            pod=attempt.name if attempt else None,
            outcome=outcome,
        )

    def discard(self, wrapped: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """
        Stand in for `_discard_stale_pod_creation_task`, the provider's own check from 10.23 on.

        It takes a task whose pod was created after all, and has started, for one that is no longer ours.
        """
        job = args[0] if args else kwargs["task"]
        key = key_of(job)
        attempt = self.jobs.attempt(key)
        if attempt is not None and standing(key, self.executor.job_id) is Standing.STARTED:
            self._created_already(key, attempt, Standing.STARTED.value)
            self.jobs.settled(key)
            return None
        self.jobs.settled(key)
        return wrapped(*args, **kwargs)

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
            if all(held is not job for held, _ in self._held):
                self._held.append((job, key))

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
        self._rest_until = self._dog.now + REST
        self._held.append((job, key))
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

    def facts(self) -> tuple[int, float | None]:
        """Return jobs waiting, and the age of the oldest in seconds, for the watchdog's thread."""
        oldest = self.jobs.oldest()
        return self.waiting, None if oldest is None else self._dog.now - oldest

    @property
    def waiting(self) -> int:
        """How many jobs wait for a pod: those in the queue, and those about to go back."""
        return self.jobs.waiting + len(self._held)

    def _rests(self) -> bool:
        return self._dog.now < self._rest_until

    def _release(self) -> None:
        """Put back what was held, unless its key was queued anew in the meantime."""
        held, self._held = self._held, []
        for job, key in held:
            if self.jobs.outdated(key):
                self.drop(key, "a newer job of this task instance waits", forget=False)
            else:
                self.queue(job, key, ours=True)

    def queue(self, job: Any, key: Any, *, ours: bool) -> None:
        self.put_back_raw(job)
        self.jobs.put(key, self._dog.now, ours=ours)

    def take_all(self) -> list[Any]:
        """Take out every job that waits for a pod, those that are about to go back too, and return them."""
        jobs, self._held = [job for job, _ in self._held], []
        queue = self.executor.task_queue
        with contextlib.suppress(Empty):
            while True:
                jobs.append(queue.get_nowait())
                queue.task_done()
        for job in jobs:
            self.jobs.settled(key_of(job))
        return jobs

    def drop(self, key: Any, why: str, *, forget: bool = True) -> None:
        if forget:
            self.jobs.settled(key)
        self._dog.note("dropped", ti=ti_text(key), action="no pod is created", outcome=why)

    def _creator(self, create: Callable[..., Any]) -> Callable[..., Any]:
        """Return what stands in for `create_namespaced_pod` of the executor's own client object."""

        def create_namespaced_pod(*args: Any, **kwargs: Any) -> Any:
            body = kwargs.get("body")
            if self.creating is None or not isinstance(body, dict):
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

        attempt = self.jobs.attempt(self.creating)
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
            pod = read_pod(self.executor, name, namespace)
        except Exception as error:  # noqa: BLE001
            # Whatever it is: the pod exists, and a task whose pod exists must not fail for it.
            raise OutcomeUnknown(error, name, namespace) from conflict
        if pod is None or pod.metadata.deletion_timestamp is not None:
            # Gone in between, or going: the name comes free, and the next attempt finds out.
            raise OutcomeUnknown(conflict, name, namespace, "pod is being deleted")
        if not same_pod(pod.metadata.labels or {}, metadata.get("labels") or {}):
            self._dog.note(
                "requeued",
                ti=ti_text(self.creating),
                pod=name,
                action="a fresh pod name is used",
                outcome="another pod has that name",
            )
            return None
        phase = pod.status.phase if pod.status else None
        self._dog.note(
            "created_already",
            incident=attempt.incident if (attempt := self.jobs.attempt(self.creating)) else None,
            ti=ti_text(self.creating),
            pod=name,
            outcome=f"phase {phase}"
            + ("" if phase in ("Pending", "Running", None) else ", left to the watcher"),
        )
        return pod

    # --- the rest of the loop -------------------------------------------------------------------

    def before_heartbeat(self) -> None:
        """Have pod creation wait while the server is left alone; make good what is owed once it answers."""
        self._rest_until = 0.0
        self._release()
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

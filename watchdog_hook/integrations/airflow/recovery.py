"""
The KubernetesExecutor comes back from a call without an answer: no task lost, no pod created twice.

A creation without an answer has an unknown outcome. The job goes back on the task queue, and the next attempt
uses the same pod name: if the first was applied after all, the API server itself refuses the second.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from watchdog_hook.core.breaker import Gate
from watchdog_hook.integrations.airflow.adoption import Adoptions
from watchdog_hook.integrations.airflow.jobs import Attempt, Jobs, key_of
from watchdog_hook.integrations.airflow.task_instances import Standing, standing
from watchdog_hook.integrations.kubernetes import BROKEN, ApiCalls, Server, StuckApiCall
from watchdog_hook.integrations.patch import entry

if TYPE_CHECKING:
    from watchdog_hook.watchdog import Watchdog

CONFLICT = 409
INVALID = (400, 422)  # the pod itself is wrong, and will be the next time too
REST = 0.5  # seconds without a creation after one that got no answer; a heartbeat ends them sooner
OWED_TRIES = 10  # error answers to one of them, after which it is left as it is
OWED_PER_LOOP = 8  # deletions and patches of finished pods made good in one loop
SKIP = 2.0  # seconds for which an open breaker keeps the executor from creating pods; renewed each loop

# What tells that a pod is that of our job and no other; the last only where the provider sets it.
IDENTITY = ("dag_id", "task_id", "run_id", "try_number", "map_index", "ti_id")


class OutcomeUnknown(BaseException):
    """
    A creation ended without an answer. Never leaves `run_next`.

    Not an Exception: the provider logs the whole pod for those, on Airflow 3 with the workload's token.
    """

    def __init__(
        self, error: BaseException, name: str, namespace: str, answered: str | None = None
    ) -> None:
        self.error = error
        self.name = name
        self.namespace = namespace
        self.why = (
            answered  # what the server said, where it answered, yet not what became of the pod
        )
        self.counts = answered is None  # against requeue_limit
        super().__init__()


@dataclass
class Owed:
    """A finished pod whose deletion or patch got no answer."""

    method: str
    errors: int = 0


class Recovery:
    """What is kept beside one executor."""

    def __init__(self, dog: Watchdog, calls: ApiCalls, executor: Any) -> None:
        self._dog = dog
        self._calls = calls
        self.executor = executor
        self.jobs = Jobs()
        self.adoptions = Adoptions(dog, executor, self.read_pod)
        self.creating: Any = None  # the key whose pod is being created
        # Inside _change_state, whose failures go back into the queue it drains.
        self.changing_state = False
        # After an attempt without an answer nothing is created until the next heartbeat: the loop has to
        # turn. That job goes back last, so that one which always gets stuck does not keep the others.
        self._rest_until = 0.0
        self._held: list[tuple[Any, Any]] = []
        self.owed: dict[tuple[str, str], Owed] = {}  # by namespace and name of the pod
        self.batch: dict[Any, tuple[str, str, dict[str, Any]]] = {}  # created in one event loop
        self._answers = 0  # the server's, when the present attempt began
        self._follow_queue(executor.task_queue)
        create = executor.kube_client.create_namespaced_pod
        executor.kube_client.create_namespaced_pod = self._creator(create)
        # Last: from here on calls may be ended, and what they leave has to be picked up above.
        self.server: Server = calls.own(executor.kube_client.api_client)
        self.server.on_failure.append(self.jobs.doubt_all)

    def _follow_queue(self, queue: Any) -> None:
        """Count jobs in and out. On the proxy itself: only this process uses it."""
        put, get = queue.put, queue.get_nowait
        fail, jobs = self._dog.fail, self.jobs
        self.put_back_raw = put

        def counted_put(job: Any, *args: Any, **kwargs: Any) -> Any:
            fail.run("jobs", lambda: jobs.put(key_of(job)))
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
        if not self._may_start(job, key):
            return None
        self.creating, self._answers = key, self.server.answers
        try:
            result = wrapped(*args, **kwargs)
        except OutcomeUnknown as unknown:
            self._put_back_safely(job, key, unknown)
            return None
        except StuckApiCall as error:
            # Past our stand-in for create_namespaced_pod: no name to keep, but no job to lose either.
            self._put_back_safely(job, key, OutcomeUnknown(error, "", ""))
            return None
        except Exception:
            self.jobs.settled(key)  # an answer, or a pod that cannot be built: Airflow's to handle
            raise
        finally:
            self.creating = None
        self.jobs.settled(key)
        return result

    def _may_start(self, job: Any, key: Any) -> bool:
        """Tell whether a pod for this job should be created now; where not, the job has been dealt with."""
        if self.jobs.outdated(key):
            self._drop(key, "a newer job of this task instance waits", forget=False)
            return False
        ours, attempt = self.jobs.put_back(key), self.jobs.attempt(key)
        if attempt is not None and attempt.seen:
            self.jobs.settled(key)
            if ours:
                self._created_already(key, attempt, "seen by the watcher")
                return False
            # The provider's own requeue of a pod that failed before its start: it must get a new pod.
        if self._rests() or not self.server.allows():
            self._queue(job, key, ours=ours)
            return False
        if not self.jobs.doubtful(key):
            return True
        try:
            found = standing(key, self.executor.job_id)
        except Exception:  # noqa: BLE001 - a database that does not answer is no reason to lose or double a task
            self._queue(job, key, ours=True)
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
        self._drop(key, found.value)
        return False

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

    def _put_back_safely(self, job: Any, key: Any, unknown: OutcomeUnknown) -> None:
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
            pod = self.read_pod(unknown.name, unknown.namespace) if unknown.name else None
        except Exception:  # noqa: BLE001 - no answer to that either, so it is not this job's fault
            return False
        if pod is not None:
            unknown.why = "the pod exists"
        return pod is None

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
                self._drop(key, "a newer job of this task instance waits", forget=False)
            else:
                self._queue(job, key, ours=True)

    def _queue(self, job: Any, key: Any, *, ours: bool) -> None:
        self.put_back_raw(job)
        self.jobs.put(key, ours=ours)

    def _drop(self, key: Any, why: str, *, forget: bool = True) -> None:
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
            return create(*args, **kwargs)
        except StuckApiCall as error:
            raise OutcomeUnknown(error, name, namespace) from error
        except ApiException as error:
            if not kept or error.status in INVALID:
                raise
            if error.status != CONFLICT:
                # Quota, throttling, a server that just came back: says nothing of the attempt before.
                why = f"the server answered {error.status}"
                raise OutcomeUnknown(error, name, namespace, why) from error
            pod = self._answer_to_conflict(error, name, namespace, metadata)
            if pod is not None:
                return pod
            if fresh == name:
                raise
        metadata["name"] = fresh
        try:
            return create(*args, **kwargs)
        except StuckApiCall as error:
            raise OutcomeUnknown(error, fresh, namespace) from error

    def _answer_to_conflict(
        self, conflict: Exception, name: str, namespace: str, metadata: dict[str, Any]
    ) -> Any:
        """
        Return the pod that has our name already, if it is ours; None if it is another's.

        Raises OutcomeUnknown when that cannot be told now: the job goes back, and the name is kept.
        """
        try:
            pod = self.read_pod(name, namespace)
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

    def read_pod(self, name: str, namespace: str) -> Any:
        """Return the pod of that name; None if there is none. Lists where the account may not `get`."""
        from kubernetes.client import ApiException

        client = self.executor.kube_client
        arguments = self.executor.kube_config.kube_client_request_args or {}
        try:
            return client.read_namespaced_pod(name, namespace, **arguments)
        except ApiException as error:
            if error.status == 404:
                return None
            if error.status != 403:
                raise
        found = client.list_namespaced_pod(
            namespace, field_selector=f"metadata.name={name}", **arguments
        )
        return found.items[0] if found.items else None

    # --- creation through asyncio ---------------------------------------------------------------

    def run_next_batch(self, wrapped: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """
        Stand in for `run_next_batch`, whose requests run in an event loop of the main thread.

        No signal goes there: it would leave requests running behind our back. Its calls get a timeout instead.
        """
        jobs = list(args[0] if args else kwargs["next_jobs"])
        results: list[tuple[Any, Exception | None]] = []
        starting: list[Any] = []
        last = {key_of(job): index for index, job in enumerate(jobs)}
        for index, job in enumerate(jobs):
            key = key_of(job)
            if last[key] != index:
                self._drop(key, "a newer job of this task instance waits", forget=False)
                results.append((job, None))
            elif self.server.breaker.gate is Gate.TRIAL and starting:
                self._queue(job, key, ours=self.jobs.put_back(key))  # one tries, the others wait
                results.append((job, None))
            elif self._may_start(job, key):
                starting.append(job)
            else:
                results.append((job, None))
        if not starting:
            return results
        self.batch, self._answers = {}, self.server.answers
        with self._time_limit():
            outcomes = wrapped(starting)
        for job, error in outcomes:
            results.append((job, self._outcome(job, error)))
        return results

    @contextlib.contextmanager
    def _time_limit(self) -> Iterator[None]:
        config, before = (
            self.executor.kube_config,
            self.executor.kube_config.kube_client_request_args,
        )
        limit = self.server.breaker.limit or self._dog.config.interrupt_after
        given = before or {}
        if given.get("_request_timeout") is None:
            config.kube_client_request_args = {**given, "_request_timeout": limit}
        try:
            yield
        finally:
            config.kube_client_request_args = before

    def name_pod(self, job: Any, pod: Any) -> Any:
        """Give a pod that is built for a batch the name of the attempt before, and note what it is."""
        key = key_of(job)
        attempt, metadata = self.jobs.attempt(key), pod.metadata
        if attempt is not None and attempt.namespace == metadata.namespace:
            metadata.name = attempt.name
        self.batch[key] = (metadata.name, metadata.namespace, {"labels": metadata.labels})
        return pod

    def _outcome(self, job: Any, error: Exception | None) -> Exception | None:
        """Return what the executor is to be told of one creation of a batch; None: nothing is left to do."""
        key = key_of(job)
        named = self.batch.get(key)
        if error is None or named is None:
            self.jobs.settled(key)
            if error is None:
                self.server.answered()
            return error
        name, namespace, metadata = named
        if is_broken_async(error):
            self.server.failed()
            if not self._dog.config.requeue_connection_errors and not isinstance(
                error, TimeoutError
            ):
                return error
            self._put_back_safely(job, key, OutcomeUnknown(error, name, namespace))
            return None
        self.server.answered()
        status = getattr(error, "status", None)
        if self.jobs.attempt(key) is None or status in INVALID or status is None:
            self.jobs.settled(key)
            return error
        self.creating = key
        try:
            if status != CONFLICT:
                raise OutcomeUnknown(error, name, namespace, f"the server answered {status}")
            if self._answer_to_conflict(error, name, namespace, metadata) is None:
                self.jobs.settled(key)
                self._queue(job, key, ours=True)  # the next attempt takes a fresh name
            else:
                self.jobs.settled(key)
        except OutcomeUnknown as unknown:
            self._put_back_safely(job, key, unknown)
        finally:
            self.creating = None
        return None

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
        for pod, owed in list(self.owed.items())[:OWED_PER_LOOP]:
            self._make_good(pod, owed)

    def _make_good(self, pod: tuple[str, str], owed: Owed) -> None:
        namespace, name = pod
        del self.owed[pod]
        try:
            method = getattr(self.executor.kube_scheduler, owed.method)
            self.finish_pod(method, pod_name=name, namespace=namespace)
        except Exception:  # noqa: BLE001 - an error answer; it waits behind the others for its next turn
            owed.errors += 1
            if owed.errors < OWED_TRIES:
                self.owed[pod] = owed

    def _waits_by_date(self) -> bool:
        # From 10.16 on. Where creation is a method of its own (10.21) that one is left out instead: the
        # executor would log a "kubernetes rate limit" in each loop, and that is not what it is.
        return hasattr(self.executor, "create_pods_after") and not hasattr(
            self.executor, "_create_pods_sequentially"
        )

    def create_pods(self, wrapped: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Stand in for `_create_pods_sequentially` and `_create_pods_concurrently`."""
        return wrapped(*args, **kwargs) if self.server.allows() else None

    def finish_pod(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """
        Delete or patch a finished pod; without an answer it is owed, and the task's state changes all the same.

        `_change_state` puts a failed result back into the very queue that `sync` is draining, so with a mute
        server one `sync` would never end.
        """
        lost = object()
        given = dict(zip(("pod_name", "namespace"), args, strict=False)) | kwargs
        if self._calls.boundary(method.__name__, lost, method, args, kwargs) is lost:
            self.owed[given["namespace"], given["pod_name"]] = Owed(method.__name__)


def same_pod(found: dict[str, str], wanted: dict[str, str]) -> bool:
    """Tell by their labels whether two pods are of the same try of the same task instance."""
    return all(found.get(name) == wanted.get(name) for name in IDENTITY) and "dag_id" in found


def is_broken_async(error: BaseException) -> bool:
    """Tell whether a call of the asyncio client ended without an answer."""
    import asyncio

    import aiohttp

    return isinstance(
        error,
        (
            asyncio.TimeoutError,
            TimeoutError,
            aiohttp.ServerDisconnectedError,
            aiohttp.ClientOSError,
            aiohttp.ClientPayloadError,
            aiohttp.ServerTimeoutError,
        ),
    ) and not isinstance(error, (aiohttp.ClientSSLError, aiohttp.ClientProxyConnectionError))


def ti_text(key: Any) -> str:
    """Return a task instance's key for a log line."""
    if not hasattr(key, "dag_id"):
        return str(getattr(key, "id", key))
    mapped = f"[{key.map_index}]" if getattr(key, "map_index", -1) >= 0 else ""
    return f"{key.dag_id}.{key.task_id}{mapped} {key.run_id} try {key.try_number}"

"""
Pods created through asyncio, from provider 10.21 on: a batch of requests in one event loop of the main thread.

No signal goes there: it would leave requests running behind our back. Its calls get a timeout instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from watchdog_hook.core.breaker import Gate
from watchdog_hook.integrations.airflow.jobs import key_of
from watchdog_hook.integrations.airflow.pods import CONFLICT, INVALID, OutcomeUnknown

if TYPE_CHECKING:
    from watchdog_hook.integrations.airflow.recovery import Recovery
    from watchdog_hook.watchdog import Watchdog


class Batches:
    """Those of one executor. Each job of a batch is dealt with as `recovery` does with one alone."""

    def __init__(self, dog: Watchdog, recovery: Recovery) -> None:
        self._dog = dog
        self._recovery = recovery
        self._executor = recovery.executor
        self._jobs = recovery.jobs
        self._queue = recovery.queue
        self._creation = recovery.creation
        self._admission = recovery.admission
        self._server = recovery.server
        self._named: dict[Any, tuple[str, str, dict[str, Any]]] = {}  # what was asked for, by key

    def run_next(self, wrapped: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Stand in for `run_next_batch`: only those that may start now, and only with a time limit."""
        jobs = list(args[0] if args else kwargs["next_jobs"])
        results: list[tuple[Any, Exception | None]] = []
        starting: list[Any] = []
        if self._admission.fenced(jobs):
            return [(job, None) for job in jobs]
        last = {key_of(job): index for index, job in enumerate(jobs)}
        for index, job in enumerate(jobs):
            key = key_of(job)
            if last[key] != index:
                self._queue.drop(key, "a newer job of this task instance waits", forget=False)
                results.append((job, None))
            elif self._server.breaker.gate is Gate.TRIAL and starting:
                self._queue.put_back(
                    job, key, ours=self._jobs.put_back(key)
                )  # one tries, the others wait
                results.append((job, None))
            elif self._admission.may_start(job, key):
                starting.append(job)
            else:
                results.append((job, None))
        if not starting:
            return results
        self._named = {}
        self._recovery.attempt_begins()
        with self._time_limit():
            outcomes = wrapped(starting)
        for job, error in outcomes:
            results.append((job, self._outcome(job, error)))
        return results

    @contextlib.contextmanager
    def _time_limit(self) -> Iterator[None]:
        config, before = (
            self._executor.kube_config,
            self._executor.kube_config.kube_client_request_args,
        )
        limit = self._server.breaker.limit or self._dog.config.interrupt_after
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
        attempt, metadata = self._jobs.attempt(key), pod.metadata
        if attempt is not None and attempt.namespace == metadata.namespace:
            metadata.name = attempt.name
        self._named[key] = (metadata.name, metadata.namespace, {"labels": metadata.labels})
        return pod

    def _outcome(self, job: Any, error: Exception | None) -> Exception | None:
        """Return what the executor is to be told of one creation of a batch; None: nothing is left to do."""
        key = key_of(job)
        named = self._named.get(key)
        if error is None or named is None:
            self._jobs.settled(key)
            if error is None:
                self._server.answered()
            return error
        name, namespace, metadata = named
        if is_broken_async(error):
            self._server.failed()
            if not self._dog.config.requeue_connection_errors and not isinstance(
                error, TimeoutError
            ):
                return error
            self._recovery.put_back_safely(job, key, OutcomeUnknown(error, name, namespace))
            return None
        self._server.answered()
        status = getattr(error, "status", None)
        if self._jobs.attempt(key) is None or status in INVALID or status is None:
            self._jobs.settled(key)
            return error
        self._creation.key = key
        try:
            if status != CONFLICT:
                raise OutcomeUnknown(error, name, namespace, f"the server answered {status}")
            if self._creation.answer_to_conflict(error, name, namespace, metadata) is None:
                self._jobs.settled(key)
                self._queue.put_back(job, key, ours=True)  # the next attempt takes a fresh name
            else:
                self._jobs.settled(key)
        except OutcomeUnknown as unknown:
            self._recovery.put_back_safely(job, key, unknown)
        finally:
            self._creation.key = None
        return None


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

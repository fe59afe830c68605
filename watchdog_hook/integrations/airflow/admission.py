"""May the pod of a job be created now, and is the job still ours at all?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from watchdog_hook.integrations.airflow.fence import Answer, forget
from watchdog_hook.integrations.airflow.jobs import Attempt, Jobs, key_of, ti_text
from watchdog_hook.integrations.airflow.task_instances import Standing, standing

if TYPE_CHECKING:
    from watchdog_hook.integrations.airflow.fence import Fence
    from watchdog_hook.integrations.airflow.task_queue import TaskQueue
    from watchdog_hook.integrations.api_server import Server
    from watchdog_hook.watchdog import Watchdog


class Admission:
    """That of one executor. A job that may not start is put back on the queue or dropped, and that is said."""

    def __init__(
        self, dog: Watchdog, executor: Any, jobs: Jobs, queue: TaskQueue, server: Server
    ) -> None:
        self._dog = dog
        self._executor = executor
        self._jobs = jobs
        self._queue = queue
        self._server = server
        self.fence: Fence | None = None

    def may_start(self, job: Any, key: Any) -> bool:
        """Tell whether a pod for this job should be created now; where not, the job has been dealt with."""
        if self._jobs.outdated(key):
            self._queue.drop(key, "a newer job of this task instance waits", forget=False)
            return False
        ours, attempt = self._jobs.put_back(key), self._jobs.attempt(key)
        if attempt is not None and attempt.seen:
            self._jobs.settled(key)
            if ours:
                self._created_already(key, attempt, "seen by the watcher")
                return False
            # The provider's own requeue of a pod that failed before its start: it must get a new pod.
        if self._queue.rests or not self._server.allows():
            self._queue.put_back(job, key, ours=ours)
            return False
        answer = Answer.OURS if self.fence is None else self.fence.look()
        if answer is Answer.UNKNOWN:
            self._queue.rest()
            self._queue.put_back(job, key, ours=ours)
            self._dog.note("requeued", ti=ti_text(key), outcome="database did not answer")
            return False
        if answer is Answer.FENCED:
            self._give_up(key)
            return False
        if not self._jobs.doubtful(key):
            return True
        try:
            found = standing(key, self._executor.job_id)
        except Exception:  # noqa: BLE001 - a database that does not answer is no reason to lose or double a task
            self._queue.put_back(job, key, ours=True)
            self._dog.note("requeued", ti=ti_text(key), outcome="database did not answer")
            return False
        if found is Standing.OURS:
            return True
        if found is Standing.STARTED:
            self._jobs.settled(key)  # and stays in the executor's books: its end will be reported
            self._created_already(key, attempt, found.value)
            return False
        # Else Airflow up to 2.9 would never queue it again: "still running".
        self._executor.running.discard(key)
        self._queue.drop(key, found.value)
        return False

    def fenced(self, jobs: list[Any]) -> bool:
        """Tell whether another scheduler has taken over; then these jobs, out of the queue, are forgotten."""
        if self.fence is None or self.fence.look() is not Answer.FENCED:
            return False
        for job in jobs:
            self._give_up(key_of(job))
        return True

    def _give_up(self, key: Any) -> None:
        forget(self._executor, key)
        self._queue.drop(key, "another scheduler has taken it over")

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
        attempt = self._jobs.attempt(key)
        if attempt is not None and standing(key, self._executor.job_id) is Standing.STARTED:
            self._created_already(key, attempt, Standing.STARTED.value)
            self._jobs.settled(key)
            return None
        self._jobs.settled(key)
        return wrapped(*args, **kwargs)

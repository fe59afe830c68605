"""Jobs that wait for a pod: counted in and out of the executor's queue, or held until the loop has turned."""

from __future__ import annotations

import contextlib
from queue import Empty
from typing import TYPE_CHECKING, Any

from watchdog_hook.integrations.airflow.jobs import Jobs, key_of, ti_text

if TYPE_CHECKING:
    from watchdog_hook.watchdog import Watchdog

REST = 0.5  # seconds without a creation after one that got no answer; a heartbeat ends them sooner


class TaskQueue:
    """That of one executor."""

    def __init__(self, dog: Watchdog, executor: Any, jobs: Jobs) -> None:
        self._dog = dog
        self._executor = executor
        self._jobs = jobs
        # After an attempt without an answer nothing is created until the next heartbeat: the loop has to
        # turn. That job goes back last, so that one which always gets stuck does not keep the others.
        self._rest_until = 0.0
        self.held: list[tuple[Any, Any]] = []
        self._follow(executor.task_queue)

    def _follow(self, queue: Any) -> None:
        """Count jobs in and out. On the proxy itself: only this process uses it."""
        put, get = queue.put, queue.get_nowait
        dog, fail, jobs = self._dog, self._dog.fail, self._jobs
        self._put = put

        def counted_put(job: Any, *args: Any, **kwargs: Any) -> Any:
            fail.run("jobs", lambda: jobs.put(key_of(job), dog.now))
            return put(job, *args, **kwargs)

        def counted_get() -> Any:
            if self.held and not self.rests:
                fail.run("requeue", self._release)
            job = get()
            fail.run("jobs", lambda: jobs.taken(key_of(job)))
            return job

        queue.put, queue.get_nowait = counted_put, counted_get

    def hold(self, job: Any, key: Any) -> None:
        """Keep a job, once, until the loop has turned; then it goes back on the queue."""
        if all(held is not job for held, _ in self.held):
            self.held.append((job, key))

    def rest(self) -> None:
        """Have nothing created until the next heartbeat, half a second at most."""
        self._rest_until = self._dog.now + REST

    def wake(self) -> None:
        """The loop has turned: what was held goes back, and pods may be created again."""
        self._rest_until = 0.0
        self._release()

    @property
    def rests(self) -> bool:
        """Whether nothing is to be created until the next heartbeat."""
        return self._dog.now < self._rest_until

    def _release(self) -> None:
        """Put back what was held, unless its key was queued anew in the meantime."""
        held, self.held = self.held, []
        for job, key in held:
            if self._jobs.outdated(key):
                self.drop(key, "a newer job of this task instance waits", forget=False)
            else:
                self.put_back(job, key, ours=True)

    def put_back(self, job: Any, key: Any, *, ours: bool) -> None:
        """Put a job on the executor's queue again; `ours` as jobs.Jobs.put has it."""
        self._put(job)
        self._jobs.put(key, self._dog.now, ours=ours)

    def take_all(self) -> list[Any]:
        """Take out every job that waits for a pod, those that are about to go back too, and return them."""
        jobs, self.held = [job for job, _ in self.held], []
        queue = self._executor.task_queue
        with contextlib.suppress(Empty):
            while True:
                jobs.append(queue.get_nowait())
                queue.task_done()
        for job in jobs:
            self._jobs.settled(key_of(job))
        return jobs

    def drop(self, key: Any, why: str, *, forget: bool = True) -> None:
        """Say that no pod is created for a job that came out; with `forget`, its key is settled."""
        if forget:
            self._jobs.settled(key)
        self._dog.note("dropped", ti=ti_text(key), action="no pod is created", outcome=why)

    def facts(self) -> tuple[int, float | None]:
        """Return jobs waiting, and the age of the oldest in seconds, for the watchdog's thread."""
        oldest = self._jobs.oldest()
        return self.waiting, None if oldest is None else self._dog.now - oldest

    @property
    def waiting(self) -> int:
        """How many jobs wait for a pod: those in the queue, and those about to go back."""
        return self._jobs.waiting + len(self.held)

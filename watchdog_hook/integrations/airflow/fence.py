"""
Back after a long silence: have the other schedulers given us up, and taken over what we hold?

After `[scheduler] scheduler_health_check_threshold` seconds without a heartbeat another scheduler marks our job as
failed, adopts our pods and resets our queued tasks. Airflow never looks: our next heartbeat sets the job back to
running, and every job that still waits here would get a second pod.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from watchdog_hook.integrations.airflow.job_row import OURS, JobRow
from watchdog_hook.integrations.airflow.jobs import key_of
from watchdog_hook.integrations.airflow.task_instances import held_by

if TYPE_CHECKING:
    from watchdog_hook.integrations.airflow.kubernetes_executor import KubernetesExecutors
    from watchdog_hook.watchdog import Watchdog

CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
REST = 2.0  # seconds after a question without an answer: each may cost the database's patience, and the loop waits
THRESHOLD = 30  # seconds; Airflow's default
PARTS = ("kubernetes_executor", "local_executor", "celery_executor")  # inside a hybrid executor


class Answer(Enum):
    """Whether work that waits may be started now."""

    OURS = auto()
    FENCED = auto()  # another scheduler has it; all that waited has been dropped
    UNKNOWN = auto()  # the database did not answer


def since_boot() -> float:
    """Return seconds that count on while the process is stopped or the machine asleep, as the others' do."""
    return time.clock_gettime(CLOCK)


class Fence:
    """
    Asks when the last heartbeat is old, in front of everything that starts a task. Used by the loop's thread only.

    While the loop turns, one asking costs one look at the clock.
    """

    def __init__(
        self,
        dog: Watchdog,
        row: JobRow,
        executors: list[Any],
        threshold: float,
        now: Callable[[], float] | None = None,
        *,
        age: float = 0.0,
    ) -> None:
        """`age`: of the last heartbeat, in seconds. `now` is for tests."""
        self._dog = dog
        self._row = row
        self._executors = [part for executor in executors for part in _parts(executor)]
        self._now = now = now or since_boot
        # Half of it, for the clocks of two hosts differ, and asking too early costs one statement.
        self._patience = threshold / 2
        self._beat_at = self._written = now() - age
        self._ask_at = 0.0
        self.kubernetes: KubernetesExecutors | None = None

    @property
    def silence(self) -> float:
        """Seconds since the scheduler's last heartbeat in the database went through."""
        return self._now() - self._beat_at

    def look(self) -> Answer:
        """Return whether what waits is still ours. Where it is not, it has been dropped."""
        now = self._now()
        if now - self._written < self._patience:
            return Answer.OURS
        if now < self._ask_at:
            return Answer.UNKNOWN
        return self._dog.fail.run("fence", self._ask) or Answer.OURS

    def heartbeat(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        """Stand in for `Job.heartbeat`, which sets the job's state back to running, whatever it was."""
        self._ask_at = 0.0
        if self.look() is Answer.UNKNOWN and self.kubernetes is not None:
            # What the row says is lost in a moment. Each job that waits is asked for by itself, then.
            for recovery in self.kubernetes.recoveries:
                recovery.jobs.doubt_all()
        began = self._now()
        result = wrapped(*args, **kwargs)
        if not getattr(instance, "heartbeat_failed", False):
            # Airflow 3 writes what it had in memory, the time of the heartbeat before; so this is assumed of all.
            # After a long silence the row then says that we run, with a heartbeat as old as that silence.
            self._written, self._beat_at = self._beat_at, began
            self.look()
        return result

    def _ask(self) -> Answer:
        silence, acts = self.silence, self._dog.config.may_interrupt
        try:
            state = self._row.hold() if acts else self._row.state()
        except Exception:  # noqa: BLE001 - whatever a database can raise: it is asked again before the next pod
            self._ask_at = self._now() + REST
            return Answer.UNKNOWN
        if state in OURS:
            self._written = self._now()
            return Answer.OURS
        dropped = self._drop() if acts else None
        leaves = self._dog.config.exit_when_fenced
        self._dog.note(
            "fenced",
            silent_s=silence,
            action=_action(dropped, leaves),
            outcome=f"another scheduler marked this one's job as {state}, and has taken over its tasks",
            dropped=dropped,
            job_id=self._row.job_id,
        )
        if leaves:
            self._dog.exit("fenced")
        if not acts:
            self._written = self._now()
            return Answer.OURS
        with contextlib.suppress(
            Exception
        ):  # without an answer it is asked again, and all this done again
            # Now, not at Airflow's next heartbeat: what is queued until then could be taken from us once more.
            self._row.rejoin(str(state))
            self._written = self._now()
        return Answer.FENCED

    def _drop(self) -> int:
        """Forget every task that waits to be started, and return how many there were."""
        waiting = 0
        for executor in self._executors:
            queued = getattr(executor, "queued_tasks", {})
            waiting += len(queued)
            queued.clear()
        for recovery in self.kubernetes.recoveries if self.kubernetes else ():
            for job in recovery.queue.take_all():
                waiting += 1
                forget(recovery.executor, key_of(job))
            self._dog.fail.run("fence: slots", _free_slots, recovery.executor, self._row.job_id)
        return waiting


def forget(executor: Any, key: Any) -> None:
    """Take a task that is another scheduler's now out of a KubernetesExecutor's books; its slot is free then."""
    executor.running.discard(key)
    for name in ("task_publish_retries", "pod_launch_attempts"):  # the latter creates a pod anew
        getattr(executor, name, {}).pop(key, None)
    state, *_ = executor.event_buffer.get(key, (None,))
    if str(getattr(state, "value", state)) == "queued":
        del executor.event_buffer[key]


def _free_slots(executor: Any, job_id: Any) -> None:
    """
    Forget the tasks whose pods another scheduler has adopted.

    The watcher says so as well, but only where the API server still has that event after so long a time.
    """
    held = held_by(job_id)
    for key in [key for key in executor.running if not held(key)]:
        forget(executor, key)


def fence_of(dog: Watchdog, runner: Any, executors: list[Any]) -> Fence | None:
    """Return the fence of a scheduler's job; None where it has none."""
    from airflow.configuration import conf

    job = getattr(runner, "job", None)
    job_id = getattr(job, "id", None)
    if job_id is None:
        return None
    try:
        threshold = conf.getint("scheduler", "scheduler_health_check_threshold", fallback=THRESHOLD)
    except Exception:  # noqa: BLE001 - not a number: Airflow's adoption will say so
        threshold = THRESHOLD
    # Airflow 3 makes the job seconds before its loop begins, and its first heartbeat writes that time again.
    beat = getattr(job, "latest_heartbeat", None)
    age = time.time() - beat.timestamp() if beat is not None else 0.0
    return Fence(dog, JobRow(job_id), executors, float(threshold), age=max(0.0, age))


def _parts(executor: Any) -> list[Any]:
    """Return an executor, or those inside a hybrid one, whose own `queued_tasks` is a copy of theirs."""
    return [getattr(executor, name) for name in PARTS if hasattr(executor, name)] or [executor]


def _action(dropped: int | None, leaves: bool) -> str:
    what = (
        "none: interrupt = off"
        if dropped is None
        else "what waits here is dropped; running pods go on"
    )
    return f"{what}; the process exits with code 75" if leaves else what

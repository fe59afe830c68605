"""
A KubernetesExecutor of the installed provider in this very process: no scheduler, no database, no children.

Its watchdog is armed as in a scheduler and really interrupts; its queues are plain ones and nothing forks.
"""

from __future__ import annotations

import multiprocessing
import queue
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tests.fakes.kube_api import Fault, KubeApi, Request, Trap

if TYPE_CHECKING:
    import pytest

NAMESPACE = "here"
JOB_ID = 7
POD = """\
apiVersion: v1
kind: Pod
metadata: {name: template}
spec: {containers: [{name: base, image: nowhere.invalid/worker}]}
"""

# Short, for a silence is waited for; long enough for a busy machine to answer before it counts as one.
QUICK: dict[str, object] = {
    "watchdog_hook.poll_interval": 0.05,
    "watchdog_hook.sample_after": 0.2,
    "watchdog_hook.dump_after": 0.4,
    "watchdog_hook.interrupt_after": 0.6,
    "watchdog_hook.breaker_after": 50,
    "kubernetes_executor.in_cluster": False,
    "kubernetes_executor.namespace": NAMESPACE,
    "kubernetes_executor.worker_pods_creation_batch_size": 8,
    "kubernetes_executor.delete_worker_pods": True,
    "kubernetes_executor.delete_worker_pods_on_failure": True,
    "kubernetes_executor.task_publish_max_retries": 0,
    "core.executor": "KubernetesExecutor",
}


class Manager:
    """Stands in for multiprocessing's: the queues it hands out are of this process."""

    def Queue(self) -> queue.Queue[Any]:  # noqa: N802
        """Return a queue."""
        return queue.Queue()

    JoinableQueue = Queue

    def shutdown(self) -> None:
        """Do nothing: there is no process."""


class Row:
    """Stands in for the scheduler's row in the table of jobs."""

    says: str | None = "running"
    breaks = False
    asked = 0

    def __init__(self, job_id: int) -> None:
        self.job_id = job_id

    def hold(self) -> str | None:
        """Return what the row says."""
        self.asked += 1
        if self.breaks:
            raise ConnectionError("no database")
        return self.says

    state = hold

    def rejoin(self, marked: str) -> None:
        """Say again that we run."""
        if self.says == marked:
            self.says = "running"


class Bench:
    """One started executor, its watchdog, and what a test asks of them."""

    def __init__(
        self,
        api: KubeApi,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        settings: dict[str, object],
    ) -> None:
        template = folder / "pod.yaml"
        template.write_text(POD, encoding="utf-8")
        given = {
            **QUICK,
            "kubernetes_executor.config_file": api.kubeconfig,
            "kubernetes_executor.pod_template_file": template,
            "watchdog_hook.incident_dir": folder / "incidents",
            **settings,
        }
        for name, value in given.items():
            monkeypatch.setenv("AIRFLOW__" + name.replace(".", "__").upper(), str(value))
        monkeypatch.setattr(multiprocessing, "Manager", Manager)

        from airflow.providers.cncf.kubernetes.executors import kubernetes_executor as of_provider
        from airflow.providers.cncf.kubernetes.executors.kubernetes_executor_utils import (
            AirflowKubernetesScheduler,
        )

        from watchdog_hook.integrations.airflow import admission, fence, scheduler

        monkeypatch.setattr(AirflowKubernetesScheduler, "_make_kube_watchers", lambda _: {})
        kind: Any = of_provider.KubernetesExecutor
        if hasattr(kind, "clear_not_launched_queued_tasks"):  # asks the database, when it starts
            monkeypatch.setattr(kind, "clear_not_launched_queued_tasks", lambda _: None)

        self.api = api
        self.standing = admission.Standing
        self.stands: dict[str, Any] = {}  # what the database says of a task; OURS where nothing
        self.asked: list[str] = []  # the tasks it was asked for

        def standing(key: Any, job_id: Any) -> Any:
            assert job_id == JOB_ID
            self.asked.append(key.task_id)
            return self.stands.get(key.task_id, admission.Standing.OURS)

        monkeypatch.setattr(admission, "standing", standing)
        self.row = Row(JOB_ID)
        self.held: set[str] = set()  # tasks that the database says are this scheduler's
        self.away = 0.0  # seconds without a heartbeat, besides those of the test itself
        monkeypatch.setattr(fence, "JobRow", lambda _: self.row)
        monkeypatch.setattr(fence, "since_boot", lambda: time.monotonic() + self.away)
        monkeypatch.setattr(fence, "held_by", lambda _: lambda one: one.task_id in self.held)
        self.executor = kind()
        self.executor.job_id = JOB_ID
        self.runner = _runner_of(self.executor)
        self.armed: Any = scheduler.arm(self.runner)
        try:
            self.dog = self.armed.dog
            self.notes: list[tuple[str, dict[str, Any]]] = []
            note = self.dog.note

            def noted(event: str, **fields: Any) -> None:
                self.notes.append((event, fields))
                note(event, **fields)

            self.dog.note = noted
            self.executor.start()
            self.recovery = self.dog.host.kubernetes.recoveries[0]
            self.server = self.recovery.server
            # The provider's first turn looks for pods of others, and asks the server what it can do.
            self.turn()
            self.notes.clear()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Take everything off again."""
        from watchdog_hook.integrations.airflow import arming

        self.api.clear()
        close = getattr(self.executor.kube_scheduler, "_close_async_pod_client", None)
        if close is not None:
            close()
        arming.disarm(self.armed)

    # --- what the scheduler does -----------------------------------------------------------------

    def queue(self, *tasks: str) -> None:
        """Hand a job of each task to the executor."""
        for task in tasks:
            self.executor.running.add(key(task))
            self.executor.execute_async(key(task), ["airflow", "tasks", "run", "d", task, "r"])

    def turn(self, times: int = 1) -> None:
        """Turn the loop: a beat, then the executor's heartbeat."""
        for _ in range(times):
            self.runner._do_scheduling()
            self.executor.heartbeat()

    def watch(self, pod: str, task: str, state: Any, **details: Any) -> None:
        """Have a watcher report a pod."""
        from airflow.providers.cncf.kubernetes.executors import kubernetes_executor_utils as of_them

        notes = {"dag_id": "d", "task_id": task, "run_id": "r", "try_number": "1"}
        values: list[Any] = [pod, NAMESPACE, state, notes, "5"]
        kind = getattr(of_them, "KubernetesWatch", None)  # a tuple up to provider 9.x
        if kind is None:
            self.executor.kube_scheduler.watcher_queue.put(tuple(values))
        else:
            fields = dict(zip(kind._fields, [*values, details or None], strict=False))
            self.executor.kube_scheduler.watcher_queue.put(kind(**fields))

    # --- what came of it -------------------------------------------------------------------------

    def break_off(self, on: str = "create", *, applied: bool, **which: Any) -> Trap:
        """Have requests end in a broken connection: an unknown outcome, without the wait."""
        return self.api.set_fault(Fault.CLOSE, on=on, applied=applied, **which)

    def requests(self, operation: str) -> list[Request]:
        """Return the requests of this kind that the server has read."""
        return [seen for seen in self.api.requests if seen.operation == operation]

    def pods(self) -> list[str]:
        """Return the names of all pods that ever came to be."""
        return [pod["metadata"]["name"] for pod in self.api.created()]

    def runs(self, task: str = "t") -> bool:
        """Tell whether the executor has the task in its books."""
        return key(task) in self.executor.running

    def state(self, task: str = "t") -> str | None:
        """Return the last state the executor would report of a task."""
        event = self.executor.event_buffer.get(key(task))
        return None if event is None else str(getattr(event[0], "value", event[0]))

    @property
    def waiting(self) -> list[str]:
        """The tasks whose jobs wait: those in the queue, and those that join it at the next turn."""
        from watchdog_hook.integrations.airflow.jobs import key_of

        jobs = [*self.executor.task_queue.queue, *(job for job, _ in self.recovery.queue.held)]
        keys: list[Any] = [key_of(job) for job in jobs]
        return [one.task_id for one in keys]

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return what was noted under this name."""
        return [fields for event, fields in self.notes if event == name]

    def is_whole(self) -> bool:
        """Tell whether every part of ours is still on that this provider's version has."""
        kinds = (type(self.executor), type(self.executor.kube_scheduler))
        return not {
            part
            for part in self.dog.fail.off
            if "." not in part or any(hasattr(kind, part.split(".")[1]) for kind in kinds)
        }


def key(task: str = "t") -> Any:
    """Return the key of a task instance's first try."""
    from airflow.models.taskinstancekey import TaskInstanceKey

    return TaskInstanceKey("d", task, "r", 1, -1)


def task_instance(task: str, queued_by: int | None = 3) -> Any:
    """Return what the scheduler reads of a task instance from its database."""
    return SimpleNamespace(
        key=key(task),
        dag_id="d",
        task_id=task,
        run_id="r",
        try_number=1,
        map_index=-1,
        queued_by_job_id=queued_by,
        executor_config={},
        id=f"id-of-{task}",
    )


def orphan(api: KubeApi, task: str, *, name: str | None = None) -> None:
    """Have a pod run whose scheduler is gone: `pod-` and the task's name, where no other is given."""
    labels = {"kubernetes_executor": "True", "airflow-worker": "3", "dag_id": "d"}
    notes = {"dag_id": "d", "task_id": task, "run_id": "r", "try_number": "1"}
    api.pods.create(
        NAMESPACE,
        {
            "metadata": {
                "name": name or f"pod-{task}",
                "labels": {**labels, "task_id": task, "run_id": "r", "try_number": "1"},
                "annotations": notes,
            },
            "spec": {"containers": [{"name": "base", "image": "nowhere.invalid/worker"}]},
        },
    )


def _runner_of(executor: Any) -> Any:
    class Runner:
        """What the watchdog wraps of a scheduler's runner."""

        job = SimpleNamespace(id=JOB_ID, executors=[executor])
        orphans: tuple[Any, ...] = ()
        stuck: tuple[Any, ...] = ()
        looked_for_stuck = 0

        def _do_scheduling(self) -> None:
            pass

        def adopt_or_reset_orphaned_tasks(self) -> Any:
            return [ti.task_id for ti in executor.try_adopt_task_instances(list(self.orphans))]

        def _handle_tasks_stuck_in_queued(self) -> None:
            self.looked_for_stuck += 1
            for ti in self.stuck:
                executor.revoke_task(ti=ti)

    return Runner()


Started = Callable[..., Bench]

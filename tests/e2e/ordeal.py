"""What a scheduler is put through, and what must be true of it afterwards."""

from __future__ import annotations

import contextlib
import itertools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

from tests.fakes.kube_api import Fault, KubeApi, Trap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.scheduler import Scheduler

# Small, so that one scheduler's life has room for every fault.
QUICK: dict[str, object] = {
    "watchdog_hook.poll_interval": 0.2,
    "watchdog_hook.sample_after": 1,
    "watchdog_hook.dump_after": 2,
    "watchdog_hook.interrupt_after": 3,
    "watchdog_hook.breaker_open_for": 2,
    "watchdog_hook.startup_grace": 30,
    # Airflow's own answer to a 429 is to fail the task, unless it is told to try again.
    "kubernetes_executor.task_publish_max_retries": 5,
}
# A turn of a healthy one takes seconds on a busy machine, where processes start.
PATIENT: dict[str, object] = {"watchdog_hook.sample_after": 2, "watchdog_hook.dump_after": 6}

# Faults in which a client without a timeout waits until somebody helps it.
SILENT = [
    Fault.REQUEST,
    Fault.APPLIED,
    Fault.LATE,
    Fault.HALF,
    Fault.TRICKLE,
    Fault.ACCEPT,
    Fault.HANDSHAKE,
]

_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")


@dataclass
class Ordeal:
    """One scheduler and the API server it depends on."""

    scheduler: Scheduler
    api: KubeApi
    steps: Iterator[str] = field(
        default_factory=lambda: (f"step_{n:02}" for n in itertools.count())
    )
    expected: int = 0

    def release(self, dag: str = "", tasks: int = 3) -> str:
        """Let one more DAG go, and expect its pods from now on."""
        dag = dag or next(self.steps)
        self.scheduler.home.database.release(dag)
        self.expected += tasks
        return dag

    def wait_for_pods(self, timeout: float = 60) -> None:
        """Return once every task that was let go has its pod, and the scheduler has been told so."""
        self.scheduler.wait_for(self._has_every_pod, timeout, f"{self.expected} pods")

    def _has_every_pod(self) -> bool:
        if len(self.api.created()) < self.expected:
            return False
        creations = [seen for seen in self.api.requests if seen.operation == "create"]
        last = {seen.pod: seen.status for seen in creations}
        known = {event.facts["pod"] for event in self.scheduler.events("created_already")}
        return all(status is not None or name in known for name, status in last.items())

    def finish(self, dag: str, phase: str = "Succeeded") -> None:
        """Let the pods of a DAG end, having said in the database what their tasks would say."""
        self.scheduler.home.database.set_task_state("success", dag)
        for pod in self.api.pods.list(None, lambda _: True)[1]:
            if pod["metadata"]["annotations"]["dag_id"] == dag:
                self.api.set_phase(pod, phase)

    def set_fault(self, fault: Fault, on: str) -> Trap:
        """Set a fault for one request, or until `clear` where one is not to be had."""
        if fault.is_of_connection:
            return self.api.set_fault(fault)
        return self.api.set_fault(fault, on=on, times=None if fault is Fault.LATE else 1)

    def check(self) -> None:
        """Check what must be true of a scheduler that has come through."""
        database = self.scheduler.home.database
        tail = self.scheduler.tail()
        assert self.scheduler.is_same(), tail
        assert set(self.api.per_try().values()) <= {1}, tail
        assert len(self.api.created()) == self.expected, tail
        assert database.task_states()["failed"] == 0, tail
        assert database.scheduler_job()[2] < 30, tail


def has_stack_of(text: str, function: str) -> bool:
    """Tell whether a dump shows the call of that function under the scheduler's loop."""
    return function in text and "_run_scheduler_loop" in text


def secrets_in(scheduler: Scheduler, api: KubeApi) -> list[str]:
    """Return the places where a token of this test can be read."""
    tokens = {api.token}
    for pod in api.created():
        tokens.update(_TOKEN.findall(str(pod["spec"])))
    # Airflow 3.0 itself writes each workload with its token when it is queued.
    by_airflow = " - Add task TaskInstanceKey("
    log = "\n".join(line for line in scheduler.text().splitlines() if by_airflow not in line)
    texts = {str(scheduler.log): log}
    for path in (scheduler.home.folder / "logs" / "watchdog_hook").rglob("*"):
        if path.is_file():
            texts[str(path)] = path.read_text(encoding="utf-8", errors="replace")
    return [where for where, text in texts.items() if any(token in text for token in tokens)]


def watcher_of(scheduler: Scheduler, api: KubeApi) -> psutil.Process:
    """Return the process that has a watch open: the one whose connection is read by nobody else."""
    found = []

    def one() -> bool:
        found.clear()
        for process in scheduler.family()[1:]:
            with contextlib.suppress(psutil.Error):
                links = (
                    getattr(process, "net_connections", None) or process.connections
                )  # psutil < 6
                remotes = [link.raddr and link.raddr.port for link in links()]
                if api.port in remotes and process.ppid() == scheduler.pid:
                    found.append(process)
        return len(found) == 1

    scheduler.wait_for(one, 60, "one child that is connected with the API server")
    return found[0]

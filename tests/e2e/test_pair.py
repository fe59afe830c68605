"""Two schedulers on one database; one of them freezes for so long that the other takes over its tasks."""

from __future__ import annotations

import itertools
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.e2e.airflow_home import AIRFLOW, PROVIDER
from tests.e2e.ordeal import QUICK
from tests.fakes.kube_api import Fault, KubeApi

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.e2e.conftest import Start
    from tests.e2e.database import Database, OnPostgres
    from tests.e2e.scheduler import Scheduler
    from tests.fakes.kube_api import Trap

# Nothing ends the silent call but its server, and one pod is created in a loop: the other jobs wait behind it.
FROZEN: dict[str, object] = {
    "watchdog_hook.interrupt_after": 3600,
    "kubernetes_executor.worker_pods_creation_batch_size": 1,
}
# Still long enough for the start of a scheduler on a busy machine: else the one that lives is taken for dead.
HASTY: dict[str, object] = {
    "scheduler.scheduler_heartbeat_sec": 1,
    "scheduler.scheduler_health_check_threshold": 15,
    "scheduler.orphaned_tasks_check_interval": 2,
}
# From 10.23 on the provider itself asks before each pod, on Airflow 3, and drops what is another's.
UNASKED = AIRFLOW < (3, 0) or PROVIDER < (10, 23)


@dataclass
class Pair:
    """One cluster with two API servers, one database, and a scheduler at each server."""

    start: Start
    database: Database
    api: KubeApi
    silent: KubeApi
    steps: Iterator[str] = field(
        default_factory=lambda: (f"step_{n:02}" for n in itertools.count())
    )
    released: list[str] = field(default_factory=list)

    def start_frozen(self, settings: Mapping[str, object]) -> Scheduler:
        """Start the scheduler that will freeze, at the server that will fall silent."""
        options = {"kubernetes_executor.config_file": self.silent.kubeconfig, **FROZEN, **settings}
        return self.start(options, database=self.database)

    def start_other(self, settings: Mapping[str, object]) -> Scheduler:
        """Start the scheduler that lives on."""
        return self.start(settings, database=self.database)

    def release(self, dags: int = 1) -> None:
        """Let some more DAGs go."""
        names = list(itertools.islice(self.steps, dags))
        self.released += names
        self.database.release(*names)

    @property
    def expected(self) -> int:
        """How many tasks have been let go."""
        return 3 * len(self.released)

    def freeze(self) -> Trap:
        """Have the next creation at the silent server never get an answer, nor any after it."""
        return self.silent.set_fault(Fault.REQUEST, on="create")

    def freeze_beside_another(self, frozen: Scheduler) -> None:
        """Let tasks go until the one scheduler is frozen with some of them, and silence its server altogether."""
        trap = self.freeze()

        def is_frozen() -> bool:
            if not trap.hits and self.database.task_states()["scheduled"] == 0:
                self.release()
            return trap.hits > 0

        frozen.wait_for(is_frozen, 60, "a creation without an answer")
        self.silent.set_fault(Fault.REQUEST, on="any")

    def pods(self) -> Counter[tuple[str, ...]]:
        """Count the pods that ever came to be by task instance, whatever the try."""
        tries = self.api.per_try()
        pods: Counter[tuple[str, ...]] = Counter()
        for (dag, task, run, _, index), count in tries.items():
            pods[dag, task, run, index] += count
        return pods

    def wait_for_pods(self, by: Scheduler, timeout: float = 90) -> None:
        """Return once every task that was let go has a pod."""
        by.wait_for(
            lambda: len(self.pods()) == self.expected, timeout, f"{self.expected} tasks with a pod"
        )

    def finish(self, by: Scheduler) -> None:
        """Let every task succeed, and return once the runs have."""
        for dag in self.released:
            self.database.set_task_state("success", dag)
        for pod in self.api.pods.list(None, lambda _: True)[1]:
            self.api.set_phase(pod, "Succeeded")
        by.wait_for(
            lambda: self.database.run_states(*self.released) == ["success"],
            60,
            "the runs to succeed",
        )

    def overtaken(self, settings: dict[str, object]) -> tuple[Scheduler, Scheduler]:
        """Return a scheduler that froze with tasks in its queue, and the one that took these over."""
        frozen = self.start_frozen({**QUICK, **FROZEN, **HASTY, **settings})
        self.release()
        self.wait_for_pods(frozen, timeout=120)
        trap = self.freeze()
        self.release(3)
        trap.wait()
        other = self.start_other({**QUICK, **HASTY})
        self.wait_for_pods(other, timeout=120)
        return frozen, other


@pytest.fixture
def pair(postgres: OnPostgres, api: KubeApi, start: Start) -> Iterator[Pair]:
    """Return two API servers of one cluster and a database; no scheduler yet."""
    with KubeApi(pods=api.pods) as silent:
        yield Pair(start, postgres, api, silent)
        silent.clear()


def test_what_another_scheduler_has_taken_over_is_dropped_and_gets_one_pod(pair: Pair):
    frozen, other = pair.overtaken({})
    mark = frozen.mark()
    pair.silent.clear()
    fenced = frozen.wait_event("fenced", since=mark)

    # The one whose creation got no answer, and the eight behind it.
    assert fenced.facts["dropped"] == "9", fenced.line
    assert "marked this one's job as failed" in fenced.facts["outcome"]
    # Airflow 3 writes the time of the heartbeat before, so it may be marked before the threshold.
    assert float(fenced.facts["silent_s"]) > 10
    stay_well(pair, frozen, other)
    # Whoever is alone gets the next tasks: the one that was fenced works on.
    assert other.terminate() == 0
    pair.release(2)
    pair.wait_for_pods(frozen)
    pair.finish(frozen)
    assert set(pair.pods().values()) == {1}, frozen.tail()


def stay_well(pair: Pair, frozen: Scheduler, other: Scheduler, *, threshold: float = 15) -> None:
    """Check that both go on, with one pod for each task, and that none is said to be fenced once more."""
    jobs = pair.database.jobs
    frozen.wait_for(
        lambda: all(state == "running" and age < threshold for state, age in jobs().values()),
        30,
        "both to be healthy",
    )
    pair.release(2)
    pair.wait_for_pods(other)
    tail = frozen.tail() + other.tail()
    assert set(pair.pods().values()) == {1}, tail
    assert pair.database.task_states()["failed"] == 0, tail
    assert len(frozen.events("fenced")) == 1, tail
    assert not other.events("fenced"), tail
    assert not frozen.events("part_off"), tail


def test_a_scheduler_that_was_stopped_is_told_in_the_middle_of_its_batch(pair: Pair):
    batch: dict[str, object] = {"kubernetes_executor.worker_pods_creation_batch_size": 8}
    frozen = pair.start_frozen({**QUICK, **FROZEN, **HASTY, **batch})
    pair.release()
    pair.wait_for_pods(frozen, timeout=120)
    trap = pair.silent.set_fault(Fault.SLOW, on="create", seconds=2)
    pair.release(2)
    trap.wait()
    frozen.send(signal.SIGSTOP)

    other = pair.start_other({**QUICK, **HASTY})
    pair.wait_for_pods(other, timeout=120)
    mark = frozen.mark()
    pair.silent.clear()
    frozen.send(signal.SIGCONT)
    fenced = frozen.wait_event("fenced", since=mark)

    if UNASKED:
        assert int(fenced.facts["dropped"]) > 0, fenced.line
    stay_well(pair, frozen, other)


def test_with_exit_when_fenced_the_process_leaves_with_75(pair: Pair):
    frozen, other = pair.overtaken({"watchdog_hook.exit_when_fenced": True})
    pair.silent.clear()

    assert frozen.wait(60) == 75
    assert len(frozen.events("fenced")) == 1
    assert frozen.events("terminate")[-1].facts["outcome"] == "fenced"
    pair.release()
    pair.wait_for_pods(other)
    pair.finish(other)
    assert set(pair.pods().values()) == {1}, other.tail()


@pytest.mark.skipif(
    PROVIDER < (10, 21), reason="this provider ends the scheduler when a call breaks"
)
def test_observing_only_it_is_said_and_tasks_get_a_second_pod(pair: Pair):
    frozen, _ = pair.overtaken({"watchdog_hook.interrupt": "off"})
    mark = frozen.mark()
    pair.silent.clear()
    fenced = frozen.wait_event("fenced", since=mark)

    assert fenced.facts["action"] == "none: interrupt = off"
    assert "dropped" not in fenced.facts
    if UNASKED:
        # What the other tests would find without us.
        frozen.wait_for(lambda: max(pair.pods().values()) == 2, 60, "a second pod")


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_six_minutes_with_airflows_own_times_cost_no_task_and_double_none(pair: Pair):
    retries: dict[str, object] = {"kubernetes_executor.task_publish_max_retries": 5}
    frozen = pair.start_frozen({**FROZEN, **retries})
    frozen.wait_event("armed", timeout=120)
    other = pair.start_other(retries)
    other.wait_event("armed", timeout=120)
    pair.freeze_beside_another(frozen)
    end = time.monotonic() + 360
    pair.release(2)

    other.wait_for(lambda: time.monotonic() > end, 400, "six minutes")
    pair.wait_for_pods(other)
    mark = frozen.mark()
    pair.silent.clear()
    fenced = frozen.wait_event("fenced", since=mark)

    assert float(fenced.facts["silent_s"]) > 300
    stay_well(pair, frozen, other, threshold=30)
    pair.finish(other)

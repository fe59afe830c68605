"""What is asked of a real PostgreSQL, and written to it, when a scheduler comes back."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.database import OnPostgres
    from watchdog_hook.integrations.airflow.job_row import JobRow

# Whoever comes first makes the template, and imports Airflow: that is not of the test.
pytestmark = [pytest.mark.airflow, pytest.mark.timeout(120, func_only=True)]
OLD = 360  # seconds


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have Airflow, once imported, keep its files in a folder of ours."""
    folder = tmp_path_factory.mktemp("airflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(folder))
        patch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
        yield


@pytest.fixture
def row(postgres: OnPostgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobRow]:
    """Return the row of a scheduler that runs, with a heartbeat of six minutes ago."""
    from airflow import settings
    from sqlalchemy import create_engine

    from watchdog_hook.integrations.airflow.job_row import JobRow

    ((number,),) = postgres.rows(
        "INSERT INTO job (job_type, state, latest_heartbeat)"
        f" VALUES ('SchedulerJob', 'running', now() - interval '{OLD} seconds') RETURNING id"
    )
    engine = create_engine(postgres.url)
    monkeypatch.setattr(settings, "engine", engine)
    yield JobRow(number)
    engine.dispose()


def mark(connection: Any, row: JobRow, state: str = "failed") -> None:
    """Mark the row as another scheduler would, in that session."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE job SET state = %s WHERE id = %s", (state, row.job_id))


def test_a_row_that_says_running_gets_a_heartbeat(row: JobRow, postgres: OnPostgres):
    assert row.state() == "running"
    assert postgres.jobs()[row.job_id][1] >= OLD

    assert row.hold() == "running"
    state, age = postgres.jobs()[row.job_id]
    assert (state, age < OLD) == ("running", True)


@pytest.mark.parametrize("state", ["failed", "success", "restarting"])
def test_a_row_that_says_something_else_is_left_as_it_is(
    row: JobRow, postgres: OnPostgres, state: str
):
    with closing(postgres.connect()) as other:
        mark(other, row, state)

    assert row.hold() == row.state() == state
    assert postgres.jobs()[row.job_id][0] == state
    assert postgres.jobs()[row.job_id][1] >= OLD


def test_a_row_that_is_gone_says_nothing(row: JobRow, postgres: OnPostgres):
    postgres.rows("DELETE FROM job")

    assert row.hold() is None
    assert row.state() is None


def test_the_row_is_set_back_only_from_what_it_said(row: JobRow, postgres: OnPostgres):
    with closing(postgres.connect()) as other:
        mark(other, row)
    row.rejoin("success")
    assert row.state() == "failed"

    row.rejoin("failed")
    state, age = postgres.jobs()[row.job_id]
    assert (state, age < OLD) == ("running", True)


def test_a_takeover_that_has_not_ended_yet_is_waited_for(row: JobRow, postgres: OnPostgres):
    said: list[str | None] = []
    with closing(postgres.connect()) as other:
        other.autocommit = False
        mark(other, row)
        thread = threading.Thread(target=lambda: said.append(row.hold()))
        thread.start()
        wait_until_locked(postgres)
        # Whoever only reads does not see it: this is why a heartbeat is written.
        assert row.state() == "running"
        assert not said
        other.commit()
        thread.join()

    assert said == ["failed"]


def test_a_row_that_is_locked_for_long_is_not_waited_for(
    row: JobRow, postgres: OnPostgres, monkeypatch: pytest.MonkeyPatch
):
    from sqlalchemy.exc import OperationalError

    from watchdog_hook.integrations.airflow import job_row

    monkeypatch.setattr(job_row, "LOCK_PATIENCE", 1)
    with closing(postgres.connect()) as other:
        other.autocommit = False
        mark(other, row)
        with pytest.raises(OperationalError, match="lock timeout"):
            row.hold()
        other.rollback()

    assert row.hold() == "running"


def test_the_tasks_of_a_scheduler_are_told_by_their_keys(row: JobRow, postgres: OnPostgres):
    from airflow.models.taskinstancekey import TaskInstanceKey

    from watchdog_hook.integrations.airflow.task_instances import held_by

    change = (
        "UPDATE task_instance SET state = :state, queued_by_job_id = :job"
        " WHERE task_id = :task AND dag_id = 'step_00'"
    )
    mine, others = row.job_id, row.job_id + 1
    for task, state, job in (
        ("a", "queued", mine),
        ("b", "running", others),
        ("c", "success", mine),
    ):
        postgres.rows(change, state=state, job=job, task=task)
    held = held_by(row.job_id)

    found = [held(TaskInstanceKey("step_00", task, "waiting", 1, -1)) for task in "abc"]
    assert found == [True, False, False]
    assert not held(TaskInstanceKey("step_00", "a", "another run", 1, -1))


def wait_until_locked(postgres: OnPostgres) -> None:
    """Return once somebody waits for a lock."""
    end = time.monotonic() + 30
    while not postgres.rows("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
        assert time.monotonic() < end
        time.sleep(0.01)  # between two questions; the deadline decides

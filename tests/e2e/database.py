"""Airflow's database as the tests see it: plain SQL, without importing Airflow."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections import Counter
from contextlib import closing
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.postgres import Postgres


class Database:
    """Questions to the database of one AIRFLOW_HOME, and the few changes that tests make."""

    url: str

    def rows(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """Run one statement, with `:name` for each value, and return its rows."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Write a copy from which another database of this kind can start."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back what the database holds."""

    def release(self, *dags: str) -> None:
        """Let the waiting runs of these DAGs go, all at once: no turn of a scheduler sees only some."""
        # As many digits each, for no name to be the beginning of another.
        named = {f"dag_{number:03}": dag for number, dag in enumerate(dags)}
        these = ", ".join(f":{name}" for name in named)
        self.rows(f"UPDATE dag SET is_paused = :no WHERE dag_id IN ({these})", no=False, **named)

    def run_states(self, *dags: str) -> list[str]:
        """Return the state of the runs of these DAGs, each once."""
        rows = self.rows("SELECT dag_id, state FROM dag_run")
        return sorted({state for dag, state in rows if dag in dags})

    def jobs(self) -> dict[int, tuple[str, float]]:
        """Return state and age of the last heartbeat, in seconds, of each scheduler."""
        now = datetime.now(timezone.utc)
        rows = self.rows(
            "SELECT id, state, latest_heartbeat FROM job WHERE job_type = 'SchedulerJob'"
        )
        return {number: (state, (now - _utc(beat)).total_seconds()) for number, state, beat in rows}

    def task_states(self) -> Counter[str | None]:
        """Count the task instances by state."""
        return Counter(state for (state,) in self.rows("SELECT state FROM task_instance"))

    def tries(self) -> dict[tuple[str, str, int], int]:
        """Return the try number of each (dag, task, map index) that was ever queued."""
        found = self.rows(
            "SELECT dag_id, task_id, map_index, try_number FROM task_instance"
            " WHERE queued_by_job_id IS NOT NULL"
        )
        return {(dag, task, index): number for dag, task, index, number in found}

    def set_task_state(self, state: str, dag: str) -> None:
        """Say what the pods' tasks would have said themselves."""
        self.rows(
            "UPDATE task_instance SET state = :state WHERE dag_id = :dag", state=state, dag=dag
        )

    def forget_scheduler(self) -> None:
        """Let a scheduler that was killed have been gone for long, so that another may follow it."""
        self.rows("UPDATE job SET latest_heartbeat = :then", then="2026-01-01 00:00:00.000000")

    def scheduler_job(self) -> tuple[int, str, float]:
        """Return id, state and age of the last heartbeat, in seconds, of the newest scheduler."""
        ((number, state, beat),) = self.rows(
            "SELECT id, state, latest_heartbeat FROM job WHERE job_type = 'SchedulerJob'"
            " ORDER BY id DESC LIMIT 1"
        )
        return number, state, (datetime.now(timezone.utc) - _utc(beat)).total_seconds()


class Sqlite(Database):
    """One file."""

    def __init__(self, home: Path, template: Path | None = None) -> None:
        self._file = home / "airflow.db"
        if template:
            shutil.copyfile(template / "airflow.db", self._file)
        self.url = f"sqlite:///{self._file}"

    def rows(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        end = time.monotonic() + 60
        while True:
            try:
                with closing(sqlite3.connect(self._file, timeout=30)) as connection, connection:
                    return connection.execute(statement, values).fetchall()
            except sqlite3.OperationalError as error:
                # A writer that comes second gets this at once, whatever the timeout.
                if "locked" not in str(error) or time.monotonic() > end:
                    raise
                time.sleep(0.05)  # between two attempts; the deadline decides

    def save(self, folder: Path) -> None:
        shutil.copyfile(self._file, folder / "airflow.db")


class OnPostgres(Database):
    """A cluster of its own."""

    def __init__(self, template: Path | None = None) -> None:
        from tests.e2e.postgres import Postgres

        self._server: Postgres = Postgres(template / "data" if template else None)
        try:
            self._server.start()
        except BaseException:
            self._server.remove()
            raise
        self.url = self._server.url

    def rows(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        for name in values:
            statement = statement.replace(f":{name}", f"%({name})s")
        with closing(self._server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def connect(self) -> Any:
        """Return a session of the server's own."""
        return self._server.connect()

    def save(self, folder: Path) -> None:
        self._server.stop()
        shutil.copytree(self._server.data, folder / "data")

    def close(self) -> None:
        self._server.remove()


def _utc(moment: datetime | str) -> datetime:
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)

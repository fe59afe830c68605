"""Our own row in Airflow's table of jobs: does it still say that we run?"""

from __future__ import annotations

from typing import Any

LOCK_PATIENCE = 10  # seconds for another scheduler to let go of the row

# Nobody has taken our work over: the row says that we run, is gone, or asks us to end (Airflow's own heartbeat
# does that).
OURS = (None, "running", "restarting")


class JobRow:
    """
    The row of one scheduler. Every question takes a connection of its own, outside the session the loop may have
    open, and raises what the database raises.

    A plain SELECT would not do. Another scheduler marks our row, looks for our pods and resets our tasks in one
    transaction: until that ends, a reader still sees "running". An UPDATE waits for it.
    """

    def __init__(self, job_id: Any) -> None:
        from airflow import settings
        from airflow.jobs.job import Job
        from airflow.utils import timezone
        from sqlalchemy import select, text, update

        self.job_id = job_id
        self._settings, self._table, self._utcnow = settings, Job.__table__, timezone.utcnow
        self._select, self._update, self._text = select, update, text

    def hold(self) -> str | None:
        """
        Write a heartbeat if the row says that we run; return what it says.

        From then on nobody can mark it for another `scheduler_health_check_threshold` seconds: a task that is
        started now cannot be taken over while it is being started.
        """
        dialect = self._settings.engine.dialect.name
        if dialect == "sqlite":
            return self.state()  # there is no second scheduler, and a writer may have to wait
        table = self._table
        ours = table.c.id == self.job_id
        with self._settings.engine.begin() as connection:
            self._be_patient(connection, dialect)
            held = connection.execute(
                self._update(table)
                .where(ours, table.c.state == "running")
                .values(latest_heartbeat=self._utcnow())
            )
            return "running" if held.rowcount else self._read(connection)

    def state(self) -> str | None:
        """Return what the row says, without a change; None where there is no row."""
        with self._settings.engine.connect() as connection:
            return self._read(connection)

    def rejoin(self, marked: str) -> None:
        """Say again that we run, where the row still says `marked`, as Airflow's own next heartbeat would."""
        table = self._table
        with self._settings.engine.begin() as connection:
            self._be_patient(connection, self._settings.engine.dialect.name)
            connection.execute(
                self._update(table)
                .where(table.c.id == self.job_id, table.c.state == marked)
                .values(state="running", latest_heartbeat=self._utcnow())
            )

    def _read(self, connection: Any) -> str | None:
        table = self._table
        asked = self._select(table.c.state).where(table.c.id == self.job_id)
        row = connection.execute(asked).first()
        return None if row is None else row[0] and str(getattr(row[0], "value", row[0]))

    def _be_patient(self, connection: Any, dialect: str) -> None:
        if dialect == "postgresql":  # MySQL gives up by itself, after 50 s
            connection.execute(self._text(f"set local lock_timeout = '{LOCK_PATIENCE}s'"))

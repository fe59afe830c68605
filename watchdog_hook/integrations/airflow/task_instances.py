"""What the metadata database says of task instances: are they still ours?"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any


class Standing(Enum):
    """What the database says of a task instance whose job we had put back."""

    OURS = "still queued by this scheduler"
    STARTED = "its pod was created and has started"
    NOT_OURS = "reset, started or taken over by someone else"
    TOO_LONG = "queued for longer than [scheduler] task_queued_timeout; Airflow takes over"


def standing(key: Any, job_id: Any) -> Standing:
    """
    Ask for state, try and owner by the task instance's unique key: one indexed SELECT.

    On a connection of its own, outside the session the loop may have open. Raises what the database raises.
    """
    from airflow import settings
    from airflow.configuration import conf
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils import timezone
    from sqlalchemy import select

    table: Any = TaskInstance.__table__
    identity = (
        (table.c.id == key.id,)
        if not hasattr(key, "dag_id")
        else (
            table.c.dag_id == key.dag_id,
            table.c.task_id == key.task_id,
            table.c.run_id == key.run_id,
            table.c.map_index == key.map_index,
        )
    )
    columns = (table.c.state, table.c.try_number, table.c.queued_by_job_id, table.c.queued_dttm)
    with settings.engine.connect() as connection:
        row = connection.execute(select(*columns).where(*identity)).first()
    if row is None:
        return Standing.NOT_OURS
    state, tries, owner, queued_at = row
    if str(owner) != str(job_id):
        return Standing.NOT_OURS
    wanted = getattr(key, "try_number", tries)
    # Before 2.10 the column counted the tries that had ended; since then it holds the present one.
    if tries != wanted and not (_counts_ended_tries() and tries + 1 == wanted):
        return Standing.NOT_OURS
    name = str(getattr(state, "value", state))
    if name in ("running", "success", "failed", "deferred"):
        return Standing.STARTED
    if name != "queued":
        return Standing.NOT_OURS
    timeout = conf.getfloat("scheduler", "task_queued_timeout", fallback=600.0)
    if queued_at is not None:
        if queued_at.tzinfo is None:
            queued_at = queued_at.replace(tzinfo=timezone.utc)
        if (timezone.utcnow() - queued_at).total_seconds() > timeout:
            return Standing.TOO_LONG
    return Standing.OURS


def held_by(job_id: Any) -> Callable[[Any], bool]:
    """
    Ask for all task instances that a scheduler has queued and that have not ended; return a test for keys.

    On a connection of its own. Raises what the database raises.
    """
    from airflow import settings
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select

    table: Any = TaskInstance.__table__
    columns = [table.c[name] for name in ("dag_id", "task_id", "run_id", "map_index")]
    if "id" in table.c:  # from Airflow 3 on
        columns.append(table.c.id)
    asked = select(*columns).where(
        table.c.queued_by_job_id == int(job_id),
        table.c.state.in_(["queued", "running", "restarting"]),
    )
    with settings.engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(asked)]
    keys, ids = {row[:4] for row in rows}, {str(row[-1]) for row in rows}

    def held(key: Any) -> bool:
        if not hasattr(key, "dag_id"):
            return str(key.id) in ids
        return (key.dag_id, key.task_id, key.run_id, key.map_index) in keys

    return held


def _counts_ended_tries() -> bool:
    from airflow import __version__

    major, minor = (int(part) for part in __version__.split(".")[:2])
    return (major, minor) < (2, 10)

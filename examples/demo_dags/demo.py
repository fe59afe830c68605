"""Ten tasks for the demo. They get a pod each, and the pods never run."""

from __future__ import annotations

from datetime import datetime, timezone

from airflow.sdk import DAG, task

with DAG("demo", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)):
    for number in range(1, 11):

        @task(task_id=f"task_{number:02}")
        def work() -> None:
            """Do nothing."""

        work()

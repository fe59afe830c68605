"""
The DAGs of the tests: steps that are let go one after the other, each with one run waiting.

Nothing of them ever runs: the tests' API server keeps their pods Pending.
"""

from __future__ import annotations

from datetime import datetime, timezone

from kubernetes.client import models as k8s

try:
    from airflow.sdk import DAG, task
except ImportError:
    from airflow import DAG
    from airflow.decorators import task

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
SETTINGS = {"schedule": None, "start_date": START, "catchup": False}


def in_namespace(name: str) -> dict[str, k8s.V1Pod]:
    """Return the executor_config of a task whose pod goes to another namespace."""
    return {"pod_override": k8s.V1Pod(metadata=k8s.V1ObjectMeta(namespace=name))}


def work() -> None:
    """Do nothing."""


for number in range(24):
    with DAG(f"step_{number:02}", **SETTINGS):
        for letter in "abc":
            task(work, task_id=letter)()

for number in range(4):
    with DAG(f"spread_{number:02}", **SETTINGS):
        for letter in "abc":
            task(work, task_id=f"here_{letter}")()
            task(work, task_id=f"there_{letter}", executor_config=in_namespace("there"))()

for number in range(2):
    with DAG(f"many_{number:02}", **SETTINGS):

        @task
        def mapped(item: int) -> None:
            """Do nothing, once for each item."""

        mapped.expand(item=list(range(8)))

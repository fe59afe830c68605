"""
Bring a fresh AIRFLOW_HOME to where a scheduler can start: `python prepare.py`.

The database is migrated, the DAGs are in it, and each has one run waiting. All of it in one process,
since every `airflow` command of its own would cost seconds.
"""

from __future__ import annotations

import sys


def airflow(*words: str) -> None:
    """Run one command of the command line."""
    from airflow.__main__ import main

    print("+ airflow", *words, flush=True)
    sys.argv = ["airflow", *words]
    main()


def main() -> None:
    airflow("db", "migrate")
    airflow("dags", "reserialize")
    from airflow.models import DagModel
    from airflow.utils.session import create_session

    with create_session() as session:
        names = sorted(name for (name,) in session.query(DagModel.dag_id))
    for name in names:
        airflow("dags", "trigger", name, "--run-id", "waiting")
    print(len(names), "runs are waiting")


if __name__ == "__main__":
    main()

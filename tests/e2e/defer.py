"""Have the waiting tasks of a DAG deferred, one to each trigger: `python defer.py DAG CLASSPATH=KWARGS …`."""

from __future__ import annotations

import json
import sys


def main() -> None:
    from airflow.models import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session

    dag, *triggers = sys.argv[1:]
    with create_session() as session:
        tasks = session.query(TaskInstance).filter(TaskInstance.dag_id == dag)
        for task, given in zip(tasks.order_by(TaskInstance.task_id), triggers, strict=False):
            classpath, _, kwargs = given.partition("=")
            trigger = Trigger(classpath=classpath, kwargs=json.loads(kwargs))
            session.add(trigger)
            session.flush()
            task.state, task.trigger_id = "deferred", trigger.id


if __name__ == "__main__":
    main()

"""A loop that waits for the metadata database, and what the server itself says of it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.e2e.airflow_home import AIRFLOW
from tests.e2e.ordeal import QUICK, Ordeal

if TYPE_CHECKING:
    from tests.e2e.conftest import Start
    from tests.fakes.kube_api import KubeApi


@pytest.mark.skipif(
    AIRFLOW >= (3, 0), reason="SQLite, which these tests of 3.x run on, has no server"
)
def test_who_holds_the_lock_that_the_loop_waits_for_is_named(start: Start, api: KubeApi):
    scheduler = start(QUICK)
    ordeal = Ordeal(scheduler, api)
    ordeal.release()
    ordeal.wait_for_pods(timeout=120)

    mark = scheduler.mark()
    with closing(scheduler.home.database.connect()) as other:
        other.autocommit = False
        with other.cursor() as cursor:
            cursor.execute("SET application_name = 'a migration'")
            cursor.execute("SELECT pg_backend_pid()")
            (holder,) = cursor.fetchone()
            cursor.execute("LOCK TABLE dag_run IN ACCESS EXCLUSIVE MODE")
        scheduler.wait_event("dump", since=mark)
        scheduler.wait_text("Files: ", since=mark)
        text = scheduler.text(mark)
        other.rollback()
    scheduler.wait_event("stall_ended", since=mark)

    assert "cause=database-lock-wait" in text
    assert f"held by server process {holder} of a migration" in text
    assert "idle in transaction" in text
    assert "the metadata database (host of sql_alchemy_conn)" in text
    assert not scheduler.events("interrupt", since=mark)
    ordeal.release()
    ordeal.wait_for_pods()
    ordeal.check()

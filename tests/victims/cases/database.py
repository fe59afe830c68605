"""Statements and connections of the metadata database, through SQLAlchemy: PostgreSQL and SQLite."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from tests.victims.peers import Remote
from tests.victims.stage import Stage, case
from watchdog_hook.watchdog import Watchdog

TABLE = (
    "create table dag (dag_id text primary key, fileloc text)",
    "insert into dag values ('a', '')",
)
UPDATE = "update dag set fileloc = 'x' where dag_id = 'a'"


@contextlib.contextmanager
def metadata(
    stage: Stage, server: Remote, **settings: Any
) -> Iterator[tuple[Any, Callable[[str], Any], Watchdog]]:
    """Give Airflow's own engine, a function that runs a statement on it, and the watchdog."""
    os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = server.info["url"]
    import airflow.settings
    from sqlalchemy import text

    from watchdog_hook.integrations.airflow.host import AirflowHost

    airflow.settings.initialize()
    engine = airflow.settings.engine
    host = AirflowHost(SimpleNamespace(job=SimpleNamespace(id=7)), [])

    def run(statement: str) -> Any:
        with engine.connect() as connection, connection.begin():
            return connection.execute(text(statement))

    with stage.watched("scheduling", host, **settings) as dog:
        dog.beat()
        yield engine, run, dog


@case("database-lock-wait")
def lock_wait(stage: Stage) -> None:
    server = stage.peer("postgres")
    server.do("run", *TABLE)
    server.do("hold", UPDATE)
    with metadata(stage, server) as (_, run, _):
        run(UPDATE)


@case("database-slow-query")
def slow_query(stage: Stage) -> None:
    server = stage.peer("postgres")
    with metadata(stage, server) as (_, run, _):
        run("select count(*) from generate_series(1, 100000) a, generate_series(1, 100000) b")


@case("database-slow-query--sleeps")
def sleeping_query(stage: Stage) -> None:
    server = stage.peer("postgres")
    with metadata(stage, server) as (_, run, _):
        run("select pg_sleep(3600)")


@case("database-silent")
def silent(stage: Stage) -> None:
    server = stage.peer("postgres")
    with metadata(stage, server) as (engine, _, _), engine.connect() as connection:
        connection.exec_driver_sql("select 1")
        server.do("freeze")
        connection.exec_driver_sql("select 2")


@case("database-no-answer")
def behind_a_pooler(stage: Stage) -> None:
    """The server does not know the session by this process's port: something stands between."""
    server = stage.peer("postgres", way=True)
    with metadata(stage, server) as (_, run, _):
        run("select pg_sleep(3600)")


@case("database-unreachable")
def unreachable(stage: Stage) -> None:
    server = stage.peer("postgres", way=True)
    with metadata(stage, server, dump_after=4) as (engine, _, _), engine.connect() as connection:
        connection.exec_driver_sql("select 1")
        server.do("lose")
        connection.exec_driver_sql("select 2")


@case("database-connect")
def connect(stage: Stage) -> None:
    server = stage.peer("postgres")
    with metadata(stage, server) as (engine, _, _):
        server.do("freeze")
        engine.connect()


@case("database-connect--gone")
def connect_to_nobody(stage: Stage) -> None:
    server = stage.peer("postgres", way=True)
    with metadata(stage, server, dump_after=4) as (engine, _, _):
        server.do("lose")
        engine.connect()


@case("database-locked-file")
def sqlite_locked(stage: Stage) -> None:
    import sqlalchemy

    path = stage.folder / "airflow.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{path}", connect_args={"timeout": 3600})
    with engine.begin() as connection:
        for statement in TABLE:
            connection.exec_driver_sql(statement)
    stage.peer("sqlite", path=str(path))
    with stage.watched("scheduling"), engine.begin() as connection:
        connection.exec_driver_sql(UPDATE)


@case("database-pool-exhausted")
def pool_exhausted(stage: Stage) -> None:
    """Two threads hold the only two connections: one waits for something else, one has no session left."""
    server = stage.peer("postgres")
    with metadata(stage, server) as (engine, _, _):
        import sqlalchemy

        pool = sqlalchemy.create_engine(engine.url, pool_size=1, max_overflow=1, pool_timeout=3600)
        ready = threading.Barrier(3)

        def forget_to_close() -> None:
            with pool.connect() as connection:
                connection.exec_driver_sql("select 1")
                ready.wait()
                threading.Event().wait()

        for _ in range(2):
            threading.Thread(target=forget_to_close, name="listener", daemon=True).start()
        ready.wait()
        pool.connect()


# --- near misses ------------------------------------------------------------------------------------------


@case("not-database-no-answer--answered")
def answered(stage: Stage) -> None:
    """The statement came back at once; what the thread waits for is its own, with the session open."""
    server = stage.peer("postgres")
    server.do("run", *TABLE)
    with metadata(stage, server) as (engine, _, _), engine.connect() as connection:
        connection.exec_driver_sql(UPDATE)
        threading.Event().wait()


@case("not-database-slow-query--many-quick-ones")
@case("database-many-statements")
def quick(stage: Stage) -> None:
    """Statement after statement, each of them answered at once."""
    server = stage.peer("postgres")
    with metadata(stage, server, dump_after=0.6) as (_, run, _):
        while True:
            run("select pg_sleep(0.05)")


@case("not-database-lock-wait--idle-bystander")
@case("not-database-many-statements--one-old")
@case("not-database-not-begun--works")
@case("not-database-unreachable--acknowledged")
@case("not-database-connect--connected")
def bystander(stage: Stage) -> None:
    """Another session holds a lock for long, but not one that this statement wants."""
    server = stage.peer("postgres")
    server.do("run", *TABLE)
    server.do("hold", UPDATE)
    with metadata(stage, server, dump_after=4) as (_, run, _):
        run("select pg_sleep(3600) from dag")


@case("database-not-begun")
@case("not-database-silent--one-backend")
def one_backend(stage: Stage) -> None:
    """Only the process of this very session hangs: the server answers others, and calls it active."""
    server = stage.peer("postgres")
    with metadata(stage, server) as (engine, _, _), engine.connect() as connection:
        pid = connection.exec_driver_sql("select pg_backend_pid()").scalar()
        server.do("freeze", pid)
        connection.exec_driver_sql("select 2")


@case("not-database-pool-exhausted--makes-one-more")
def makes_one_more(stage: Stage) -> None:
    """The pool has room, and makes a connection; the server does not complete that."""
    server = stage.peer("postgres")
    with metadata(stage, server) as (engine, _, _):
        import sqlalchemy

        pool = sqlalchemy.create_engine(engine.url, pool_size=5)
        server.do("freeze")
        pool.connect()


@case("not-database-pool-exhausted--has-the-last")
def has_the_last(stage: Stage) -> None:
    """This thread has the pool's only connection, and waits for something else; another wants one, too."""
    server = stage.peer("postgres")
    with metadata(stage, server) as (engine, _, _):
        import sqlalchemy

        pool = sqlalchemy.create_engine(engine.url, pool_size=1, max_overflow=0, pool_timeout=3600)
        with pool.connect():
            threading.Thread(target=pool.connect, daemon=True).start()
            threading.Event().wait()


@case("not-database-locked-file--sqlite-works")
def sqlite_works(stage: Stage) -> None:
    """SQLite computes, and holds no lock that anybody wants."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(f"sqlite:///{stage.folder / 'airflow.db'}")
    with stage.watched("scheduling"), engine.begin() as connection:
        connection.exec_driver_sql(
            "with recursive n(x) as (select 1 union all select x + 1 from n) select max(x) from n"
        )

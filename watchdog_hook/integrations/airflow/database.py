"""The metadata database: is a connection one to it, and what does the server say of its session?"""

from __future__ import annotations

import re
from typing import Any

from watchdog_hook.core.observed import DatabaseFacts, Descriptor, Session
from watchdog_hook.errand import Errands
from watchdog_hook.integrations.airflow.places import Place

PATIENCE = 4.0  # seconds for the whole question: the dump waits for it
WORDS = 60  # characters of a statement

_SESSION = """
select pid, state, wait_event_type, wait_event, extract(epoch from now() - query_start), application_name,
       host(client_addr), left(query, {words}), pg_blocking_pids(pid)
from pg_stat_activity where client_port = {port} and datname = current_database()
"""
_BLOCKERS = """
select pid, state, wait_event_type, wait_event, extract(epoch from now() - coalesce(xact_start, query_start)),
       application_name, host(client_addr), left(query, {words}), null
from pg_stat_activity where pid = any(array[{pids}]::int[])
"""


class MetadataDatabase:
    """The database of `[database] sql_alchemy_conn`. What has to be imported is imported when it is made."""

    def __init__(self) -> None:
        from airflow import settings
        from sqlalchemy import create_engine, pool, text

        self._url: Any = settings.engine.url
        self._text, self._pool, self._create_engine = text, pool.NullPool, create_engine
        self._arguments = _connect_args()
        self._place = Place(self._url.host, self.port)
        self._errands = Errands("watchdog-hook-database", PATIENCE)

    @property
    def port(self) -> int | None:
        """The server's port; None where there is no server, as with SQLite."""
        if not self._url.host:
            return None
        default = {"postgresql": 5432, "mysql": 3306}.get(self._url.get_backend_name())
        return self._url.port or default

    def leads_here(self, descriptor: Descriptor) -> bool:
        """Tell whether a connection is one to this server."""
        return self._place.is_end_of(descriptor)

    def ask(self, descriptor: Descriptor) -> DatabaseFacts | None:
        """Return what the server says of the session behind a connection; None for servers we cannot ask."""
        if self._url.get_backend_name() != "postgresql" or not self.leads_here(descriptor):
            return None
        port = (descriptor.local or "").rpartition(":")[2]
        found: list[DatabaseFacts] = []
        if not port.isdigit():
            return None
        self._errands.send(lambda: found.append(self._asked(int(port))))
        return found[0] if found else DatabaseFacts(False, f"no answer within {PATIENCE:.0f} s")

    def reset_after_fork(self) -> None:
        """Forget the parent's thread and lock."""
        self._errands.reset_after_fork()

    def _asked(self, port: int) -> DatabaseFacts:
        # On a connection of its own, made now: the pool's may all be in use, and this one may not wait.
        engine = self._create_engine(
            self._url, poolclass=self._pool, connect_args={**self._arguments, "connect_timeout": 2}
        )
        try:
            with engine.connect() as connection:
                connection.execute(self._text("set statement_timeout = 2000"))
                asked = _SESSION.format(words=WORDS, port=port)
                row = connection.execute(self._text(asked)).first()
                if row is None:
                    return DatabaseFacts(True)
                pids = ",".join(str(int(pid)) for pid in row[8] or ())
                blocking = _BLOCKERS.format(words=WORDS, pids=pids)
                rows = connection.execute(self._text(blocking)).all() if pids else ()
                return DatabaseFacts(
                    True, session=_session(row), blockers=tuple(_session(row) for row in rows)
                )
        except Exception as error:  # noqa: BLE001 - its text may hold values; its class does not
            return DatabaseFacts(False, type(error).__name__)
        finally:
            engine.dispose()


def _session(row: Any) -> Session:
    pid, state, kind, event, since, application, client, query, _ = row
    return Session(
        int(pid),
        state=state,
        waits=f"{kind}: {event}" if kind == "Lock" else None,
        since_s=None if since is None else float(since),
        application=application or None,
        client=client,
        query=first_words(query) if query else None,
    )


def first_words(query: str) -> str:
    """Return a statement up to the first value in it: keywords and names of tables and columns, no more."""
    return " ".join(re.split(r"['\"$0-9(%]", query, maxsplit=1)[0].split())


def _connect_args() -> dict[str, Any]:
    from airflow.configuration import conf

    if not conf.has_option("database", "sql_alchemy_connect_args"):
        return {}
    return dict(conf.getimport("database", "sql_alchemy_connect_args") or {})

"""A real PostgreSQL as a victim's peer: on a TCP port, with sessions of its own that hold locks."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from tests.e2e import postgres
from tests.victims.peers import Peer, Way

PORT = 5432


class Database(Peer):
    """A cluster, and the commands that bring it into trouble. `way`: the victim's port leads through one."""

    def __init__(self, way: bool = False) -> None:
        self._server = postgres.Postgres()
        if not way:
            self._server.port = PORT
        try:
            self._server.start()
        except BaseException:
            self._server.remove()
            raise
        self._way = Way(("127.0.0.1", PORT), ("127.0.0.1", self._server.port)) if way else None
        self._sessions: list[Any] = []
        self._stopped: list[int] = []
        self.info = {"url": f"postgresql+psycopg2://airflow@127.0.0.1:{PORT}/airflow"}

    def hold(self, *statements: str) -> None:
        """Run these in a transaction that is left open."""
        connection = self._server.connect()
        connection.autocommit = False
        with connection.cursor() as cursor:
            cursor.execute("set application_name = 'airflow-dag-processor'")
            for statement in statements:
                cursor.execute(statement)
        self._sessions.append(connection)

    def run(self, *statements: str) -> None:
        """Run these and commit each."""
        with self._server.connect() as connection, connection.cursor() as cursor:
            connection.autocommit = True
            for statement in statements:
                cursor.execute(statement)

    def freeze(self, *pids: int) -> None:
        """Stop these processes of the server, or every one, as a machine that hangs."""
        if not pids:
            pid = int(Path(self._server.data, "postmaster.pid").read_text().split()[0])
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            pids = (pid, *map(int, children))
        for each in pids:
            os.kill(each, signal.SIGSTOP)
            self._stopped.append(each)

    def lose(self) -> None:
        """Be gone."""
        assert self._way is not None
        self._way.lose()

    def close(self) -> None:
        """Wake it, so that it can end."""
        for pid in self._stopped:
            os.kill(pid, signal.SIGCONT)
        self._server.remove()

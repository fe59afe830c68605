"""A PostgreSQL of our own: in a folder, on a port of its own on loopback, as a user without rights."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

MISSING = (
    "Two schedulers, and Airflow 2 with the KubernetesExecutor, run on PostgreSQL only, and there is none here "
    "(looked in /usr/lib/postgresql/*/bin and on PATH). Install it: apt-get install postgresql"
)
FAST = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "listen_addresses=127.0.0.1"]

PORTS = 5  # that are tried, one after the other


class PortTaken(RuntimeError):
    """Between its choice and the server's start somebody else has taken the port."""


class PostgresMissing(RuntimeError):
    """There is no PostgreSQL on this machine; the message says how to get it."""


class Postgres:
    """One cluster with one database, `airflow`, reached over TCP, as a real one is."""

    def __init__(self, template: Path | None = None) -> None:
        """Start from a copy of `template`, a folder that `save` has made, or empty."""
        self._programs = programs()
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self.data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        if template:
            shutil.copytree(template, self.data)
        self._give_away()
        if not template:
            self._run("initdb", "--pgdata", self.data, "--username=airflow", "--auth=trust", "-N")
        self.port = _free_port()  # not before that: it is ours only once the server has it

    @property
    def url(self) -> str:
        """Return what `sql_alchemy_conn` takes."""
        return f"postgresql+psycopg2://airflow@127.0.0.1:{self.port}/airflow"

    def connect(self, database: str = "airflow", host: str = "127.0.0.1") -> Any:
        """Return a connection that commits each statement."""
        import psycopg2

        connection = psycopg2.connect(host=host, port=self.port, user="airflow", dbname=database)
        connection.autocommit = True
        return connection

    def start(self) -> None:
        """Start the server and return once it answers; on another port where somebody was quicker."""
        for _ in range(PORTS - 1):
            try:
                self._start()
                return
            except PortTaken:
                self.port = _free_port()
        self._start()

    def _start(self) -> None:
        options = ["-p", str(self.port), *(word for option in FAST for word in ("-c", option))]
        log = (self.folder / "postgres.log").open("ab")
        with log:
            before = log.tell()
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self.data, "-k", self.folder, *options],
                stdout=log,
                stderr=log,
                **_someone_without_rights(),
            )
        import psycopg2

        end = time.monotonic() + 60
        while True:
            try:
                # By its socket in the file system, which nobody else's server can have.
                self.connect("postgres", host=str(self.folder)).close()
                break
            except psycopg2.OperationalError:
                if time.monotonic() > end or self._process.poll() is not None:
                    said = (self.folder / "postgres.log").read_bytes()[before:]
                    text = said.decode(errors="replace")
                    kind = PortTaken if "Address already in use" in text else RuntimeError
                    raise kind(f"PostgreSQL did not start:\n{text[-2000:]}") from None
                time.sleep(0.05)  # between two questions; the deadline decides
        connection = self.connect("postgres")
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = 'airflow'")
            if not cursor.fetchone():
                cursor.execute("CREATE DATABASE airflow")
        connection.close()

    def stop(self) -> None:
        """End the server, and every session with it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait(20)
            self._process = None

    def remove(self) -> None:
        """Stop, and delete the folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *words: str | Path) -> None:
        command = [self._programs / program, *words]
        subprocess.run(command, check=True, capture_output=True, **_someone_without_rights())

    def _give_away(self) -> None:
        if not (someone := _someone_without_rights()):
            return
        for path in [self.folder, *self.folder.rglob("*")]:
            os.chown(path, someone["user"], someone["group"])


def programs() -> Path:
    """Return the folder with initdb and postgres, the newest first."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    on_path = [Path(name).parent for name in (shutil.which("initdb"),) if name]
    for folder in [*installed, *on_path]:
        if all((folder / name).exists() for name in ("initdb", "postgres")):
            return folder
    raise PostgresMissing(MISSING)


def _version(folder: Path) -> float:
    try:
        return float(folder.parent.name)
    except ValueError:
        return 0.0


def _someone_without_rights() -> dict[str, Any]:
    # PostgreSQL refuses to run as root, which is who a container runs us as.
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            someone = pwd.getpwnam(name)
        except KeyError:
            continue
        return {
            "user": someone.pw_uid,
            "group": someone.pw_gid,
            "extra_groups": [],
            "cwd": tempfile.gettempdir(),
        }
    raise RuntimeError("PostgreSQL does not run as root, and there is neither postgres nor nobody")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])

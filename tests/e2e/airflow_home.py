"""An AIRFLOW_HOME with everything a scheduler needs, made in a moment from a template."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e.database import Database, OnPostgres, Sqlite

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]


def _version(distribution: str) -> tuple[int, ...]:
    return tuple(int(part) for part in importlib.metadata.version(distribution).split(".")[:2])


AIRFLOW = _version("apache-airflow")
PROVIDER = _version("apache-airflow-providers-cncf-kubernetes")
HOOK = """\
import watchdog_hook

watchdog_hook.install()
"""

# What every scheduler of the tests is told; "section.option", as in airflow.cfg.
BASE: dict[str, object] = {
    "core.executor": "KubernetesExecutor",
    "core.dags_folder": HERE / "dags",
    "core.load_examples": False,
    "core.parallelism": 128,
    "core.dags_are_paused_at_creation": True,
    "database.load_default_connections": False,
    "api_auth.jwt_secret": "of-the-tests-0123456789012345678901234567890123456789",
    "usage_data_collection.enabled": False,
    "kubernetes_executor.in_cluster": False,
    "kubernetes_executor.namespace": "here",
    "kubernetes_executor.worker_container_repository": "nowhere.invalid/worker",
    "kubernetes_executor.worker_container_tag": "none",
    "kubernetes_executor.worker_pods_creation_batch_size": 8,
}


class AirflowHome:
    """A folder, its database, and the environment in which Airflow takes them for its own."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, object] | None = None,
        *,
        template: Path | None = None,
        local_settings: str = HOOK,
        database: Database | None = None,
    ) -> None:
        """Without a `database`, which stays its owner's, the home has one of its own."""
        self.folder = folder
        self.settings = {**BASE, **(settings or {})}
        # Short and of its own: Manager sockets live in it, and so does the cache of what the
        # dynamic client has discovered, which another test's API server must not answer from.
        self._tmp = folder / "tmp"
        self._tmp.mkdir(parents=True)
        self.write_local_settings(local_settings)
        self._lent = database is not None
        if database is None:
            database = OnPostgres(template) if AIRFLOW < (3, 0) else Sqlite(folder, template)
        self.database: Database = database

    def write_local_settings(self, text: str) -> None:
        """Replace airflow_local_settings.py; a scheduler reads it when it starts."""
        (self.folder / "config").mkdir(exist_ok=True)
        path = self.folder / "config" / "airflow_local_settings.py"
        path.write_text(textwrap.dedent(text), encoding="utf-8")

    def environment(self) -> dict[str, str]:
        """Return the environment of this home's processes, free of the caller's own Airflow."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in ("PATH", "LANG") or name.startswith("COVERAGE_")
        }
        options = {
            "AIRFLOW__" + name.replace(".", "__").upper(): str(value)
            for name, value in self.settings.items()
        }
        with_hook = {} if _is_installed() else {"PYTHONPATH": str(CHECKOUT)}
        return {
            **kept,
            **with_hook,
            **options,
            "HOME": str(self.folder),
            "TMPDIR": str(self._tmp),
            "AIRFLOW_HOME": str(self.folder),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.database.url,
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "ignore",
        }

    def command(self, *words: str) -> list[str]:
        """Return the command line of one `airflow` command in this interpreter's environment."""
        return [str(Path(sys.executable).with_name("airflow")), *words]

    def run(self, *words: str, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """Run one `airflow` command to its end; standard error is in the output."""
        # A file: what it has started may hold a pipe open for as long as it lives.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                self.command(*words),
                env=self.environment(),
                cwd=self.folder,
                timeout=timeout,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
            output.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, output.read())

    def prepare(self) -> None:
        """Migrate, read the DAGs, trigger a run of each; takes a minute on a small machine."""
        done = subprocess.run(
            [sys.executable, HERE / "prepare.py"],
            env=self.environment(),
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"Airflow's database could not be prepared:\n{done.stdout[-6000:]}")

    def close(self) -> None:
        """Give back the database; the folder stays."""
        if not self._lent:
            self.database.close()


def make_template(root: Path, *, on_postgres: bool = AIRFLOW < (3, 0)) -> Path:
    """Return a folder with a prepared database under `root`: made once, whoever comes first."""
    root.mkdir(parents=True, exist_ok=True)
    # Airflow 3 is tested on SQLite, but for what takes two schedulers.
    kind = "postgres-" if on_postgres and AIRFLOW >= (3, 0) else ""
    folder = root / f"airflow-{kind}{_fingerprint()}"
    with (root / "template.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            work = root / "template.new"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            database = OnPostgres() if on_postgres else None
            home = AirflowHome(work / "home", local_settings="", database=database)
            try:
                home.prepare()
                (work / "saved").mkdir()
                home.database.save(work / "saved")
            finally:
                home.database.close()
            (work / "saved").rename(folder)
            shutil.rmtree(work)
    return folder


def _fingerprint() -> str:
    sources = [HERE / "prepare.py", *sorted((HERE / "dags").glob("*.py"))]
    content = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:8]
    return f"{importlib.metadata.version('apache-airflow')}-{content}"


def _is_installed() -> bool:
    try:
        importlib.metadata.distribution("watchdog-hook")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True

"""A prepared database once a session; a false API and schedulers for each test."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.e2e.airflow_home import HOOK, AirflowHome, make_template
from tests.e2e.database import OnPostgres
from tests.e2e.in_process import Bench, Started
from tests.e2e.scheduler import COMMAND, Scheduler
from tests.fakes.kube_api import KubeApi

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.e2e.database import Database


def pytest_configure(config: pytest.Config) -> None:
    """Say what our markers mean."""
    config.addinivalue_line("markers", "e2e: starts a real scheduler; half a minute and more")
    config.addinivalue_line("markers", "long: minutes of silence; only with `-m long`")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each test the time a scheduler takes, and leave the long ones to who asks for them."""
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.e2e)
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(600))
    if "long" not in config.option.markexpr:
        left_out = [item for item in ours if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


class Start(Protocol):
    """
    Start a scheduler, or another command.

    With `home`, one more in the home of another; with `database`, beside another.
    """

    def __call__(
        self,
        settings: Mapping[str, object] | None = None,
        *,
        local_settings: str = HOOK,
        home: AirflowHome | None = None,
        database: Database | None = None,
        command: tuple[str, ...] = COMMAND,
    ) -> Scheduler: ...


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a prepared database. E2E_TEMPLATES names a folder that keeps it between sessions."""
    return make_template(templates(tmp_path_factory))


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnPostgres]:
    """Return a prepared PostgreSQL, for more than one scheduler."""
    database = OnPostgres(make_template(templates(tmp_path_factory), on_postgres=True))
    yield database
    database.close()


def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the prepared databases."""
    kept = os.environ.get("E2E_TEMPLATES")
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    return Path(kept) if kept else shared / "templates"


@pytest.fixture
def api() -> Iterator[KubeApi]:
    """Return a Kubernetes API that works, until it is told not to."""
    with KubeApi() as api:
        yield api


@pytest.fixture
def start(api: KubeApi, template: Path, request: pytest.FixtureRequest) -> Iterator[Start]:
    """Return a function that starts schedulers. They end with the test, and so do their children."""
    # pytest's own folders are too deep for the path of a Unix socket.
    root = Path(tempfile.mkdtemp(prefix="e2e-"))
    root.chmod(0o755)
    schedulers: list[Scheduler] = []
    homes: list[AirflowHome] = []

    def start_one(
        settings: Mapping[str, object] | None = None,
        *,
        local_settings: str = HOOK,
        home: AirflowHome | None = None,
        database: Database | None = None,
        command: tuple[str, ...] = COMMAND,
    ) -> Scheduler:
        if home is None:
            options = {"kubernetes_executor.config_file": api.kubeconfig, **(settings or {})}
            folder = root / f"home-{len(homes)}"
            home = AirflowHome(
                folder,
                options,
                template=template,
                local_settings=local_settings,
                database=database,
            )
            homes.append(home)
        schedulers.append(Scheduler(home, command))
        return schedulers[-1]

    yield start_one
    api.clear()
    for scheduler in schedulers:
        scheduler.close()
        request.node.add_report_section("teardown", "scheduler", scheduler.tail(20000))
    for home in homes:
        home.close()
    if "E2E_KEEP" not in os.environ:
        shutil.rmtree(root, ignore_errors=True)


# --- an executor in this very process: see in_process.py ------------------------------------------


@pytest.fixture(scope="module")
def bench_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have Airflow, once imported, keep its files in a folder of ours."""
    folder = tmp_path_factory.mktemp("airflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(folder))
        patch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
        patch.setattr(tempfile, "tempdir", str(folder))
        yield


@pytest.fixture
def start_bench(
    bench_home: None, api: KubeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Started]:
    """Return a function that starts an executor with these settings. It ends with the test."""
    benches: list[Bench] = []

    def start_one(settings: dict[str, object] | None = None) -> Bench:
        benches.append(Bench(api, tmp_path, monkeypatch, settings or {}))
        return benches[-1]

    yield start_one
    for bench in benches:
        bench.close()


@pytest.fixture
def bench(start_bench: Started) -> Bench:
    """Return a started executor with the settings of most tests."""
    return start_bench()

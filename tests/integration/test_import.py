"""Every Airflow process imports the package and calls install: it has to cost nothing, and never to raise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parents[2]


def run(program: str, *, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": str(HERE)},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def answer(program: str, *, cwd: Path | None = None) -> Any:
    done = run(program, cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_importing_the_package_imports_nothing_but_itself():
    new = answer("""
        import sys, json
        before = set(sys.modules)
        import watchdog_hook
        print(json.dumps(sorted(set(sys.modules) - before)))
    """)

    assert new == ["watchdog_hook"]


def test_install_imports_nothing_but_our_own_modules_and_starts_no_thread():
    new, threads = answer("""
        import os, sys, json
        before = set(sys.modules)
        import watchdog_hook
        watchdog_hook.install()
        new = sorted(set(sys.modules) - before)
        import threading
        tasks = "/proc/self/task"
        print(json.dumps([new, len(os.listdir(tasks)) if os.path.isdir(tasks) else threading.active_count()]))
    """)

    assert [name for name in new if name != "__future__"] == [
        "watchdog_hook",
        "watchdog_hook.integrations",
        "watchdog_hook.integrations.airflow",
    ]
    assert threads == 1


def test_install_twice_leaves_one_hook():
    assert (
        answer("""
        import sys, json
        before = len(sys.meta_path)
        import watchdog_hook
        for _ in range(3):
            watchdog_hook.install()
        print(json.dumps(len(sys.meta_path) - before))
    """)
        == 1
    )


def test_the_public_names_are_found_and_the_others_are_not():
    assert answer("""
        import json
        import watchdog_hook
        from watchdog_hook import Config, StuckCallTimeout, Watchdog, install
        try:
            watchdog_hook.nothing
        except AttributeError as error:
            said = str(error)
        print(json.dumps([set(watchdog_hook.__all__) <= set(dir(watchdog_hook)), said]))
    """) == [True, "module 'watchdog_hook' has no attribute 'nothing'"]


@pytest.fixture
def scheduler(tmp_path: Path) -> Path:
    """A package with the name and the shape of Airflow's scheduler module."""
    package = tmp_path / "airflow" / "jobs"
    package.mkdir(parents=True)
    (tmp_path / "airflow" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "scheduler_job_runner.py").write_text(
        textwrap.dedent("""
        class SchedulerJobRunner:
            def _execute(self):
                return "scheduled"
        """)
    )
    return tmp_path


def test_the_scheduler_is_wrapped_when_its_module_comes(scheduler):
    assert answer(
        """
        import sys, json
        sys.path.insert(0, ".")
        import watchdog_hook
        watchdog_hook.install()
        from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
        print(json.dumps(hasattr(SchedulerJobRunner._execute, "__wrapped__")))
        """,
        cwd=scheduler,
    )


def test_the_scheduler_is_wrapped_once_when_its_module_was_there_before(scheduler):
    assert answer(
        """
        import sys, json
        sys.path.insert(0, ".")
        from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
        import watchdog_hook
        original = SchedulerJobRunner._execute
        watchdog_hook.install()
        watchdog_hook.install()
        print(json.dumps(SchedulerJobRunner._execute.__wrapped__ is original))
        """,
        cwd=scheduler,
    )


OTHERS = {
    "airflow.jobs.dag_processor_job_runner": "DagProcessorJobRunner._execute",
    "airflow.jobs.triggerer_job_runner": "TriggererJobRunner._execute",
    "airflow.dag_processing.manager": "DagFileProcessorManager.start",
}


@pytest.fixture
def others(scheduler: Path) -> Path:
    """The other components beside it, by the same shape."""
    for module, door in OTHERS.items():
        name, method = door.split(".")
        path = scheduler.joinpath(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(
            f"class {name}:\n    processor = None\n    _direct_scheduler_conn = 1\n"
            f"    def {method}(self):\n        return 'done'\n"
        )
    return scheduler


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("module", OTHERS)
def test_nobody_else_is_armed_unasked_and_nothing_is_loaded_for_it(others, module, before):
    name, method = OTHERS[module].split(".")
    wrapped, done, loaded, threads = answer(
        f"""
        import sys, json, threading
        sys.path.insert(0, ".")
        if {before}:
            import {module}
        import watchdog_hook
        watchdog_hook.install()
        watchdog_hook.install()
        from {module} import {name}
        method = {name}.{method}
        print(json.dumps([
            hasattr(method, "__wrapped__") and not hasattr(method.__wrapped__, "__wrapped__"),
            {name}().{method}(),
            "watchdog_hook.watchdog" in sys.modules,
            threading.active_count(),
        ]))
        """,
        cwd=others,
    )

    assert (wrapped, done, loaded, threads) == (True, "done", False, 1)


@pytest.mark.parametrize("module", OTHERS)
def test_a_component_that_cannot_be_armed_runs_all_the_same(others, module):
    name, method = OTHERS[module].split(".")
    (others / "airflow" / "configuration.py").write_text(
        textwrap.dedent("""
        class conf:
            def get(section, option, **_):
                if option == "components":
                    return "dag_processor, triggerer"
                raise KeyError(option)

            def options(section):
                return ["components"]

            def defaults():
                return {}
        """)
    )
    done = run(
        f"""
        import sys
        sys.path.insert(0, ".")
        import watchdog_hook
        watchdog_hook.install()
        from {module} import {name}
        print({name}().{method}())
        """,
        cwd=others,
    )

    assert done.stdout == "done\n"  # this Airflow has no job and no Stats
    assert "event=part_off" in done.stderr


def test_a_manager_without_a_door_is_left_alone(others):
    path = others / "airflow" / "dag_processing" / "manager.py"
    path.write_text(path.read_text().replace("def start", "def run"))

    assert (
        answer(
            """
        import sys, json
        sys.path.insert(0, ".")
        import watchdog_hook
        watchdog_hook.install()
        from airflow.dag_processing.manager import DagFileProcessorManager
        print(json.dumps(DagFileProcessorManager().run()))
        """,
            cwd=others,
        )
        == "done"
    )


def test_a_scheduler_that_cannot_be_armed_runs_all_the_same(scheduler):
    done = run(
        """
        import sys
        sys.path.insert(0, ".")
        import watchdog_hook
        watchdog_hook.install()
        from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
        print(SchedulerJobRunner()._execute())
        """,
        cwd=scheduler,
    )

    assert done.stdout == "scheduled\n"  # this Airflow has no configuration, no Stats, no job
    assert "event=part_off" in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        "sys.modules['watchdog_hook.integrations'] = None",
        "sys.modules['watchdog_hook.integrations.airflow'] = None",
        "sys.meta_path = None",
        "sys.meta_path = ()",
        "sys.modules['airflow.jobs.scheduler_job_runner'] = object()",
        "sys.modules['airflow.jobs.scheduler_job_runner'] = type(sys)('without a runner')",
        "os.close(2)",
    ],
)
def test_install_never_raises_whatever_is_wrong(wrong):
    done = run(
        f"""
        import os, sys, logging
        {wrong}
        import watchdog_hook
        watchdog_hook.install()
        print("goes on")
    """
        if "meta_path" not in wrong
        else f"""
        import os, sys, logging, traceback
        import watchdog_hook, watchdog_hook.integrations.airflow
        {wrong}
        watchdog_hook.install()
        print("goes on")
    """
    )

    assert done.stdout == "goes on\n", done.stderr
    assert done.returncode == 0


def test_install_outside_the_main_thread_does_no_harm():
    assert (
        answer("""
        import json, threading
        import watchdog_hook
        thread = threading.Thread(target=watchdog_hook.install)
        thread.start()
        thread.join()
        print(json.dumps("fine"))
    """)
        == "fine"
    )


def test_a_module_that_is_not_the_schedulers_is_found_as_before(scheduler):
    assert (
        answer(
            """
        import sys, json
        sys.path.insert(0, ".")
        import watchdog_hook
        watchdog_hook.install()
        import airflow.jobs, colorsys
        try:
            import airflow.jobs.no_such_module
        except ModuleNotFoundError as error:
            print(json.dumps(error.name))
        """,
            cwd=scheduler,
        )
        == "airflow.jobs.no_such_module"
    )

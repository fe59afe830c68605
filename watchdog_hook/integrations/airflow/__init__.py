"""
The door to Airflow. `install` is all that runs in every Airflow process; the rest waits for who is watched.

Entering `SchedulerJobRunner._execute` is the one moment that is certain to be the scheduler: after
daemonisation, in the main thread, with logging and configuration loaded, in every version from 2.7 to 3.3. The
DAG processor and the triggerer have such a moment each, too.
"""

import sys

TYPE_CHECKING = False  # as typing has it, which takes time to import
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

# Module of Airflow's: its class and method around which we arm, and the module and function here that do it.
DOORS = {
    "airflow.jobs.scheduler_job_runner": ("SchedulerJobRunner", "_execute", "scheduler", "arm"),
    "airflow.jobs.dag_processor_job_runner": (
        "DagProcessorJobRunner",
        "_execute",
        "dag_processor",
        "arm",
    ),
    # In 2.x, where it may be a child of the scheduler; later versions have no such method.
    "airflow.dag_processing.manager": (
        "DagFileProcessorManager",
        "start",
        "dag_processor",
        "arm_child",
    ),
    "airflow.jobs.triggerer_job_runner": ("TriggererJobRunner", "_execute", "triggerer", "arm"),
}
_MARK = "_watchdog_hook_wrapped"


class _AfterImport:
    """A finder that finds nothing itself: it has `wrap` called once a module with a door has been imported."""

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        """Return the spec that the other finders have for one of our modules; None for any other."""
        if name not in DOORS:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = None if finder is self or find is None else find(name, path, target)
            if spec is not None:
                try:
                    _follow(spec.loader, name)
                except Exception:  # noqa: BLE001 - a loader that does not let us: the module has to import
                    _say_off("import")
                return spec
        return None


def _follow(loader: "Any", name: str) -> None:
    execute = loader.exec_module

    def exec_module(module: "ModuleType") -> None:
        execute(module)
        wrap(module, name)

    loader.exec_module = exec_module


def install() -> None:
    """Leave a hook for the modules with a door, and wrap those that are there already. Idempotent."""
    for name in DOORS:
        module = sys.modules.get(name)
        if module is not None:
            wrap(module, name)
    # By its name: where this module was imported twice, so was the class.
    if not any(type(finder).__name__ == _AfterImport.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


def wrap(module: "Any", name: str) -> None:
    """Arm around the method that is this module's door. Never raises: the module has to import."""
    try:
        owner, method, here, function = DOORS[name]
        runner = getattr(module, owner)
        if function == "arm_child" and not hasattr(runner, method):
            return
        original: Any = getattr(runner, method)
        if getattr(original, _MARK, False):
            return
        import functools

        @functools.wraps(original)
        def entered(self: "Any", *args: "Any", **kwargs: "Any") -> "Any":
            armed = _safely(function, self, here)
            try:
                return original(self, *args, **kwargs)
            finally:
                if armed is not None:
                    _safely("disarm", armed, "arming")

        setattr(entered, _MARK, True)
        setattr(runner, method, entered)
    except Exception:  # noqa: BLE001 - whatever is wrong, Airflow runs
        _say_off("wrap")


def _safely(function: str, argument: "Any", here: str) -> "Any":
    try:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{here}"), function)(argument)
    except Exception:  # noqa: BLE001 - whatever is wrong, Airflow runs
        _say_off(function)
        return None


def _say_off(part: str) -> None:
    import logging

    logging.getLogger("watchdog_hook").error(
        'watchdog_hook: event=part_off part=%s outcome="not armed; Airflow is not affected"',
        part,
        exc_info=True,
    )

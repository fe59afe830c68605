"""
The door to Airflow. `install` is all that runs in every Airflow process; the rest waits for the scheduler.

Entering `SchedulerJobRunner._execute` is the one moment that is certain to be the scheduler: after
daemonisation, in the main thread, with logging and configuration loaded, in every version from 2.7 to 3.3.
"""

import sys

TYPE_CHECKING = False  # as typing has it, which takes time to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

SCHEDULER = "airflow.jobs.scheduler_job_runner"
_MARK = "_watchdog_hook_wrapped"


class _AfterImport:
    """A finder that finds nothing itself: it has `then` called once a module has been imported."""

    def __init__(self, name: str, then: "Callable[[ModuleType], None]") -> None:
        self.name = name
        self._then = then

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        """Return the spec that the other finders have for our module; None for any other."""
        if name != self.name:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = None if finder is self or find is None else find(name, path, target)
            if spec is not None:
                try:
                    self._follow(spec.loader)
                except Exception:  # noqa: BLE001 - a loader that does not let us: the module has to import
                    _say_off("import")
                return spec
        return None

    def _follow(self, loader: "Any") -> None:
        execute = loader.exec_module

        def exec_module(module: "ModuleType") -> None:
            execute(module)
            self._then(module)

        loader.exec_module = exec_module


def install() -> None:
    """Leave a hook for the scheduler's module, or wrap it if it is there already. Idempotent."""
    module = sys.modules.get(SCHEDULER)
    if module is not None:
        wrap(module)
    elif not any(getattr(finder, "name", None) == SCHEDULER for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport(SCHEDULER, wrap))


def wrap(module: "Any") -> None:
    """Arm around `SchedulerJobRunner._execute`. Never raises: the module has to import."""
    try:
        runner = module.SchedulerJobRunner
        original = runner._execute
        if getattr(original, _MARK, False):
            return
        import functools

        @functools.wraps(original)
        def _execute(self: "Any", *args: "Any", **kwargs: "Any") -> "Any":
            armed = _safely("arm", self)
            try:
                return original(self, *args, **kwargs)
            finally:
                if armed is not None:
                    _safely("disarm", armed)

        setattr(_execute, _MARK, True)
        runner._execute = _execute
    except Exception:  # noqa: BLE001 - whatever is wrong, Airflow runs
        _say_off("wrap")


def _safely(name: str, argument: "Any") -> "Any":
    try:
        from watchdog_hook.integrations.airflow import scheduler

        return getattr(scheduler, name)(argument)
    except Exception:  # noqa: BLE001 - whatever is wrong, Airflow runs
        _say_off(name)
        return None


def _say_off(part: str) -> None:
    import logging

    logging.getLogger("watchdog_hook").error(
        'watchdog_hook: event=part_off part=%s outcome="not armed; Airflow is not affected"',
        part,
        exc_info=True,
    )

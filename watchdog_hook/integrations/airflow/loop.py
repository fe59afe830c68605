"""The scheduler's loop: where it beats, which phase it is in, and which of its actions can be done again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from watchdog_hook.core.text import clean
from watchdog_hook.leaving import signal_name

if TYPE_CHECKING:
    from watchdog_hook.integrations.airflow.fence import Fence
    from watchdog_hook.integrations.kubernetes import ApiCalls
    from watchdog_hook.integrations.patch import Patches
    from watchdog_hook.watchdog import Watchdog

MESSAGE = 200  # characters of an exception's text
BEAT = "_do_scheduling"  # once per iteration, in every version from 2.7 to 3.3

# Actions of the loop that can be done again later, and what they return when an API call in them got stuck.
# Wrapped on the class, inside the timer's action: an exception that leaves an action loses its timer for good.
BOUNDARIES = {
    "adopt_or_reset_orphaned_tasks": 0,
    "_handle_tasks_stuck_in_queued": None,
    "_fail_tasks_stuck_in_queued": None,  # its name in 2.7 to 2.9
}

# Further timers, for the phase's name alone.
TIMERS = (
    "check_trigger_timeouts",
    "_find_and_purge_zombies",
    "_find_zombies",
    "_find_and_purge_task_instances_without_heartbeats",
    "_emit_pool_metrics",
    "_update_dag_run_state_for_paused_dags",
    "_update_asset_orphanage",
    "_orphan_unreferenced_datasets",
    "_mark_backfills_complete",
    "_remove_unreferenced_triggers",
    "_process_executor_events",
)


class Loop:
    """Puts beats, phases and boundaries around the methods of the runner and its executors."""

    def __init__(self, dog: Watchdog, calls: ApiCalls | None) -> None:
        self._dog = dog
        self._calls = calls
        self.before_heartbeat: Callable[[Any], None] | None = None
        self.fence: Fence | None = None

    def patch(self, patches: Patches, runner: Any, executors: list[Any]) -> bool:
        """Wrap what is there; False when this Airflow has no place to beat."""
        owner = type(runner)
        if not patches.wrap(owner, BEAT, self._beat):
            return False
        for name, default in BOUNDARIES.items():
            patches.wrap(owner, name, self._boundary(f"timer {name.strip('_')}", default))
        for name in TIMERS:
            patches.wrap(owner, name, self._phase(name.strip("_")))
        # It becomes the handler of SIGTERM and SIGINT later on, in `_execute`.
        patches.wrap(owner, "_exit_gracefully", self._told_to_end)
        for executor in executors:
            for kind in dict.fromkeys((type(executor), *_parts(executor))):
                # Every override on the way: those of hybrid executors call their parts' own.
                for base in kind.__mro__:
                    if "heartbeat" in vars(base):
                        patches.wrap(base, "heartbeat", self._heartbeat)
                    if "clear_not_launched_queued_tasks" in vars(base):
                        # A timer of the executor's own, up to provider 10.1.
                        patches.wrap(
                            base,
                            "clear_not_launched_queued_tasks",
                            self._boundary("clear_not_launched_queued_tasks", None),
                        )
                    for name in ("start", "end"):
                        if name in vars(base):
                            patches.wrap(base, name, self._executor_phase(name))
        return True

    def _beat(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        self._dog.turn("loop")
        self._look_at_fence()
        with self._dog.phase("scheduling"):
            return wrapped(*args, **kwargs)

    def _heartbeat(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        with self._dog.phase(f"executor.heartbeat ({type(instance).__name__})"):
            self._look_at_fence()
            if self._calls is None:
                return wrapped(*args, **kwargs)

            def heartbeat(*args: Any, **kwargs: Any) -> Any:
                if self.before_heartbeat is not None:
                    self.before_heartbeat(instance)
                return wrapped(*args, **kwargs)

            return self._calls.boundary("executor.heartbeat", None, heartbeat, args, kwargs)

    def _boundary(self, name: str, default: Any) -> Any:
        def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            with self._dog.phase(name):
                self._look_at_fence()  # our own adoption would take an old heartbeat of ours for another's
                if self._calls is None:
                    return wrapped(*args, **kwargs)
                if "stuck_in_queued" in name and self._calls.skips(name):
                    return (
                        default  # it begins by forgetting the task, and only then asks for its pod
                    )
                return self._calls.boundary(name, default, wrapped, args, kwargs)

        return wrapper

    def _look_at_fence(self) -> None:
        if self.fence is not None:
            self._dog.fail.run("fence", self.fence.look)

    def _phase(self, name: str) -> Any:
        def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            with self._dog.phase(name):
                return wrapped(*args, **kwargs)

        return wrapper

    def _told_to_end(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        # In a signal handler: a store and nothing else. Airflow's own handler logs, and may get stuck in that.
        self._dog.tell(args[0] if args else 0)
        return wrapped(*args, **kwargs)

    def _executor_phase(self, name: str) -> Any:
        def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            if name == "end":
                self._dog.fail.run("ended by", say_over, self._dog)
            with self._dog.phase(f"executor.{name} ({type(instance).__name__})"):
                return wrapped(*args, **kwargs)

        return wrapper


def say_over(dog: Watchdog, phase: str = "shutdown") -> None:
    """
    Say that the loop is over, and by which exception: the one that is being handled where this is called.

    Of its text only the first line: SQLAlchemy's have the statement and its values in the others.
    """
    error, told = sys.exc_info()[1], dog.told
    if error is None:
        words = None
    elif told is not None and isinstance(error, SystemExit):
        words = f"{signal_name(told[0])}: the scheduler was told to end"
    else:
        text = clean(next(iter(_text_of(error).splitlines()), ""), MESSAGE)
        words = f"{type(error).__qualname__}: {text}" if text else type(error).__qualname__
    dog.loop_is_over(words, phase)


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - somebody else's __str__
        return ""


def executors_of(runner: Any) -> list[Any]:
    """Return the executors of a runner: its own in 3.3, the job's from 2.10 to 3.1, the job's only one before."""
    for holder in (runner, getattr(runner, "job", None)):
        found = getattr(holder, "executors", None)
        if found:
            return list(found)
    one = getattr(getattr(runner, "job", None), "executor", None)
    return [] if one is None else [one]


def _parts(executor: Any) -> list[type]:
    """Return the classes of the executors inside a hybrid one."""
    names = ("kubernetes_executor", "local_executor", "celery_executor")
    return [type(getattr(executor, name)) for name in names if hasattr(executor, name)]

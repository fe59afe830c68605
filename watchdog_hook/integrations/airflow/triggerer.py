"""
The triggerer: its main loop, which talks to the database, and the asyncio loop in which all triggers run.

The latter is in a thread of the same process in Airflow 2, and in a forked child in Airflow 3. A trigger that
blocks stops all others; so that loop has a watchdog of its own, started by the thread in which it runs.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from watchdog_hook.failopen import FailOpen
from watchdog_hook.integrations.airflow import arming

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from watchdog_hook.config import Config
    from watchdog_hook.integrations.airflow.arming import Armed
    from watchdog_hook.integrations.patch import Patches
    from watchdog_hook.watchdog import Watchdog

COMPONENT = "triggerer"
BEAT = "load_triggers"  # once per turn of the main loop, in every version from 2.7 to 3.3
PHASES = (
    "_service_subprocess",
    "handle_events",
    "handle_failed_triggers",
    "clean_unused",
    "heartbeat",
    "emit_metrics",
)
LOOPS = ("run", "_run_trigger_loop")  # what comes after them waits for the triggers to end

# Called by the asyncio loop about once a second, in every version from 2.7 to 3.3.
LOOP_BEAT = "create_triggers"
MORE_BEATS = ("cancel_triggers", "cleanup_finished_triggers", "sync_state_to_supervisor")


def arm(runner: Any) -> Armed | None:
    """Watch both loops of `airflow triggerer`. None where that is not wanted."""
    config = arming.config_for(COMPONENT)
    if config is None:
        return None
    from watchdog_hook.integrations.airflow.host import AirflowHost
    from watchdog_hook.integrations.patch import Patches

    host = AirflowHost(runner, [], COMPONENT)
    module = sys.modules["airflow.jobs.triggerer_job_runner"]
    # In Airflow 3 the main loop is that of a supervisor, from another class.
    main = getattr(module, "TriggerRunnerSupervisor", type(runner))

    def patch(dog: Watchdog, patches: Patches) -> str | None:
        if not patches.wrap(main, BEAT, arming.turn(dog, BEAT)):
            return f"this Airflow's triggerer has no {BEAT}"
        for name in PHASES:
            patches.wrap(main, name, arming.phase(dog, name.strip("_")))
        for name in LOOPS:
            if name in vars(main):
                patches.wrap(main, name, _then_ending(dog))
        arming.forget_with(dog, patches, host)
        return None

    armed = arming.begin(config, host, patch, loop="main")
    if armed is not None:
        # With patches of its own: those of this process's watchdog are quiet in a child.
        armed.also = Patches(FailOpen())
        event_loop = EventLoop(config, host.job_id)
        armed.also.wrap(module.TriggerRunner, "run", event_loop.around)
    return armed


class EventLoop:
    """Starts the watchdog of the loop in which the triggers run, where that loop is started."""

    def __init__(self, config: Config, job: str | None) -> None:
        self._config = config
        self._job = job
        self._fail = FailOpen()

    def around(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        """Watch the thread that calls this, for as long as it runs the loop."""
        armed = self._fail.run("event loop", self._arm, type(instance))
        try:
            return wrapped(*args, **kwargs)
        finally:
            if armed is not None:
                self._fail.run("disarm", arming.disarm, armed)

    def _arm(self, runner: type) -> Armed | None:
        from watchdog_hook.integrations.airflow.host import AirflowHost

        host = AirflowHost(None, [], COMPONENT, self._job)

        def patch(dog: Watchdog, patches: Patches) -> str | None:
            if not patches.wrap(runner, LOOP_BEAT, _turn(dog)):
                return f"this Airflow's triggers have no {LOOP_BEAT}"
            for name in MORE_BEATS:
                patches.wrap(runner, name, _step(dog))
            patches.wrap(runner, "arun", _coroutine_then_ending(dog))
            arming.forget_with(dog, patches, host)
            return None

        return arming.begin(self._config, host, patch, loop="asyncio")


def _turn(dog: Watchdog) -> Any:
    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        # Its coroutine runs later, and between its steps any other: there are no phases in this loop.
        dog.turn("event loop")
        return wrapped(*args, **kwargs)

    return wrapper


def _step(dog: Watchdog) -> Any:
    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        dog.beat()
        return wrapped(*args, **kwargs)

    return wrapper


def _then_ending(dog: Watchdog) -> Any:
    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        try:
            return wrapped(*args, **kwargs)
        finally:
            _ends(dog)

    return wrapper


def _coroutine_then_ending(dog: Watchdog) -> Any:
    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        return _until_it_ends(dog, wrapped(*args, **kwargs))

    return wrapper


async def _until_it_ends(dog: Watchdog, arun: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await arun
    finally:
        _ends(dog)


def _ends(dog: Watchdog) -> None:
    dog.loop_is_over()  # now the triggers are told to end, and waited for

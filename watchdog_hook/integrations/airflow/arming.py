"""What arming has in common, whichever of Airflow's components is watched."""

from __future__ import annotations

import dataclasses
import gc
import logging
from typing import TYPE_CHECKING, Any

from watchdog_hook.core.text import log_line
from watchdog_hook.integrations.airflow import settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchdog_hook.config import Config
    from watchdog_hook.integrations.airflow.host import AirflowHost
    from watchdog_hook.integrations.patch import Patches, Wrapper
    from watchdog_hook.watchdog import Watchdog

log = logging.getLogger("watchdog_hook")

SCHEDULER = "scheduler"

# The watchdog of a loop that is over, which watches its process to the end: unless another loop begins there.
_last: Watchdog | None = None


@dataclasses.dataclass
class Armed:
    """What has to be taken off again."""

    dog: Watchdog
    patches: Patches
    also: Patches | None = None
    lives_for_it: bool = False  # the process: it ends with the scheduler


def config_for(component: str) -> Config | None:
    """
    Read the settings; None where this component is not to be watched.

    What is wrong with them is said by the scheduler, and by whoever is watched. Anything but the scheduler
    gets them without what would change its calls.
    """
    found = settings.read()
    config = found.config
    watched = config.enabled and component in config.components
    if watched or component == SCHEDULER:
        for problem in found.problems:
            log.error("%s", log_line("bad_setting", outcome=problem))
    if not watched:
        return None
    if component == SCHEDULER:
        return config
    return dataclasses.replace(config, interrupt=(), request_timeout=None)


def begin(
    config: Config,
    host: AirflowHost,
    patch: Callable[[Watchdog, Patches], str | None],
    *,
    lives_for_it: bool = False,
    **said: Any,
) -> Armed | None:
    """
    Put the wrappers on and start the watchdog, for the calling thread.

    `patch` does the former; what it returns is why there is nothing to be watched here, and is said.
    `lives_for_it`: the process ends where the loop does. `said` goes into the line that tells of the arming.
    """
    from watchdog_hook.integrations.patch import Patches
    from watchdog_hook.watchdog import Watchdog

    global _last
    last, _last = _last, None
    if last is not None:
        last.stop()
    component = host.component or SCHEDULER
    dog = Watchdog(config, host=host)
    patches = Patches(dog.fail)
    try:
        missing = patch(dog, patches)
        if missing:
            patches.remove()
            say_not_armed(component, missing, **_versions(host))
            return None
        dog.start()
    except BaseException:
        patches.remove()
        raise
    armed = Armed(dog, patches, lives_for_it=lives_for_it)
    dog.fail.run("pulse", dog.outside.name, host.component, said.get("loop"))
    try:
        log.info(
            "%s",
            log_line(
                "armed",
                component=component,
                job_id=host.job_id,
                dump_after=config.dump_after,
                **said,
                incident_dir=config.incident_dir,
                **_versions(host),
            ),
        )
        # What arming has allocated would bring the next full collection forward, into a child that is forked
        # soon; there it would touch, and so copy, all the memory that the child shares with this process.
        gc.collect()
    except BaseException:
        # Told to end already: Airflow leaves by an exception, and nobody will come to disarm.
        disarm(armed)
        raise
    return armed


def disarm(armed: Armed) -> None:
    """
    Put every original back, and stop the watchdog; called where the watched method returns or raises.

    Where the process has nothing left to do but to end, the watchdog's thread stays until the interpreter ends it.
    """
    from watchdog_hook.integrations.airflow.loop import say_over

    global _last
    dog = armed.dog
    dog.fail.run("ended by", say_over, dog, "exit")
    try:
        if armed.lives_for_it:
            _last = dog
            dog.let_go()
        else:
            dog.stop()
    finally:
        armed.patches.remove()
        if armed.also is not None:
            armed.also.remove()
    log.info("%s", log_line("disarmed", component=armed.dog.host.component))


def say_not_armed(component: str, why: str, **more: Any) -> None:
    """Say why something is not watched though it should be."""
    line = log_line(
        "part_off", part="beat", outcome=f"not armed: {why}", component=component, **more
    )
    log.error("%s", line)


def _versions(host: AirflowHost) -> dict[str, str]:
    known = host.versions()
    return {
        "airflow": known.get("apache-airflow", "?"),
        "provider": known.get("apache-airflow-providers-cncf-kubernetes", "none"),
    }


def turn(dog: Watchdog, name: str) -> Wrapper:
    """Return a wrapper around what comes first in each turn of a loop, a phase of this name."""

    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        dog.turn("loop")
        with dog.phase(name):
            return wrapped(*args, **kwargs)

    return wrapper


def phase(dog: Watchdog, name: str) -> Wrapper:
    """Return a wrapper that marks where the loop is."""

    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        with dog.phase(name):
            return wrapped(*args, **kwargs)

    return wrapper


def end(dog: Watchdog) -> Wrapper:
    """Return a wrapper around what comes after the loop."""

    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        dog.loop_is_over()
        with dog.phase("shutdown"):
            return wrapped(*args, **kwargs)

    return wrapper


def forget_with(dog: Watchdog, patches: Patches, host: AirflowHost) -> None:
    """Have a forked child call straight through every wrapper."""
    dog.on_forget(patches.quiet)
    dog.on_forget(host.forget)

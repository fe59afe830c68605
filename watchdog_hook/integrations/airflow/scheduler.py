"""Arms the watchdog where the scheduler's loop begins, and takes everything off again where it ends."""

from __future__ import annotations

import gc
import logging
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from watchdog_hook.core.report import log_line
from watchdog_hook.integrations.airflow import settings
from watchdog_hook.integrations.airflow.fence import fence_of
from watchdog_hook.integrations.airflow.host import AirflowHost
from watchdog_hook.integrations.airflow.kubernetes_executor import MODULE, KubernetesExecutors
from watchdog_hook.integrations.airflow.loop import Loop, executors_of, say_over
from watchdog_hook.integrations.airflow.watchers import Watchers
from watchdog_hook.integrations.kubernetes import ApiCalls
from watchdog_hook.integrations.patch import Patches
from watchdog_hook.watchdog import Watchdog

if TYPE_CHECKING:
    from types import FrameType

log = logging.getLogger("watchdog_hook")

_COMMAND = re.compile(r"/airflow/cli/commands/(?:\w+/)*scheduler_command\.py$")


@dataclass
class Armed:
    """What has to be taken off again."""

    dog: Watchdog
    patches: Patches
    lives_for_it: bool = False  # the process: it ends with the scheduler


def arm(runner: Any) -> Armed | None:
    """Read the settings, put the wrappers on, start the watchdog. None when it is switched off."""
    found = settings.read()
    for problem in found.problems:
        log.error("%s", log_line("bad_setting", outcome=problem))
    if not found.config.enabled:
        return None
    executors = executors_of(runner)
    host = AirflowHost(runner, executors)
    dog = Watchdog(found.config, host=host)
    patches = Patches(dog.fail)
    try:
        if not _patch(dog, patches, runner, executors, host):
            log.error(
                "%s",
                log_line(
                    "part_off",
                    part="beat",
                    outcome="not armed: this Airflow's scheduler has no _do_scheduling",
                    **_named(host),
                ),
            )
            patches.remove()
            return None
        dog.start()
    except BaseException:
        patches.remove()
        raise
    armed = Armed(dog, patches, _is_command())
    try:
        _say_armed(dog, executors, host)
        # What arming has allocated would bring the next full collection forward, into a child that is forked
        # soon; there it would touch, and so copy, all the memory that the child shares with this process.
        gc.collect()
    except BaseException:
        # Told to end already: Airflow leaves by an exception, and `_execute` will not come to disarm.
        disarm(armed)
        raise
    return armed


def _say_armed(dog: Watchdog, executors: list[Any], host: AirflowHost) -> None:
    config = dog.config
    log.info(
        "%s",
        log_line(
            "armed",
            dump_after=config.dump_after,
            interrupt=",".join(config.interrupt) or "off",
            interrupt_after=config.interrupt_after,
            executors=",".join(type(executor).__name__ for executor in executors),
            incident_dir=config.incident_dir,
            **_named(host),
        ),
    )


def disarm(armed: Armed) -> None:
    """
    Put every original back, and stop the watchdog; called where `_execute` returns or raises.

    Where the process has nothing left to do but to end, the watchdog's thread stays until the interpreter ends it.
    """
    dog = armed.dog
    dog.fail.run("ended by", say_over, dog, "exit")
    try:
        if armed.lives_for_it:
            dog.let_go()
        else:
            dog.stop()
    finally:
        armed.patches.remove()
    log.info("%s", log_line("disarmed"))


def _is_command() -> bool:
    """Tell whether Airflow's own `airflow scheduler` called us, and not a test or a program around it."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if _COMMAND.search(frame.f_code.co_filename):
            return True
        frame = frame.f_back
    return False


def _patch(
    dog: Watchdog, patches: Patches, runner: Any, executors: list[Any], host: AirflowHost
) -> bool:
    calls = None
    if MODULE in sys.modules or "kubernetes.client" in sys.modules:
        calls = dog.fail.run("kubernetes", _patch_calls, dog, patches)
    host.calls = calls
    may = dog.config.may_interrupt
    loop = Loop(dog, calls if may else None)
    if not loop.patch(patches, runner, executors):
        return False
    fence = loop.fence = dog.fail.run("fence", fence_of, dog, runner, executors)
    if fence is not None:
        patches.wrap(type(runner.job), "heartbeat", fence.heartbeat)
    if MODULE in sys.modules:
        host.watchers = Watchers(dog)
        dog.fail.run("watchers", host.watchers.patch, patches)
    if calls is not None and may and MODULE in sys.modules:
        kubernetes = host.kubernetes = KubernetesExecutors(dog, calls)
        kubernetes.fence = fence
        if fence is not None:
            fence.kubernetes = kubernetes
        dog.fail.run("recovery", kubernetes.patch, patches)

        def before_heartbeat(executor: Any) -> None:
            recovery = kubernetes.of(executor)
            if recovery is not None:
                recovery.before_heartbeat()

        loop.before_heartbeat = before_heartbeat

    def forget() -> None:
        patches.quiet()
        host.forget()
        if calls is not None:
            calls.active = False

    dog.on_forget(forget)
    return True


def _patch_calls(dog: Watchdog, patches: Patches) -> ApiCalls:
    from kubernetes.client.rest import RESTClientObject

    calls = ApiCalls(dog)
    patches.wrap(RESTClientObject, "request", calls.request)
    return calls


def _named(host: AirflowHost) -> dict[str, str]:
    known = host.versions()
    return {
        "airflow": known.get("apache-airflow", "?"),
        "provider": known.get("apache-airflow-providers-cncf-kubernetes", "none"),
    }

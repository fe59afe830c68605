"""Arms the watchdog where the scheduler's loop begins, and takes everything off again where it ends."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from watchdog_hook.integrations.airflow import arming
from watchdog_hook.integrations.airflow.arming import SCHEDULER, Armed
from watchdog_hook.integrations.airflow.fence import fence_of
from watchdog_hook.integrations.airflow.host import AirflowHost
from watchdog_hook.integrations.airflow.kubernetes_executor import MODULE, KubernetesExecutors
from watchdog_hook.integrations.airflow.loop import BEAT, Loop, executors_of
from watchdog_hook.integrations.airflow.watchers import Watchers
from watchdog_hook.integrations.kubernetes import ApiCalls
from watchdog_hook.integrations.patch import Patches
from watchdog_hook.watchdog import Watchdog

if TYPE_CHECKING:
    from types import FrameType

_COMMAND = re.compile(r"/airflow/cli/commands/(?:\w+/)*scheduler_command\.py$")


def arm(runner: Any) -> Armed | None:
    """Read the settings, put the wrappers on, start the watchdog. None when it is switched off."""
    config = arming.config_for(SCHEDULER)
    if config is None:
        return None
    executors = executors_of(runner)
    host = AirflowHost(runner, executors)

    def patch(dog: Watchdog, patches: Patches) -> str | None:
        patched = _patch(dog, patches, runner, executors, host)
        return None if patched else f"this Airflow's scheduler has no {BEAT}"

    return arming.begin(
        config,
        host,
        patch,
        lives_for_it=_is_command(),
        interrupt=",".join(config.interrupt) or "off",
        interrupt_after=config.interrupt_after,
        executors=",".join(type(executor).__name__ for executor in executors),
    )


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

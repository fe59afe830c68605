"""
The processes that watch pods for the KubernetesExecutor, followed from their start to their end.

Each leaves marks in a page that it shares with us (`watcher_marks`). One that is silent for too long is
reported, and ended where that is wanted: in every version the executor asks at each turn (`sync`, through
`_health_check_kube_watchers`) whether its watchers live, and starts a new one with a full list of the pods.
"""

from __future__ import annotations

import os
import threading
import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from watchdog_hook.actions import end_child
from watchdog_hook.core import watchers
from watchdog_hook.core.observed import Watcher
from watchdog_hook.core.watchers import CameBack, FellSilent, Look, Standing
from watchdog_hook.evidence import family
from watchdog_hook.integrations.airflow.watcher_marks import Marks, leave

if TYPE_CHECKING:
    from watchdog_hook.integrations.patch import Patches
    from watchdog_hook.watchdog import Watchdog

LOOK_EVERY = 2.0  # seconds; it costs a few reads of memory while all is well
_GONE = ("zombie", "dead")
_HELD = "tracing-stop"  # by a debugger: somebody looks at it
_ENDED = "ended"
ALL_NAMESPACES = "ALL_NAMESPACES"  # the provider's own word for a watcher of the whole cluster


@dataclass
class Kept:
    """What belongs to one watcher's process."""

    marks: Marks
    started: int | None = None  # as the kernel has it: with the pid it names one process for good
    done: str | None = None  # what came of ending it


class Watchers:
    """Those of every executor of this process."""

    def __init__(self, dog: Watchdog) -> None:
        self._dog = dog
        self._kind: type | None = None
        # The thread that starts one now, and its page.
        self._expected: tuple[int, Marks] | None = None
        self._kept: weakref.WeakKeyDictionary[Any, Kept] = weakref.WeakKeyDictionary()
        self._schedulers: tuple[weakref.ref[Any], ...] = ()
        self._standing: tuple[Standing, ...] = ()
        self._next_look = 0.0

    def patch(self, patches: Patches) -> None:
        """Wrap the one place where watchers are made, in every provider version."""
        from airflow.providers.cncf.kubernetes.executors import kubernetes_executor_utils as utils

        self._kind = utils.KubernetesJobWatcher
        patches.wrap(utils.AirflowKubernetesScheduler, "_make_kube_watcher", self._make, "watchers")

    def forget(self) -> None:
        """In a forked child: nothing of the parent's; where the child is to be a watcher, it leaves its marks."""
        expected, self._expected = self._expected, None
        self._schedulers = ()
        if expected is None or self._kind is None:
            return
        thread, marks = expected
        # Another thread of the parent may have forked at the same time: that one has another business.
        if thread == threading.get_ident():
            try:
                leave(marks, self._kind)
            except Exception:  # noqa: BLE001, S110 - the parent sees no marks, and judges nothing
                pass

    def _make(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        fail = self._dog.fail
        marks = fail.run("watchers", self._expect)
        try:
            process = wrapped(*args, **kwargs)
        finally:
            self._expected = None
        if marks is not None:
            fail.run("watchers", self._keep, instance, process, marks)
        return process

    def _expect(self) -> Marks:
        marks = Marks()
        self._expected = threading.get_ident(), marks
        return marks

    def _keep(self, scheduler: Any, process: Any, marks: Marks) -> None:
        stat = family.read_stat(_pid(process) or 0)
        self._kept[process] = Kept(marks, stat.started if stat else None)
        known = [ref for ref in self._schedulers if ref() is not None and ref() is not scheduler]
        self._schedulers = (*known, weakref.ref(scheduler))

    # --- for the watchdog's thread --------------------------------------------------------------

    def of(self, executor: Any) -> tuple[Watcher, ...]:
        """Return an executor's watchers."""
        scheduler = getattr(executor, "kube_scheduler", None)
        return tuple(
            self._watcher(scheduler, process, namespace)
            for namespace, process in _processes(scheduler).items()
        )

    def _watcher(self, scheduler: Any, process: Any, namespace: str) -> Watcher:
        dog, kept = self._dog, self._kept.get(process)
        executors = getattr(dog.host, "kubernetes", None)  # None while we only observe
        recovery = executors.of(scheduler) if executors else None
        event_at = recovery.events.get(namespace) if recovery else None
        event_s = None if event_at is None else dog.now - event_at
        watcher = Watcher(_pid(process), namespace, event_s)
        if kept is None:
            return watcher
        marks = kept.marks
        watcher = marks.added_to(watcher, dog.now, dog.paused_since(marks.sign_at))
        made = dict(recovery.creation.made) if recovery else {}
        asked_at, made_at = made.get(namespace, (0.0, 0.0))
        if namespace == ALL_NAMESPACES:
            asked_at, made_at = max(made.values(), default=(0.0, 0.0))
        if asked_at <= marks.heard_at:
            return watcher
        missed_s = dog.now - made_at - dog.paused_since(made_at)
        return replace(watcher, missed_s=max(0.0, missed_s))

    def tick(self, now: float) -> None:
        """Look at each watcher, every two seconds; not while the executors end, who end their watchers."""
        if now >= self._next_look and not self._dog.ending:
            self._next_look = now + LOOK_EVERY
            self._dog.fail.run("watchers", self._look)

    def _look(self) -> None:
        found = {look.key: (look, *held) for look, *held in self._looks()}
        looks = tuple(look for look, *_ in found.values())
        self._standing, events = watchers.judge(self._standing, looks)
        told = {standing.key for standing in self._standing if standing.told_s}
        for event in events:
            if isinstance(event, CameBack):
                self._say_back(event)
        new = {event.look.key for event in events if isinstance(event, FellSilent)}
        for key, (look, scheduler, process, kept) in found.items():
            if key not in told or look.gone:
                continue
            held = look.child is not None and look.child.state == _HELD
            ends = kept.done is None and not held and self._may_end()
            if ends:
                kept.done = self._end(look, scheduler, process, kept)
            if ends or key in new:
                self._say_silent(look, kept)

    def _looks(self) -> list[tuple[Look, Any, Any, Kept]]:
        found = []
        for scheduler in [ref() for ref in self._schedulers]:
            for namespace, process in _processes(scheduler).items():
                kept, pid = self._kept.get(process), _pid(process)
                if kept is None or pid is None or not kept.marks.sign_at:
                    continue
                mark = kept.marks.sign_at
                watcher = self._watcher(scheduler, process, namespace)
                child, gone = None, False
                if (watcher.silent_s or 0.0) >= watchers.LEAST:
                    child = family.one(pid)
                    gone = child is None or child.state in _GONE
                look = Look(f"{id(scheduler)} {namespace}", pid, mark, watcher, child, gone)
                found.append((look, scheduler, process, kept))
        return found

    def _may_end(self) -> bool:
        """Only where it is wanted, the loop turns, so that a new one is started, and has a server to watch."""
        dog = self._dog
        wanted = dog.config.restart_watchers and dog.config.may_interrupt
        return wanted and not dog.stalled and not dog.host.breaker_open()

    def _end(self, look: Look, scheduler: Any, process: Any, kept: Kept) -> str:
        def is_the_one() -> bool:
            stat, child = family.read_stat(look.process), family.one(look.process)
            return (
                _processes(scheduler).get(_namespace(scheduler, process)) is process
                and _pid(process) == look.process
                and stat is not None
                and stat.parent == os.getpid()
                and kept.started is not None
                and stat.started == kept.started
                and child is not None
                and child.state not in (*_GONE, _HELD)
                and kept.marks.sign_at == look.mark
            )

        return end_child.end(look.process, is_the_one)

    def _say_silent(self, look: Look, kept: Kept) -> None:
        config = self._dog.config
        if kept.done == _ENDED:
            action, outcome = "kill -9", "its executor starts a new one"
        elif kept.done is not None:
            action, outcome = "none", kept.done
        elif not config.may_interrupt:
            action, outcome = "none", "interrupt = off only observes"
        elif not config.restart_watchers:
            action = "none"
            outcome = (
                "no pod's end is noticed; kill -9 its pid and the executor starts a new one,"
                " as [watchdog_hook] restart_watchers = True would"
            )
        else:
            action = "kill -9 later"
            outcome = "waits until the loop turns, its API server answers and no debugger holds it"
        self._dog.say(
            "WARNING",
            "watcher_silent",
            silent_s=look.watcher.silent_s,
            action=action,
            outcome=outcome,
            **watchers.facts_of(look),
        )

    def _say_back(self, event: CameBack) -> None:
        look, other = event.look, event.look.process != event.before
        self._dog.say(
            "WARNING",
            "watcher_back",
            silent_s=event.silent_s,
            outcome="a new one was started" if other else "by itself",
            namespace=look.watcher.namespace,
            pid=look.process,
            before=event.before if other else None,
        )


def _processes(scheduler: Any) -> dict[Any, Any]:
    """Return an executor's watchers by namespace. A copy, made in one step: the loop may start one meanwhile."""
    return dict(getattr(scheduler, "kube_watchers", None) or {})


def _namespace(scheduler: Any, process: Any) -> Any:
    return next((name for name, held in _processes(scheduler).items() if held is process), None)


def _pid(process: Any) -> int | None:
    # Not `process.pid`, nor is_alive: those may raise once it is closed, or reap a child.
    pid = getattr(getattr(process, "_popen", None), "pid", None)
    return pid if isinstance(pid, int) else None

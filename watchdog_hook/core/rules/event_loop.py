"""The loop of asyncio: held by one task, or turning while what is watched waits in a task of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from watchdog_hook.core import tasks
from watchdog_hook.core.owner import AIRFLOW, LIBRARY, YOURS, is_own, owner
from watchdog_hook.core.rules.rule import WIDE, Rule
from watchdog_hook.core.signs import Case, is_in, passes
from watchdog_hook.core.text import frame_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watchdog_hook.core.model import Frame
    from watchdog_hook.core.observed import TaskGroup

_LOOP = "/asyncio/base_events.py"
_TURNS = passes(_LOOP, "_run_once")
# Airflow's own, between the loop and the code of a trigger.
_RUNNERS = ("/airflow/jobs/", "/airflow/triggers/base.py")
_TURN = re.compile(r"/asyncio/(?:events|base_events|runners)\.py$")
_BETWEEN = re.compile(
    r"/(?:asyncio|greenback|outcome)/|^<frozen |/(?:functools|contextlib|contextvars)\.py$"
)
_NAME = 100  # characters of a task's


def mine(case: Case) -> tuple[TaskGroup, ...]:
    """Return the tasks of the loop that the stalled thread runs."""
    return tuple(group for group in case.seen.tasks if group.thread == case.thread)


def running(case: Case) -> TaskGroup | None:
    """Return the task that has the stalled thread; None where its loop is between two of them."""
    return next((group for group in mine(case) if group.state == "running"), None)


def idles(case: Case) -> bool:
    """The loop waits for something to happen, as it does most of its life."""
    return (
        len(case.frames) > 1
        and "/selectors.py" in case.frames[0].file
        and is_in(case.frames[1], _LOOP, ("_run_once",))
    )


def blocked(case: Case) -> bool:
    """A task, or a callback, has the thread in which the loop would turn."""
    return running(case) is not None or (_TURNS(case) and not idles(case))


def _blocked(case: Case) -> str:
    task, frame = running(case), _holder(case.frames)
    who = f"task {task.names[0][:_NAME]}" if task is not None and task.names else "a callback"
    if task is None and not mine(case):
        who = "something in it"
    where = f" in {frame_text(frame)}" if frame is not None else ""
    leaf = "" if frame is not None and frame is case.frames[0] else f", which stands in {case.leaf}"
    others = tasks.count(mine(case)) - (1 if task is not None else 0)
    held = f"; held up: {others} {'tasks' if others > 1 else 'task'}" if others > 0 else ""
    return f"the event loop does not turn: {who} keeps it{where}{leaf}{held}"


def _holder(frames: Sequence[Frame]) -> Frame | None:
    """Return the outermost frame of what the loop called: the user's; else Airflow's; else a library's."""
    called = list(reversed(frames))
    starts = [
        n for n, frame in enumerate(called) if _runs_triggers(frame) or _TURN.search(frame.file)
    ]
    inner = called[starts[-1] + 1 :] if starts else called
    for kind in (YOURS, AIRFLOW, LIBRARY):
        for frame in inner:
            if owner(frame.file) == kind and not _BETWEEN.search(frame.file):
                return frame
    return called[-1] if called else None


def _runs_triggers(frame: Frame) -> bool:
    return any(part in frame.file for part in _RUNNERS)


def _waits(case: Case) -> str:
    group = _watched(case)
    if group is None:
        return f"its event loop turns and has nothing to do: {tasks.count(mine(case))} tasks wait"
    place = frame_text(group.frames[0])
    caller = next((frame for frame in group.frames if is_own(frame)), group.frames[0])
    called = "" if caller is group.frames[0] else f", called by {frame_text(caller)}"
    what = group.waits or "something"
    return (
        f"its event loop turns, and the task that is watched waits for a {what}, in {place}{called}"
    )


def _watched(case: Case) -> TaskGroup | None:
    """Return the task that is Airflow's runner of triggers, or the only one there is."""
    waiting = [group for group in mine(case) if group.state != "running" and group.frames]
    for group in waiting:
        if any("/airflow/jobs/" in frame.file and _is_arun(frame) for frame in group.frames):
            return group
    return waiting[0] if len(waiting) == 1 and waiting[0].count == 1 else None


def _is_arun(frame: Frame) -> bool:
    return frame.function.rpartition(".")[2] == "arun"


RULES = (
    Rule(
        "event-loop-blocked",
        blocked,
        _blocked,
        "What runs in an event loop may only await. In a trigger: asyncio.sleep instead of time.sleep, an"
        " asynchronous client or hook instead of the plain one, asyncio.to_thread (or asgiref's sync_to_async)"
        " around a call that blocks.",
        raise_helps=False,
        known=("apache/airflow#73521",),
    ),
    Rule(
        "event-loop-waits",
        idles,
        _waits,
        "Look at the other end of what it waits for. In Airflow 3 that is the triggerer's main process: what does"
        " the log say of it, and does its database answer?",
        raise_helps=False,
        confidence="medium",
        rank=WIDE,
    ),
)

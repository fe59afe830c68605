"""The tasks of an asyncio loop as lines for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchdog_hook.core.text import WIDTH, clean, frame_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watchdog_hook.core.observed import TaskGroup

_NAME = 100  # characters


def lines(groups: Sequence[TaskGroup], most: int | None = None) -> list[str]:
    """Return the tasks, those together that stand in one place; nothing where there are none."""
    if not groups:
        return []
    shown = groups if most is None else groups[:most]
    found = [f" Tasks of asyncio ({count(groups)}), those in one place together:"]
    for group in shown:
        found.append("  " + clean(f"{_times(group)}{_names(group)}: {_state(group)}", WIDTH))
        found += ["    " + frame_text(frame) for frame in group.frames]
    left_out = count(groups[len(shown) :])
    return [*found, *([f"  ... {left_out} more"] if left_out else [])]


def count(groups: Sequence[TaskGroup], *states: str) -> int:
    """Return how many tasks there are, in one of these states if any are given."""
    return sum(group.count for group in groups if not states or group.state in states)


def _times(group: TaskGroup) -> str:
    return f"{group.count} x " if group.count > 1 else ""


def _names(group: TaskGroup) -> str:
    names = ", ".join(clean(name, _NAME) for name in group.names) or "tasks"
    more = group.count - len(group.names)
    return f"{names} and {more} more" if group.names and more > 0 else names


def _state(group: TaskGroup) -> str:
    at = f" in {group.thread}" if group.thread else ""
    if group.state == "running":
        return f"running{at}: see the stack of that thread"
    if group.state == "ready":
        return f"ready to go on{at}, once its loop turns"
    if group.state == "waits":
        return f"waits for {group.waits or 'something'}{at}"
    return f"{group.state}{at}"

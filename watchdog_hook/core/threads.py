"""The stacks of threads in lines: the stalled one's, and the others', equal ones together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchdog_hook.core import samples
from watchdog_hook.core.text import WIDTH, clean, frame_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from watchdog_hook.core.model import Frame, ThreadStack

NAMES_SHOWN = 8  # of threads in one line


def stalled(threads: Sequence[ThreadStack], normal: samples.Normal = ()) -> list[str]:
    """Return the stack of the first thread, the stalled one; with `normal`, what is new in it is marked."""
    if not threads:
        return [" The stack of the stalled thread could not be read."]
    first = threads[0]
    return [
        f" Stack of {name(first)}, innermost frame first:",
        *_stack(first.frames, samples.is_new(first.frames, normal)),
    ]


def others(threads: Iterable[ThreadStack]) -> list[str]:
    """Return the stacks of these threads, each stack once; nothing for none."""
    folded: dict[tuple[Frame, ...], list[ThreadStack]] = {}
    for thread in threads:
        folded.setdefault(thread.frames, []).append(thread)
    if not folded:
        return []
    count = sum(len(same) for same in folded.values())
    lines = [f" Other threads ({count}), equal stacks together:"]
    for frames, same in folded.items():
        names = ", ".join(name(thread) for thread in same[:NAMES_SHOWN])
        more = f" and {len(same) - NAMES_SHOWN} more" if len(same) > NAMES_SHOWN else ""
        times = f"{len(same)} x " if len(same) > 1 else ""
        lines.append("  " + clean(f"{times}{names}{more}", WIDTH) + ":")
        lines += _stack(frames)
    return lines


def _stack(frames: Sequence[Frame], new: Sequence[bool] = ()) -> list[str]:
    marks = ["  + " if is_new else "    " for is_new in new] or ["    "] * len(frames)
    return [mark + frame_text(frame) for mark, frame in zip(marks, frames, strict=True)] or [
        "    (no Python frame)"
    ]


def name(thread: ThreadStack) -> str:
    """Return a thread's name, with its id in the kernel where that is known."""
    native = f", tid {thread.native_id}" if thread.native_id is not None else ""
    return clean(thread.name, 60) + native

"""The Kubernetes calls of a process in lines: those in flight, and the last ones before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchdog_hook.core.text import WIDTH, clean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watchdog_hook.core.model import CallRecord

SHOWN = 20  # calls that have ended, in one log record


def in_flight(calls: Sequence[CallRecord]) -> list[str]:
    """Return the calls that have not ended, or that there is none."""
    if not calls:
        return [" No call is in flight."]
    return [f" Calls in flight ({len(calls)}):", *(f"    {line(call)}" for call in calls)]


def recent(calls: Sequence[CallRecord], most: int | None) -> list[str]:
    """Return the last calls that have ended, `most` of them or all; nothing for none."""
    if not calls:
        return []
    shown = calls if most is None else calls[-most:]
    of = f" of the {len(calls)} before" if len(shown) < len(calls) else ""
    return [
        f" Last {len(shown)} calls{of}, newest last:",
        *(f"    {line(call)}" for call in shown),
    ]


def line(call: CallRecord) -> str:
    """Return a call with its peer, its times and its answer."""
    peer = f" to {call.peer}" if call.peer else ""
    if call.duration_s is None:
        state = f"for {call.started_ago_s:.1f} s" + (", guarded" if call.guarded else "")
    else:
        state = (
            f"{call.started_ago_s:.1f} s ago: {call.answer or '?'} after {call.duration_s:.2f} s"
        ) + ("" if call.bytes is None else f", {call.bytes} bytes")
    return clean(f"{call.call}{peer} {state} [{call.thread}]", WIDTH)

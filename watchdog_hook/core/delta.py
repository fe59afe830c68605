"""What has changed since the dump before, as text for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchdog_hook.core import calls, fitting, threads, verdict
from watchdog_hook.core.fitting import RECORD_LIMIT
from watchdog_hook.core.text import SENTENCE, WIDTH, clean, frame_text

if TYPE_CHECKING:
    from watchdog_hook.core.model import CallRecord, Incident, Snapshot


def render_delta(
    incident: Incident,
    before: Snapshot,
    now: Snapshot,
    *,
    since_s: float | None = None,
    limit: int | None = RECORD_LIMIT,
    files: str | None = None,
    plan: str | None = None,
) -> str:
    """
    Return what changed since the dump before: one record, for the dumps after the first.

    With `since_s`, the seconds since then, calls that began or ended in between are told apart.
    """
    lines = [
        verdict.first_line(incident, "dump", repeated=True),
        *verdict.sentence(incident.finding.sentence),
        *_of_stack(before, now),
        *_of_threads(before, now),
        *_of_calls(now, since_s),
        *([f" Next: {clean(plan, SENTENCE)}"] if plan else []),
        *verdict.files(files),
    ]
    return "\n".join(fitting.cut(lines, limit))


def _of_stack(before: Snapshot, now: Snapshot) -> list[str]:
    if not now.threads:
        return threads.stalled(())
    old = before.threads[0].frames if before.threads else ()
    if old == now.threads[0].frames:
        leaf = f", innermost {frame_text(old[0])}" if old else ""
        return [f" The stack of {threads.name(now.threads[0])} is the same as before{leaf}."]
    return [" The stack has changed.", *threads.stalled(now.threads)]


def _of_threads(before: Snapshot, now: Snapshot) -> list[str]:
    old, new = ({(t.ident, t.name) for t in s.threads} for s in (before, now))
    lines = []
    for what, names in (("begun", new - old), ("ended", old - new)):
        if names:
            shown = ", ".join(sorted(name for _, name in names)[: threads.NAMES_SHOWN])
            lines.append(" " + clean(f"Threads {what} since ({len(names)}): {shown}", WIDTH))
    return lines


def _of_calls(now: Snapshot, since_s: float | None) -> list[str]:
    lines = []
    for call in now.in_flight:
        state = (
            "In flight"
            if since_s is None
            else "Begun since"
            if call.started_ago_s < since_s
            else "Still in flight"
        )
        lines.append(f" {state}: {calls.line(call)}")
    ended = [call for call in now.recent if since_s is not None and _ended_within(call, since_s)]
    if len(ended) > calls.SHOWN:
        lines.append(f" Ended since: {len(ended) - calls.SHOWN} calls before these")
    lines += [f" Ended since: {calls.line(call)}" for call in ended[-calls.SHOWN :]]
    return lines or [" No call has begun or ended since."]


def _ended_within(call: CallRecord, seconds: float) -> bool:
    return call.duration_s is not None and call.started_ago_s - call.duration_s < seconds

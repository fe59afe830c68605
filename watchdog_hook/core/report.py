"""
An incident as text, for a person at three in the morning: since when, where in the loop, waiting for what and
whom, why we think so, what we do about it, what he can change. Pure formatting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchdog_hook.core import around, samples, tasks, turns
from watchdog_hook.core.archive import fingerprint, from_json, json_chunks, to_json
from watchdog_hook.core.text import SENTENCE, WIDTH, clean, frame_text, log_line, utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from watchdog_hook.core.model import CallRecord, Frame, Incident, Snapshot, ThreadStack

__all__ = [
    "fingerprint",
    "from_json",
    "json_chunks",
    "log_line",
    "render",
    "render_delta",
    "to_json",
]

RECORD_LIMIT = 64 * 1024  # bytes of one log record
_NAMES_SHOWN = 8
_BEGAN = {"no-progress": "Since", "no-stall": "Last beat"}
# Of a log record; dump.txt has all of them.
_ROWS_SHOWN = 40  # functions in the table of samples
_TURNS_SHOWN = 5
_CALLS_SHOWN = 20  # that have ended
_TASKS_SHOWN = 20  # groups of them


def render(
    incident: Incident,
    *,
    limit: int | None = RECORD_LIMIT,
    files: str | None = None,
    plan: str | None = None,
    event: str = "dump",
    asked: bool = False,
) -> str:
    """
    Return an incident as text: a log record of at most `limit` bytes, or everything when that is None.

    `files` is where the whole of it lies, `plan` what the watchdog will do next, `asked` says that somebody
    wanted it. What does not fit goes in this order: other threads, tasks, calls, turns, samples; the text
    says so. The stalled thread's stack stays.
    """
    first = first_line(incident, event, asked=asked or None)
    report = _Report(incident, files, plan, first, brief=limit is not None)
    lines = report.lines()
    if limit is None or _size(lines) <= limit:
        return "\n".join(lines)
    return "\n".join(report.fitting(limit))


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
        first_line(incident, "dump", repeated=True),
        *_sentence(incident.finding.sentence),
        *_delta_of_stack(before, now),
        *_delta_of_threads(before, now),
        *_delta_of_calls(now, since_s),
        *([f" Next: {clean(plan, SENTENCE)}"] if plan else []),
        *_files(files),
    ]
    return "\n".join(_cut_lines(lines, limit))


class _Report:
    """The parts of one report, so that the ones that matter least can be cut first."""

    def __init__(
        self, incident: Incident, files: str | None, plan: str | None, first: str, *, brief: bool
    ) -> None:
        snapshot, observed = incident.snapshot, incident.snapshot.observed
        self._files = _files(files)
        self._head = [first, *_diagnosis(incident, plan)]
        self._samples = samples.lines(snapshot.samples, _ROWS_SHOWN if brief else None)
        self._stack = [*_normally(snapshot), *_stalled(snapshot.threads, observed.normal)]
        self._threads = _others(snapshot.threads[1:])
        self._tasks = tasks.lines(observed.tasks, _TASKS_SHOWN if brief else None)
        calls = _CALLS_SHOWN if brief else None
        self._calls = [*_in_flight(snapshot.in_flight), *_recent(snapshot.recent, calls)]
        self._turns = turns.lines(observed.iterations, _TURNS_SHOWN if brief else None)
        self._tail = [
            *around.lines(snapshot.observed),
            *_unavailable(snapshot.unavailable),
            *deeds(incident),
            *self._files,
        ]

    def lines(self, cut: str | None = None) -> list[str]:
        said = [f" Cut to fit: {cut}; the files have all of it."] if cut else []
        return [
            *self._head,
            *said,
            *self._samples,
            *self._stack,
            *self._tasks,
            *self._threads,
            *self._calls,
            *self._turns,
            *self._tail,
        ]

    def fitting(self, limit: int) -> list[str]:
        cut: list[str] = []
        lines = self.lines()
        for name, part in (
            ("other threads", self._threads),
            ("tasks", self._tasks),
            ("calls", self._calls),
            ("turns", self._turns),
            ("samples", self._samples),
        ):
            if len(part) < 2:
                continue
            cut.append(name)
            _drop_end(part, _size(self.lines(", ".join(cut))) - limit)
            lines = self.lines(", ".join(cut))
            if _size(lines) <= limit:
                break
        # Still too long only with a stack of very long names: it keeps its innermost frames.
        return _cut_lines(lines, limit)


def _size(lines: Iterable[str]) -> int:
    return sum(len(line.encode("utf-8", "replace")) + 1 for line in lines)


def _drop_end(part: list[str], over: int) -> None:
    """Take lines off the end until `over` bytes are gone; the heading stays, a note says how many went."""
    before = len(part)
    over += len(_dropped(before)) + 1
    while over > 0 and len(part) > 1:
        over -= len(part.pop().encode("utf-8", "replace")) + 1
    if len(part) < before:
        part.append(_dropped(before - len(part)))


def _dropped(count: int) -> str:
    return f"    ... {count} more lines"


def _cut_lines(lines: Sequence[str], limit: int | None) -> list[str]:
    if limit is None or _size(lines) <= limit:
        return list(lines)
    note = " ... cut to fit; the files have all of it."
    room, kept = limit - len(note) - 1, []
    for line in lines:
        room -= len(line.encode("utf-8", "replace")) + 1
        if room < 0:
            break
        kept.append(line)
    return [*kept, note]


def first_line(incident: Incident, event: str, **more: object) -> str:
    """Return the line with which every record on an incident begins, in logfmt."""
    return log_line(
        event,
        incident=incident.id,
        silent_s=None if event == "no_progress" else incident.silence_s,
        phase=incident.phase,
        call=incident.call,
        peer=incident.peer,
        age_s=incident.age_s,
        cause=incident.finding.id,
        component=incident.component,
        **more,
    )


def _diagnosis(incident: Incident, plan: str | None) -> list[str]:
    # In the order of the questions asked at night: since when, where and for what, why we think so, what we do
    # about it, what can be changed.
    finding = incident.finding
    began = _BEGAN.get(finding.id, "Silent since")
    since = f"{began} {utc(incident.began)}; host {incident.host}, pid {incident.pid}"
    since += f", job {incident.job_id}" if incident.job_id else ""
    since += f"; {incident.waiting} task instances wait" if incident.waiting is not None else ""
    lines = [" " + clean(since, WIDTH) + "."]
    for found in (finding, *finding.also):
        lines += _sentence(found.sentence if found is finding else f"And: {found.sentence}")
    lines += [f" Sign: {clean(sign, SENTENCE)}" for sign in finding.signs]
    sure = f"Verdict: {finding.id}, {finding.confidence} confidence"
    sure += "".join(f"; {other.id}, {other.confidence}" for other in finding.also)
    known = dict.fromkeys(issue for found in (finding, *finding.also) for issue in found.known)
    lines.append(
        " " + clean(sure + (f". Known as {', '.join(known)}." if known else "."), SENTENCE)
    )
    if plan:
        lines.append(f" Next: {clean(plan, SENTENCE)}")
    for found in (finding, *finding.also):
        if found.remedy:
            of = f" ({found.id})" if finding.also else ""
            lines.append(" " + clean(f"What you can change{of}:", WIDTH))
            lines += [f"   {clean(line, SENTENCE)}" for line in found.remedy.splitlines()]
    return lines


def _sentence(text: str) -> list[str]:
    return [f" {clean(text, SENTENCE)}"]


def _normally(snapshot: Snapshot) -> list[str]:
    frames = snapshot.threads[0].frames if snapshot.threads else ()
    observed = snapshot.observed
    return samples.against_normal(frames, observed.normal, turns.usual_turn(observed.iterations))


def _stalled(threads: Sequence[ThreadStack], normal: samples.Normal = ()) -> list[str]:
    if not threads:
        return [" The stack of the stalled thread could not be read."]
    first = threads[0]
    return [
        f" Stack of {_thread(first)}, innermost frame first:",
        *_stack(first.frames, samples.is_new(first.frames, normal)),
    ]


def _others(threads: Iterable[ThreadStack]) -> list[str]:
    folded: dict[tuple[Frame, ...], list[ThreadStack]] = {}
    for thread in threads:
        folded.setdefault(thread.frames, []).append(thread)
    if not folded:
        return []
    count = sum(len(same) for same in folded.values())
    lines = [f" Other threads ({count}), equal stacks together:"]
    for frames, same in folded.items():
        names = ", ".join(_thread(thread) for thread in same[:_NAMES_SHOWN])
        more = f" and {len(same) - _NAMES_SHOWN} more" if len(same) > _NAMES_SHOWN else ""
        times = f"{len(same)} x " if len(same) > 1 else ""
        lines.append("  " + clean(f"{times}{names}{more}", WIDTH) + ":")
        lines += _stack(frames)
    return lines


def _stack(frames: Sequence[Frame], new: Sequence[bool] = ()) -> list[str]:
    marks = ["  + " if is_new else "    " for is_new in new] or ["    "] * len(frames)
    return [mark + frame_text(frame) for mark, frame in zip(marks, frames, strict=True)] or [
        "    (no Python frame)"
    ]


def _thread(thread: ThreadStack) -> str:
    native = f", tid {thread.native_id}" if thread.native_id is not None else ""
    return clean(thread.name, 60) + native


def _in_flight(calls: Sequence[CallRecord]) -> list[str]:
    if not calls:
        return [" No call is in flight."]
    return [f" Calls in flight ({len(calls)}):", *(f"    {_call(call)}" for call in calls)]


def _recent(calls: Sequence[CallRecord], most: int | None) -> list[str]:
    if not calls:
        return []
    shown = calls if most is None else calls[-most:]
    of = f" of the {len(calls)} before" if len(shown) < len(calls) else ""
    return [
        f" Last {len(shown)} calls{of}, newest last:",
        *(f"    {_call(call)}" for call in shown),
    ]


def _call(call: CallRecord) -> str:
    peer = f" to {call.peer}" if call.peer else ""
    if call.duration_s is None:
        state = f"for {call.started_ago_s:.1f} s" + (", guarded" if call.guarded else "")
    else:
        state = (
            f"{call.started_ago_s:.1f} s ago: {call.answer or '?'} after {call.duration_s:.2f} s"
        ) + ("" if call.bytes is None else f", {call.bytes} bytes")
    return clean(f"{call.call}{peer} {state} [{call.thread}]", WIDTH)


def _unavailable(pairs: Sequence[tuple[str, str]]) -> list[str]:
    if not pairs:
        return []
    return [
        " " + clean("Could not be read: " + "; ".join(f"{a} ({b})" for a, b in pairs), SENTENCE)
    ]


def deeds(incident: Incident, most: int = 0) -> list[str]:
    """Return a line for each thing that was done about an incident; with `most`, for the last ones only."""
    lines = []
    for deed in incident.actions[-most:]:
        by = f" by {deed.lever}" if deed.lever else ""
        came = f": {deed.outcome}" if deed.outcome else ""
        lines.append(" " + clean(f"At {deed.at_s:.1f} s: {deed.deed}{by}{came}", WIDTH))
    return lines


def _files(files: str | None) -> list[str]:
    return [" " + clean(f"Files: {files}", SENTENCE)] if files else []


def _delta_of_stack(before: Snapshot, now: Snapshot) -> list[str]:
    if not now.threads:
        return _stalled(())
    old = before.threads[0].frames if before.threads else ()
    if old == now.threads[0].frames:
        leaf = f", innermost {frame_text(old[0])}" if old else ""
        return [f" The stack of {_thread(now.threads[0])} is the same as before{leaf}."]
    return [" The stack has changed.", *_stalled(now.threads)]


def _delta_of_threads(before: Snapshot, now: Snapshot) -> list[str]:
    old, new = ({(t.ident, t.name) for t in s.threads} for s in (before, now))
    lines = []
    for what, names in (("begun", new - old), ("ended", old - new)):
        if names:
            shown = ", ".join(sorted(name for _, name in names)[:_NAMES_SHOWN])
            lines.append(" " + clean(f"Threads {what} since ({len(names)}): {shown}", WIDTH))
    return lines


def _delta_of_calls(now: Snapshot, since_s: float | None) -> list[str]:
    lines = []
    for call in now.in_flight:
        state = (
            "In flight"
            if since_s is None
            else "Begun since"
            if call.started_ago_s < since_s
            else "Still in flight"
        )
        lines.append(f" {state}: {_call(call)}")
    ended = [call for call in now.recent if since_s is not None and _ended_within(call, since_s)]
    if len(ended) > _CALLS_SHOWN:
        lines.append(f" Ended since: {len(ended) - _CALLS_SHOWN} calls before these")
    lines += [f" Ended since: {_call(call)}" for call in ended[-_CALLS_SHOWN:]]
    return lines or [" No call has begun or ended since."]


def _ended_within(call: CallRecord, seconds: float) -> bool:
    return call.duration_s is not None and call.started_ago_s - call.duration_s < seconds

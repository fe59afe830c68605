"""An incident as JSON, schema 1, and back. A damaged one still gives an incident of what can be read."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from typing import TYPE_CHECKING, Any

from watchdog_hook.core.model import (
    CallRecord,
    Deed,
    Finding,
    Frame,
    Incident,
    Sample,
    Snapshot,
    ThreadStack,
)
from watchdog_hook.core.observed import Observed, ThreadInKernel
from watchdog_hook.core.owner import places
from watchdog_hook.core.plain import from_plain, to_plain
from watchdog_hook.core.text import from_utc, utc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SCHEMA = 1
_MISSING = Finding("?", "?", "The verdict is missing.")
_NOTHING = {"id": _MISSING.id, "confidence": "?", "sentence": _MISSING.sentence}
_PLACES = 8  # of a stack in its fingerprint: what lies further out is common to many stalls


def fingerprint(incident: Incident) -> str:
    """
    Return the same twelve digits for stalls of one kind in one place.

    Verdict, phase, and of the stalled stack the innermost frames that are Airflow's or the user's, by
    function and file: neither the host, the line, the Python nor what a library does below them counts.
    """
    stack = incident.snapshot.threads[0].frames if incident.snapshot.threads else ()
    text = "\n".join(
        [incident.finding.id, incident.phase or "", *itertools.islice(places(stack), _PLACES)]
    )
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]


def to_json(incident: Incident) -> dict[str, Any]:
    """Return an incident in schema 1: what `json.dumps` takes, times in RFC 3339, durations in seconds."""
    snapshot, finding = incident.snapshot, incident.finding
    observed = to_plain(snapshot.observed)
    return {
        "schema": SCHEMA,
        "id": incident.id,
        "fingerprint": fingerprint(incident),
        "host": incident.host,
        "pid": incident.pid,
        "job_id": incident.job_id,
        "component": incident.component,
        "process_started": utc(incident.process_started),
        "versions": {str(key): str(value) for key, value in incident.versions.items()},
        "settings": to_plain(incident.settings),
        "began": utc(incident.began),
        "first_dump": utc(incident.first_dump),
        "ended": utc(incident.ended),
        "silence_s": _seconds(incident.silence_s),
        "phase": incident.phase,
        "call": incident.call,
        "peer": incident.peer,
        "age_s": _seconds(incident.age_s),
        "waiting": incident.waiting,
        "verdict": to_plain(finding),
        "calls": [_call(call, True) for call in snapshot.in_flight]
        + [_call(call, False) for call in snapshot.recent],
        "threads": [
            {
                "ident": thread.ident,
                "native_id": thread.native_id,
                "name": thread.name,
                "frames": _frames(thread.frames),
            }
            for thread in snapshot.threads
        ],
        "tasks": observed.pop("tasks"),
        "samples": [
            {
                "at_s": _seconds(sample.at_s),
                "frames": _frames(sample.frames),
                "kernel": to_plain(sample.kernel),
            }
            for sample in snapshot.samples
        ],
        "actions": [
            {
                "at_s": _seconds(deed.at_s),
                "deed": deed.deed,
                "lever": deed.lever,
                "outcome": deed.outcome,
            }
            for deed in incident.actions
        ],
        "observed": observed,
        "unavailable": [{"what": what, "why": why} for what, why in snapshot.unavailable],
        "truncated": incident.truncated,
    }


def json_chunks(data: Mapping[str, Any]) -> Iterator[str]:
    """Return JSON text piece by piece, one list item a line: a big one does not hold up other threads."""
    # One json.dumps of a thousand stacks runs in C from end to end without letting go of the interpreter.
    yield from _chunks(data)
    yield "\n"


def _chunks(value: object) -> Iterator[str]:
    if isinstance(value, dict) and value:
        opening = "{\n"
        for key, item in value.items():
            yield f"{opening}{json.dumps(key)}: "
            yield from _chunks(item)
            opening = ",\n"
        yield "\n}"
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield ("[\n " if index == 0 else ",\n ") + json.dumps(item)
        yield "\n]"
    else:
        yield json.dumps(value)


def from_json(data: Mapping[str, Any]) -> Incident:
    """Return the incident of a JSON object. Unknown keys are ignored; missing or wrong ones stay empty."""
    calls = _items(data.get("calls"))
    return Incident(
        id=_text(data.get("id"), "?"),
        host=_text(data.get("host"), "?"),
        pid=_whole(data.get("pid")) or 0,
        began=from_utc(data.get("began")) or 0.0,
        first_dump=from_utc(data.get("first_dump")) or 0.0,
        silence_s=_number(data.get("silence_s")) or 0.0,
        phase=_maybe(data.get("phase")),
        finding=from_plain(Finding, {**_NOTHING, **_mapping(data.get("verdict"))}) or _MISSING,
        snapshot=Snapshot(
            threads=tuple(_thread_from(item) for item in _items(data.get("threads"))),
            samples=tuple(
                Sample(
                    _number(item.get("at_s")) or 0.0,
                    _frames_from(item.get("frames")),
                    from_plain(ThreadInKernel, item.get("kernel")),
                )
                for item in _items(data.get("samples"))
            ),
            in_flight=tuple(_call_from(item) for item in calls if item.get("in_flight") is True),
            recent=tuple(_call_from(item) for item in calls if item.get("in_flight") is not True),
            unavailable=tuple(
                (_text(item.get("what")), _text(item.get("why")))
                for item in _items(data.get("unavailable"))
            ),
            observed=from_plain(
                Observed, {**_mapping(data.get("observed")), "tasks": data.get("tasks")}
            )
            or Observed(),
        ),
        call=_maybe(data.get("call")),
        peer=_maybe(data.get("peer")),
        age_s=_number(data.get("age_s")),
        ended=from_utc(data.get("ended")),
        job_id=_maybe(data.get("job_id")),
        process_started=from_utc(data.get("process_started")),
        versions={key: str(value) for key, value in _mapping(data.get("versions")).items()},
        settings=dict(_mapping(data.get("settings"))),
        actions=tuple(
            Deed(
                _number(item.get("at_s")) or 0.0,
                _text(item.get("deed")),
                _maybe(item.get("lever")),
                _maybe(item.get("outcome")),
            )
            for item in _items(data.get("actions"))
        ),
        waiting=_whole(data.get("waiting")),
        truncated=data.get("truncated") is True,
        component=_maybe(data.get("component")),
    )


def _frames(frames: tuple[Frame, ...]) -> list[dict[str, Any]]:
    return [{"function": f.function, "file": f.file, "line": f.line} for f in frames]


def _call(call: CallRecord, in_flight: bool) -> dict[str, Any]:
    return {
        "call": call.call,
        "peer": call.peer,
        "thread": call.thread,
        "in_flight": in_flight,
        "started_ago_s": _seconds(call.started_ago_s),
        "duration_s": _seconds(call.duration_s),
        "answer": call.answer,
        "guarded": call.guarded,
        "bytes": call.bytes,
    }


def _seconds(value: float | None) -> float | None:
    return round(value, 3) if value is not None and math.isfinite(value) else None


def _thread_from(item: Mapping[str, Any]) -> ThreadStack:
    return ThreadStack(
        ident=_whole(item.get("ident")) or 0,
        name=_text(item.get("name"), "?"),
        frames=_frames_from(item.get("frames")),
        native_id=_whole(item.get("native_id")),
    )


def _frames_from(value: object) -> tuple[Frame, ...]:
    return tuple(
        Frame(
            _text(item.get("function"), "?"), _text(item.get("file")), _whole(item.get("line")) or 0
        )
        for item in _items(value)
    )


def _call_from(item: Mapping[str, Any]) -> CallRecord:
    return CallRecord(
        call=_text(item.get("call"), "?"),
        peer=_maybe(item.get("peer")),
        thread=_text(item.get("thread"), "?"),
        started_ago_s=_number(item.get("started_ago_s")) or 0.0,
        duration_s=_number(item.get("duration_s")),
        answer=_maybe(item.get("answer")),
        guarded=item.get("guarded") is True,
        bytes=_whole(item.get("bytes")),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _items(value: object) -> list[Mapping[str, Any]]:
    return [item for item in _list(value) if isinstance(item, dict)]


def _text(value: object, default: str = "") -> str:
    return value if isinstance(value, str) else default


def _maybe(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None

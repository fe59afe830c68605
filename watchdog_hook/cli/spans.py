"""What happened when, in seconds since the silence began: turns, phases, calls, samples, deeds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from watchdog_hook.cli.wording import duration
from watchdog_hook.core.model import CallRecord, Incident

COLOURS = 6  # of phases; a seventh has the first one's


@dataclass(frozen=True, slots=True)
class Span:
    """Something that lasted, in seconds since the silence began."""

    lane: str
    start: float
    end: float
    kind: str  # turn, silence, call, open, bad, or phase-N
    label: str
    told: str  # in a sentence
    sure: float | None = None  # up to here it was seen; after that it is inferred


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened at once."""

    lane: str
    at: float
    kind: str  # same, moved, dump or deed
    label: str
    told: str


def at_dump(incident: Incident) -> float:
    """Return how long it had been silent at the first dump, to which calls and turns refer."""
    if incident.began and incident.first_dump >= incident.began:
        return incident.first_dump - incident.began
    return max(incident.silence_s, 0.0)


def last_second(incident: Incident, dump: float) -> float:
    """Return the last of what is known, at least 1: a scale must have a length."""
    ends = [dump, incident.silence_s, *(deed.at_s for deed in incident.actions)]
    ends += [sample.at_s for sample in incident.snapshot.samples]
    return max(1.0, *(end for end in ends if math.isfinite(end)))


def spans_of(incident: Incident, dump: float, end: float, phases: dict[str, int]) -> Iterator[Span]:
    """Return all that lasted; each phase's name gets its number in `phases`, for its colour."""
    where = f" in {incident.phase}" if incident.phase else ""
    ended = "then the loop went on" if incident.ended else "its end was not seen"
    if incident.process_ended:
        ended = "then its process ended"
    told = f"silent for {duration(incident.silence_s)}{where}; {ended}"
    silence = max(incident.silence_s, 0.0)
    yield Span("loop", 0.0, silence, "silence", f"silent {duration(silence)}{where}", told)
    for turn in incident.snapshot.observed.iterations:
        start = dump - turn.started_ago_s
        lasted = turn.duration_s
        # The turn that goes on is the silence.
        if lasted is not None and _finite(start, lasted):
            told = f"a turn of {duration(lasted)}"
            yield Span("loop", start, start + lasted, "turn", duration(lasted), told)
        for name, after, took in turn.phases:
            begun = start + after
            # The phase of the silence was still going on when it was read.
            last = lasted is None and name == incident.phase
            until = end if last else begun + took
            if not _finite(begun, until):
                continue
            kind = f"phase-{phases.setdefault(name, len(phases)) % COLOURS}"
            so_long = "and goes on" if last else f"for {duration(took)}"
            yield Span("phases", begun, until, kind, name, f"{name} {so_long}", dump)
    yield from _calls(incident, dump, end)


def _calls(incident: Incident, dump: float, end: float) -> Iterator[Span]:
    threads = incident.snapshot.threads
    calls = [*incident.snapshot.recent, *incident.snapshot.in_flight]
    for call in sorted(calls, key=lambda call: not threads or call.thread != threads[0].name):
        start = dump - call.started_ago_s
        over = end if call.duration_s is None else start + call.duration_s
        if not _finite(start, over):
            continue
        peer = f" to {call.peer}" if call.peer else ""
        if call.duration_s is None:
            outcome = "no answer up to the dump"
            kind = "open"
        else:
            outcome = f"{call.answer or 'answer not known'} after {duration(call.duration_s)}"
            kind = "call" if _answered_well(call) else "bad"
        told = f"{call.call}{peer}: {outcome}"
        yield Span(f"calls, {call.thread}", start, over, kind, call.call, told, dump)


def _answered_well(call: CallRecord) -> bool:
    return call.answer is None or call.answer[:1] in ("1", "2", "3")


def moments_of(incident: Incident, dump: float) -> Iterator[Moment]:
    """Return the samples, the dump and the deeds."""
    before = None
    for sample in incident.snapshot.samples:
        if not _finite(sample.at_s):
            continue
        moved = before is not None and sample.frames != before
        before = sample.frames
        place = f" in {sample.frames[0].function}" if sample.frames else ""
        stood = "elsewhere than before" if moved else "where it stood"
        told = f"sample at {duration(sample.at_s)}: {stood}{place}"
        yield Moment("samples", sample.at_s, "moved" if moved else "same", "", told)
    yield Moment("deeds", dump, "dump", "dump", f"the dump, at {duration(dump)} of silence")
    for number, deed in enumerate(incident.actions, 1):
        if _finite(deed.at_s):
            by = f" by {deed.lever}" if deed.lever else ""
            came = f": {deed.outcome}" if deed.outcome else ""
            told = f"at {duration(deed.at_s)}: {deed.deed}{by}{came}"
            yield Moment("deeds", deed.at_s, "deed", str(number), told)


def _finite(*numbers: float) -> bool:
    return all(math.isfinite(number) for number in numbers)

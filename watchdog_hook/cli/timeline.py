"""The time before an incident and the incident itself, each on a scale of its own: turns, phases, calls, deeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from watchdog_hook.cli.spans import Moment, Span, at_dump, last_second, moments_of, spans_of
from watchdog_hook.cli.wording import duration
from watchdog_hook.core.model import Incident

BEFORE_S = 120.0  # seconds before the silence that are shown at most
_NEAR = 0.03  # share of a panel's width within which two deeds are one mark
_PIXELS = 500  # about how wide a panel is: what a label has to fit into
_TICKS = 6
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)


@dataclass(frozen=True, slots=True)
class Bar:
    """A span as it is drawn: shares of its panel's width."""

    left: float
    width: float
    kind: str
    label: str
    told: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment as it is drawn."""

    left: float
    kind: str
    label: str
    told: str


@dataclass(slots=True)
class Lane:
    """A row of a panel."""

    name: str
    bars: list[Bar] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Panel:
    """A stretch of time on one scale."""

    heading: str
    lanes: tuple[Lane, ...]
    ticks: tuple[tuple[float, str], ...]  # where, and what stands there


@dataclass(frozen=True, slots=True)
class Timeline:
    """Both panels, the names of the phases in the order of their colours, and what is not shown."""

    panels: tuple[Panel, ...]
    phases: tuple[str, ...]
    earlier: int  # spans before the first panel
    kinds: frozenset[str]  # of the bars and marks that there are


def timeline(incident: Incident) -> Timeline:
    """Return the time line of an incident; with what is missing in it left out."""
    dump = at_dump(incident)
    end = last_second(incident, dump)
    phases: dict[str, int] = {}
    spans = list(spans_of(incident, dump, end, phases))
    moments = list(moments_of(incident, dump))
    near = [span for span in spans if span.end >= -BEFORE_S]
    start = min((max(span.start, -BEFORE_S) for span in near), default=0.0)
    # The same rows in both panels, so that they stand beside each other.
    lanes = [*(span.lane for span in spans), *(moment.lane for moment in moments)]
    panels = []
    if start < -0.05:
        heading = f"the last {duration(-start)} before"
        panels.append(_panel(heading, start, 0.0, lanes, spans, moments))
    since = "the silence" if incident.is_stall else "since the last beat"
    panels.append(_panel(f"{since}, {duration(end)}", 0.0, end, lanes, spans, moments))
    drawn = [lane for panel in panels for lane in panel.lanes]
    kinds = {bar.kind for lane in drawn for bar in lane.bars}
    kinds |= {mark.kind for lane in drawn for mark in lane.marks}
    words = frozenset(word for kind in kinds for word in kind.split())
    return Timeline(tuple(panels), tuple(phases), len(spans) - len(near), words)


def _panel(
    heading: str,
    start: float,
    end: float,
    names: Iterable[str],
    spans: Iterable[Span],
    moments: Iterable[Moment],
) -> Panel:
    lanes = {name: Lane(name) for name in dict.fromkeys(names)}
    for span in spans:
        lanes[span.lane].bars.extend(_bars(span, start, end))
    for moment in moments:
        if start <= moment.at <= end and (moment.at < 0) == (end <= 0):
            left = (moment.at - start) / (end - start)
            lanes[moment.lane].marks.append(Mark(left, moment.kind, moment.label, moment.told))
    shown = list(lanes.values())
    for lane in shown:
        lane.marks = _joined(lane.marks)
    while shown and not (shown[-1].bars or shown[-1].marks):
        shown.pop()
    return Panel(heading, tuple(shown), tuple(_ticks(start, end)))


def _bars(span: Span, start: float, end: float) -> Iterator[Bar]:
    """Return a span's part within a panel; what was seen of it, and what is inferred."""
    scale = end - start
    left, right = max(span.start, start), min(span.end, end)
    if left > right or (left == right and not (span.start == span.end and start <= left < end)):
        return
    if span.sure is None or not left < span.sure < right:
        cuts = [(left, right, "")]
    else:
        cuts = [(left, span.sure, ""), (span.sure, right, " inferred")]
    for begun, over, more in cuts:
        width = (over - begun) / scale
        label = span.label if not more and _fits(span, width) else ""
        yield Bar((begun - start) / scale, width, span.kind + more, label, span.told)


def _fits(span: Span, width: float) -> bool:
    """Tell whether a label fits: of a short phase its whole, for the legend has it; else its beginning will do."""
    room = width * _PIXELS - 10
    least = 150 if span.kind.startswith("phase") else 60
    return room >= 7 * len(span.label) or room >= least


def _joined(marks: list[Mark]) -> list[Mark]:
    """Return the marks with deeds that would hide each other as one, from the first to the last."""
    joined: list[Mark] = []
    for mark in marks:
        last = joined[-1] if joined else None
        if last and mark.kind == last.kind == "deed" and abs(mark.left - last.left) < _NEAR:
            label = f"{last.label.partition('-')[0]}-{mark.label}"
            joined[-1] = Mark(last.left, "deed", label, f"{last.told}; {mark.told}")
        else:
            joined.append(mark)
    return joined


def _ticks(start: float, end: float) -> Iterator[tuple[float, str]]:
    scale = end - start
    step = next((step for step in _STEPS if scale / step <= _TICKS), scale / _TICKS)
    for number in range(math.ceil(start / step), math.floor(end / step) + 1):
        at = number * step
        yield (at - start) / scale, f"{'+' if at > 0 else ''}{duration(at)}"

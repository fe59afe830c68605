"""
An incident as text, for a person at three in the morning: since when, where in the loop, waiting for what and
whom, why we think so, what we do about it, what he can change. Pure formatting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchdog_hook.core import around, calls, fitting, samples, tasks, threads, turns, verdict
from watchdog_hook.core.archive import fingerprint, from_json, json_chunks, to_json
from watchdog_hook.core.delta import render_delta
from watchdog_hook.core.fitting import RECORD_LIMIT
from watchdog_hook.core.text import SENTENCE, clean, log_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watchdog_hook.core.model import Incident, Snapshot

__all__ = [
    "fingerprint",
    "from_json",
    "json_chunks",
    "log_line",
    "render",
    "render_delta",
    "to_json",
]

# Of a log record; dump.txt has all of them.
_ROWS_SHOWN = 40  # functions in the table of samples
_TURNS_SHOWN = 5
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
    first = verdict.first_line(incident, event, asked=asked or None)
    report = _Report(incident, files, plan, first, brief=limit is not None)
    lines = report.lines()
    if limit is None or fitting.size(lines) <= limit:
        return "\n".join(lines)
    return "\n".join(report.within(limit))


class _Report:
    """The parts of one report, so that the ones that matter least can be cut first."""

    def __init__(
        self, incident: Incident, files: str | None, plan: str | None, first: str, *, brief: bool
    ) -> None:
        snapshot, observed = incident.snapshot, incident.snapshot.observed
        self._files = verdict.files(files)
        self._head = [first, *verdict.diagnosis(incident, plan)]
        self._samples = samples.lines(snapshot.samples, _ROWS_SHOWN if brief else None)
        self._stack = [*_normally(snapshot), *threads.stalled(snapshot.threads, observed.normal)]
        self._threads = threads.others(snapshot.threads[1:])
        self._tasks = tasks.lines(observed.tasks, _TASKS_SHOWN if brief else None)
        self._calls = [
            *calls.in_flight(snapshot.in_flight),
            *calls.recent(snapshot.recent, calls.SHOWN if brief else None),
        ]
        self._turns = turns.lines(observed.iterations, _TURNS_SHOWN if brief else None)
        self._tail = [
            *around.lines(snapshot.observed),
            *_unavailable(snapshot.unavailable),
            *verdict.deeds(incident),
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

    def within(self, limit: int) -> list[str]:
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
            fitting.drop_end(part, fitting.size(self.lines(", ".join(cut))) - limit)
            lines = self.lines(", ".join(cut))
            if fitting.size(lines) <= limit:
                break
        # Still too long only with a stack of very long names: it keeps its innermost frames.
        return fitting.cut(lines, limit)


def _normally(snapshot: Snapshot) -> list[str]:
    frames = snapshot.threads[0].frames if snapshot.threads else ()
    observed = snapshot.observed
    return samples.against_normal(frames, observed.normal, turns.usual_turn(observed.iterations))


def _unavailable(pairs: Sequence[tuple[str, str]]) -> list[str]:
    if not pairs:
        return []
    return [
        " " + clean("Could not be read: " + "; ".join(f"{a} ({b})" for a, b in pairs), SENTENCE)
    ]

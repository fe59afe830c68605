"""What was found out about an incident, and what is done about it, in lines for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchdog_hook.core.model import NO_STALL
from watchdog_hook.core.text import SENTENCE, WIDTH, clean, log_line, utc

if TYPE_CHECKING:
    from watchdog_hook.core.model import Incident

_BEGAN = {"no-progress": "Since", NO_STALL: "Last beat"}


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


def diagnosis(incident: Incident, plan: str | None) -> list[str]:
    """Return the verdict with its reasons, `plan` as what comes next, and the remedies."""
    # In the order of the questions asked at night: since when, where and for what, why we think so, what we do
    # about it, what can be changed.
    finding = incident.finding
    began = _BEGAN.get(finding.id, "Silent since")
    since = f"{began} {utc(incident.began)}; host {incident.host}, pid {incident.pid}"
    since += f", job {incident.job_id}" if incident.job_id else ""
    since += f"; {incident.waiting} task instances wait" if incident.waiting is not None else ""
    lines = [" " + clean(since, WIDTH) + "."]
    for found in (finding, *finding.also):
        lines += sentence(found.sentence if found is finding else f"And: {found.sentence}")
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


def sentence(text: str) -> list[str]:
    """Return what was diagnosed as a line."""
    return [f" {clean(text, SENTENCE)}"]


def deeds(incident: Incident, most: int = 0) -> list[str]:
    """Return a line for each thing that was done about an incident; with `most`, for the last ones only."""
    lines = []
    for deed in incident.actions[-most:]:
        by = f" by {deed.lever}" if deed.lever else ""
        came = f": {deed.outcome}" if deed.outcome else ""
        lines.append(" " + clean(f"At {deed.at_s:.1f} s: {deed.deed}{by}{came}", WIDTH))
    return lines


def files(path: str | None) -> list[str]:
    """Return a line that says where all of it lies; nothing where it lies nowhere."""
    return [" " + clean(f"Files: {path}", SENTENCE)] if path else []

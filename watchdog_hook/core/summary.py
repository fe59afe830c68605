"""The shortest account of a stall: for a place that holds little, and for a process that has little time left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchdog_hook.core.text import WIDTH, clean, utc
from watchdog_hook.core.verdict import deeds, first_line

if TYPE_CHECKING:
    from watchdog_hook.core.model import Incident

LIMIT = 2048  # bytes: half of what Kubernetes keeps of a container's last words
_SENTENCE = 500  # characters
_DEEDS_SHOWN = 4  # the last ones


def summary(incident: Incident, event: str, files: str, **more: object) -> str:
    """Return what is known of a stall in a few lines, 2 KiB at most; what does not fit is cut off the end."""
    finding = incident.finding
    job = f", job {incident.job_id}" if incident.job_id else ""
    lines = [
        first_line(incident, event, **more),
        f" Silent since {utc(incident.began)}; host {incident.host}, pid {incident.pid}{job}.",
        " " + clean(finding.sentence, _SENTENCE),
        f" Verdict: {finding.id}, {finding.confidence} confidence.",
        " " + clean(f"Files: {files}", WIDTH),
        *deeds(incident, _DEEDS_SHOWN),
    ]
    data = "\n".join(lines).encode("utf-8", "replace")
    return data[:LIMIT].decode("utf-8", "ignore")

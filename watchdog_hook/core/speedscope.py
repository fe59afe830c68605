"""
The samples of an incident as a file for https://www.speedscope.app, which draws them as flame graphs.

The format: https://www.speedscope.app/file-format-schema.json.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from watchdog_hook.core.samples import spans

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from watchdog_hook.core.model import Frame, Incident

SCHEMA = "https://www.speedscope.app/file-format-schema.json"
_DIGITS = 3  # of seconds


def chunks(incident: Incident) -> Iterator[str]:
    """
    Return the file piece by piece, a frame or a stack each: a big one does not hold up other threads.

    The profile "stall" has one stack for each look, its weight the seconds until the next one. "normal", where
    there is such a picture, has each healthy stack once, its weight how often it was seen: how long the loop
    stood there nobody knows, so it has no unit.
    """
    snapshot = incident.snapshot
    stacks = [sample.frames for sample in snapshot.samples]
    normal = snapshot.observed.normal
    index: dict[Frame, int] = {}
    for frames in (*stacks, *(frames for frames, _ in normal)):
        for frame in frames:
            index.setdefault(frame, len(index))
    version = incident.versions.get("watchdog_hook")
    head = {
        "$schema": SCHEMA,
        "name": incident.id,
        "exporter": f"watchdog_hook {version}" if version else "watchdog_hook",
        "activeProfileIndex": 0,
    }
    yield json.dumps(head)[:-1] + ',\n"shared": {"frames": ['
    yield from _listed(json.dumps(_frame(frame)) for frame in index)
    yield "]},\n" + '"profiles": ['
    weights = [round(seconds, _DIGITS) for seconds in spans(snapshot.samples)]
    start = snapshot.samples[0].at_s if snapshot.samples else 0.0
    yield from _profile("stall", "seconds", stacks, weights, index, round(start, _DIGITS))
    if normal:
        yield ",\n"
        counts = [count for _, count in normal]
        yield from _profile("normal", "none", [frames for frames, _ in normal], counts, index)
    yield "]}\n"


def _profile(
    name: str,
    unit: str,
    stacks: Sequence[Sequence[Frame]],
    weights: Sequence[float],
    index: dict[Frame, int],
    start: float = 0,
) -> Iterator[str]:
    end = round(start + sum(weights), _DIGITS)
    head = {"type": "sampled", "name": name, "unit": unit, "startValue": start, "endValue": end}
    yield json.dumps(head)[:-1] + ', "samples": ['
    # Outermost first: ours begin with the innermost.
    yield from _listed(
        json.dumps([index[frame] for frame in reversed(frames)]) for frames in stacks
    )
    yield '], "weights": '
    yield json.dumps(weights) + "}"


def _listed(items: Iterable[str]) -> Iterator[str]:
    for number, item in enumerate(items):
        yield f",\n{item}" if number else f"\n{item}"


def _frame(frame: Frame) -> dict[str, Any]:
    # A note of ours in place of frames left out has no file.
    return {
        "name": frame.function,
        **({"file": frame.file, "line": frame.line} if frame.file else {}),
    }

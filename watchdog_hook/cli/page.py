"""An incident as one page for a browser: nothing is loaded from anywhere, and nothing may be."""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from watchdog_hook.cli import FINE, PROBLEM, UsageError, output, store, wording
from watchdog_hook.cli.console import visible
from watchdog_hook.cli.flame import Pair, of_samples, pair
from watchdog_hook.cli.spans import COLOURS
from watchdog_hook.cli.timeline import timeline
from watchdog_hook.core.owner import owner
from watchdog_hook.core.text import short_path

try:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
except ImportError as error:
    raise UsageError(f"--html needs Jinja2 ({error}): pip install Jinja2") from None

if TYPE_CHECKING:
    from watchdog_hook.cli.store import Stored
    from watchdog_hook.core.model import Frame, Incident, ThreadStack

FILTERS = ("duration", "when", "size", "percent", "number", "remedy")
TEXT_LIMIT = 200_000  # characters of each further file that are taken into the page


def show(stored: Stored, file: str, *, force: bool) -> int:
    """Write an incident's page to a file, or to standard output for `-`. Return 1 if it is damaged."""
    html, damage = render(stored)
    if file == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(html)
        sys.stdout.flush()
    else:
        output.write(Path(file), html, force=force)
    for each in damage:
        print(visible(f"{stored.id}: {each}"), file=sys.stderr)
    return PROBLEM if damage else FINE


@dataclass(frozen=True, slots=True)
class Line:
    """A frame as a line of a stack."""

    function: str
    place: str
    owner: str


@dataclass(frozen=True, slots=True)
class Folded:
    """Threads that stand in the same place."""

    threads: tuple[ThreadStack, ...]
    frames: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """A further file of the incident."""

    name: str
    text: str
    size: int  # characters in all


def render(stored: Stored) -> tuple[bytes, list[str]]:
    """Return the page, and what of the incident could not be read."""
    environment = Environment(
        loader=PackageLoader("watchdog_hook.cli"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters.update({name: getattr(wording, name) for name in FILTERS}, short=short_path)
    texts, damage = _texts(stored)
    incident = stored.incident
    style, script = _inline(environment, "page.css"), _inline(environment, "page.js")
    html = environment.get_template("page.html.jinja").render(
        style=style,
        script=script,
        policy=_policy(style, script),
        stored=stored,
        damage=damage,
        texts=texts,
        incident=incident,
        **(_of(incident) if incident is not None else {}),
    )
    return html.encode("utf-8"), damage


def _of(incident: Incident) -> dict[str, Any]:
    """Return what the page shows of an incident beside its own fields."""
    snapshot = incident.snapshot
    threads = fold(snapshot.threads)
    return {
        "observed": snapshot.observed,
        "time": timeline(incident),
        "colours": COLOURS,
        "flames": flames(incident),
        "calls": [
            *((call, True) for call in snapshot.in_flight),
            *((call, False) for call in reversed(snapshot.recent)),
        ],
        "stalled": threads[0] if threads else None,
        "others": threads[1:],
        "tasks": [(group, _lines(group.frames)) for group in snapshot.observed.tasks],
        "absent": absent(incident),
    }


def _inline(environment: Environment, name: str) -> Markup:
    """Return a file of ours as it is, to stand between its tags."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])  # noqa: S704 - a file of ours


def _policy(style: str, script: str) -> str:
    """Return a Content-Security-Policy under which only our own style and script run, and nothing is loaded."""

    def sha256(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; style-src {sha256(style)}; script-src {sha256(script)};"
        " base-uri 'none'; form-action 'none'"
    )


def _shown(value: object) -> object:
    """Return a value as the page may hold it: what has no shape on a screen is shown by its escape."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return "" if value is None else value
    return visible(value)


def _texts(stored: Stored) -> tuple[list[Text], list[str]]:
    """Return dump.txt and the further text files of an incident, and what was wrong with it."""
    texts, damage = [], list(stored.damage)
    for name in ("dump.txt", *(name for name in stored.others() if name.endswith(".txt"))):
        text, why = store.file_text(stored, name)
        if text is not None:
            texts.append(Text(name, text[:TEXT_LIMIT], len(text)))
        elif why is not None:
            damage.append(why)
    return texts, damage


def fold(threads: Iterable[ThreadStack]) -> list[Folded]:
    """Return the threads with equal stacks together; the first one, which is the stalled one, by itself."""
    together: dict[tuple[bool, tuple[Frame, ...]], list[ThreadStack]] = {}
    for position, thread in enumerate(threads):
        together.setdefault((position == 0, thread.frames), []).append(thread)
    return [Folded(tuple(same), _lines(frames)) for (_, frames), same in together.items()]


def _lines(frames: tuple[Frame, ...]) -> tuple[Line, ...]:
    return tuple(
        Line(f.function, f"{short_path(f.file)}:{f.line}" if f.file else "", owner(f.file))
        for f in frames
    )


def flames(incident: Incident) -> Pair:
    """Return the flame graphs; without samples, the stall's is the one stack of the dump."""
    snapshot = incident.snapshot
    stall = of_samples(sample.frames for sample in snapshot.samples)
    if not any(frames for frames, _ in stall) and snapshot.threads:
        stall = [(snapshot.threads[0].frames, 1)]
    return pair(stall, snapshot.observed.normal)


def absent(incident: Incident) -> list[str]:
    """Return the names of the kinds of evidence that this incident has nothing of."""
    snapshot, observed = incident.snapshot, incident.snapshot.observed
    kinds = {
        f"samples {'of the stall' if incident.is_stall else 'before the dump'}": snapshot.samples,
        "samples of the healthy loop": observed.normal,
        "turns of the loop": observed.iterations,
        "Kubernetes calls": snapshot.in_flight or snapshot.recent,
        "what the thread waits on in the kernel": observed.kernel,
        "locks": observed.locks,
        "executors": observed.executors,
        "process and children": observed.process,
        "actions": incident.actions,
    }
    return [name for name, found in kinds.items() if not found]

"""The verb show: one incident for a person, for a program, as its dump was written, or as a page."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from watchdog_hook.cli import FINE, PROBLEM, store
from watchdog_hook.cli.console import make_console, visible
from watchdog_hook.cli.wording import ending, when
from watchdog_hook.core import report
from watchdog_hook.core.owner import AIRFLOW, HOOK, LIBRARY, YOURS, owner
from watchdog_hook.core.text import clean, frame_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from rich.console import Console

    from watchdog_hook.cli.store import Stored
    from watchdog_hook.core.model import Incident

STYLES = {YOURS: "bold yellow", AIRFLOW: "bold", HOOK: "dim italic", LIBRARY: "dim"}
_SENTENCE_AT = 1  # of a report without its first line: "Silent since …" stands before it
_EVIDENCE = (" Where the time went", " Stack of ", " The stack of ")  # where the diagnosis ends
_SHARES = re.compile(r"^\d+ +\d+  ")  # %own and %total before a frame, in the table of samples


def show_one(stored: Stored, *, as_json: bool = False, as_dumped: bool = False) -> int:
    """Print an incident. Return 1 if something of it could not be read."""
    text, damage = _read(stored)
    if as_json:
        print(json.dumps(_plain(stored, damage), indent=2))
    elif as_dumped and text is not None:
        _print_dump(text)
    elif stored.incident is not None and (text is None or not stored.damage):
        _print_incident(stored, stored.incident)
    else:
        # What incident.json lacks may stand in the dump.
        if stored.incident is not None:
            make_console().print(_summary(stored, stored.incident), "")
        _print_dump(text)
    for each in damage:
        print(visible(f"{stored.id}: {each}"), file=sys.stderr)
    return PROBLEM if damage else FINE


def plain(stored: Stored) -> dict[str, Any]:
    """Return an incident for a program: incident.json, and as `damage` what of its files could not be read."""
    return _plain(stored, _read(stored)[1])


def _plain(stored: Stored, damage: list[str]) -> dict[str, Any]:
    whole = stored.data if stored.data is not None else {"id": stored.id}
    return {**whole, "damage": damage} if damage else whole


def _read(stored: Stored) -> tuple[str | None, list[str]]:
    """Return its dump, and what could not be read."""
    text, why = store.dump_text(stored)
    return text, [*stored.damage, *([why] if why else [])]


def _print_dump(text: str | None) -> None:
    """Print dump.txt as it is; on a terminal, without what would move the cursor."""
    if text is None:
        return
    if sys.stdout.isatty():
        text = visible(text)
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


def _print_incident(stored: Stored, incident: Incident) -> None:
    """Print the report of an incident: its sentence, signs and remedy, how it went on, and the evidence."""
    console = make_console()
    owners = _owners(incident)
    # Its first line is for the log: the summary has all of it.
    lines = report.render(incident, limit=None).split("\n")[1:]
    cut = next((n for n, line in enumerate(lines) if line.startswith(_EVIDENCE)), len(lines))
    for number, line in enumerate(lines[:cut]):
        _put(console, Text(line, "bold") if number == _SENTENCE_AT else _styled(line, owners))
    console.print()
    console.print(_summary(stored, incident))
    console.print()
    for line in lines[cut:]:
        _put(console, _styled(line, owners))


def _put(console: Console, line: Text) -> None:
    """Print a line; on a terminal wrapped at words, its further lines indented a little more than its first."""
    if not console.is_terminal:
        console.print(line, soft_wrap=True)
        return
    indent = len(line.plain) - len(line.plain.lstrip(" "))
    parts = line[indent:].wrap(console, max(console.width - indent - 2, 20))
    for number, part in enumerate(parts):
        part.rstrip()
        console.print(Text(" " * (indent + 2 * bool(number))) + part, soft_wrap=True)


def _owners(incident: Incident) -> dict[str, str]:
    """Return whose code each frame of the incident is, by its text."""
    snapshot = incident.snapshot
    stacks = [thread.frames for thread in snapshot.threads]
    stacks += [sample.frames for sample in snapshot.samples]
    return {frame_text(frame): owner(frame.file) for frames in stacks for frame in frames}


def _styled(line: str, owners: dict[str, str]) -> Text:
    """Return a line of a report: own frames bright, library frames dim, headings bold."""
    text = Text(line)
    frame = _SHARES.sub("", line.strip())
    if frame in owners:
        begin = len(line) - len(frame)
        place = frame.rfind(" (")
        text.stylize(STYLES[owners[frame]], begin, begin + place if place > 0 else None)
        if owners[frame] not in (YOURS, AIRFLOW):
            text.stylize("dim", begin)
    elif line.startswith(" Sign: "):
        text.stylize("cyan", 0, len(" Sign:"))
    elif line.startswith(" ") and not line.startswith("  ") and line.endswith(":"):
        text.stylize("bold")
    elif line.startswith(" Could not be read: "):
        text.stylize("dim")
    return text


def _summary(stored: Stored, incident: Incident) -> Table:
    """Return what the report does not know: how it went on, and what else there is."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, value in _facts(stored, incident):
        if value:
            grid.add_row(name, Text(clean(value)))
    return grid


def _facts(stored: Stored, incident: Incident) -> Iterator[tuple[str, str]]:
    finding = incident.finding
    call = incident.call or ""
    yield "incident", stored.id
    yield "verdict", f"{finding.id} ({finding.confidence})"
    yield "phase", incident.phase or ""
    yield "call", f"{call} to {incident.peer}" if call and incident.peer else call
    yield "began", when(incident.began)
    yield "ended", ending(incident)
    yield "silence", f"{incident.silence_s:.0f} s"
    yield "waiting", "" if incident.waiting is None else f"{incident.waiting} task instances"
    for number, deed in enumerate(incident.actions):
        how = f" ({deed.lever})" if deed.lever else ""
        yield (
            "" if number else "actions",
            f"at {deed.at_s:.0f} s: {deed.deed}{how}: {deed.outcome or 'outcome not known'}",
        )
    yield "fingerprint", stored.fingerprint or ""
    yield "files", ", ".join([str(stored.path), *stored.others()])
    yield "cut", "the report was cut to fit" if incident.truncated else ""

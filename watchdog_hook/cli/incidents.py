"""The verbs incidents and show."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from watchdog_hook.cli import FINE, PROBLEM, UsageError, store
from watchdog_hook.core import report

if TYPE_CHECKING:
    from watchdog_hook.cli.store import Stored
    from watchdog_hook.core.model import Incident

# A thread's name comes from outside: on a terminal it must not move the cursor.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def directory(given: str | None) -> Path:
    """Return the incident directory: the given one, or the one of Airflow's configuration."""
    if given is not None:
        if not os.path.isdir(given):
            raise UsageError(f"{given} is no directory")
        return Path(given)
    from watchdog_hook.integrations.airflow.settings import read

    with stdout_is_stderr():
        configured = read().config.incident_dir
    if configured is None:
        raise UsageError("Airflow's configuration cannot be read here: say --incident-dir DIR")
    return Path(configured)


@contextlib.contextmanager
def stdout_is_stderr() -> Iterator[None]:
    """Send what Airflow and its plugins print while they load to standard error, not into our JSON."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def show_all(directory: Path, *, as_json: bool) -> int:
    """Print one line for each incident. Return 1 if one of them is damaged."""
    try:
        found = list(store.load_all(directory))
    except FileNotFoundError:
        found = []
    except OSError as error:
        raise UsageError(f"{directory} cannot be read ({error.strerror})") from None
    if as_json:
        print(json.dumps([_row(stored) for stored in found], indent=2))
    elif not found:
        print(f"No incidents in {directory}.")
    else:
        make_console().print(_table(found))
    for stored in found:
        for damage in stored.damage:
            print(f"{stored.id}: {damage}", file=sys.stderr)
    return PROBLEM if any(stored.damage for stored in found) else FINE


def show_one(directory: Path, asked: str, *, as_json: bool) -> int:
    """Print an incident. Return 1 if something of it could not be read."""
    try:
        matches = store.matching(directory, asked)
    except OSError as error:
        raise UsageError(f"{directory} cannot be read ({error.strerror})") from None
    if not matches:
        raise UsageError(
            f"no incident {asked!r} in {directory}: `watchdog-hook incidents` lists them"
        )
    if len(matches) > 1:
        raise UsageError(f"{asked!r} may mean any of {', '.join(matches)}")
    stored = store.load(directory / matches[0])
    text, why = store.dump_text(stored)
    damage = [*stored.damage, *([why] if why else [])]
    if as_json:
        whole = stored.data if stored.data is not None else {"id": stored.id}
        print(json.dumps({**whole, "damage": damage} if damage else whole, indent=2))
    else:
        _print_incident(stored, text)
    for each in damage:
        print(f"{stored.id}: {each}", file=sys.stderr)
    return PROBLEM if damage else FINE


def _print_incident(stored: Stored, text: str | None) -> None:
    incident = stored.incident
    if incident is not None:
        make_console().print(_summary(stored, incident))
        print()
        if text is None:
            text = report.render(incident, limit=None)
    if text is not None:
        if sys.stdout.isatty():
            text = CONTROL.sub(lambda found: repr(found[0])[1:-1], text)
        sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


def _summary(stored: Stored, incident: Incident) -> Table:
    """Return what dump.txt may not know yet: how it went on."""
    rows = {
        "incident": stored.id,
        "began": _when(incident.began),
        "ended": _when(incident.ended) if incident.ended else "not seen",
        "silence": f"{incident.silence_s:.0f} s",
        "verdict": f"{incident.finding.id} ({incident.finding.confidence})",
        "waiting": "" if incident.waiting is None else f"{incident.waiting} task instances",
        "files": ", ".join(store_file for store_file in stored.others()),
        "cut": "the report was cut to fit" if incident.truncated else "",
    }
    for number, deed in enumerate(incident.actions):
        how = f" ({deed.lever})" if deed.lever else ""
        rows["actions" if number == 0 else " " * number] = (
            f"at {deed.at_s:.0f} s: {deed.deed}{how}: {deed.outcome or 'outcome not known'}"
        )
    grid = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        if value:
            grid.add_row(Text(name.strip(), "bold"), Text(CONTROL.sub("?", value)))
    return grid


def _table(found: list[Stored]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("id", "began", "silence", "phase", "call", "verdict", "ended"):
        table.add_column(column, no_wrap=column == "id", overflow="fold")
    for stored in found:
        incident = stored.incident
        if incident is None:
            table.add_row(stored.id, "", "", "", "", Text("damaged", "red"), "")
            continue
        cells = (
            stored.id,
            _when(incident.began),
            f"{incident.silence_s:.0f} s",
            incident.phase or "",
            incident.call or "",
            incident.finding.id,
            _when(incident.ended) if incident.ended else "not seen",
        )
        table.add_row(*(Text(CONTROL.sub("?", cell)) for cell in cells))
    return table


def _row(stored: Stored) -> dict[str, Any]:
    data = stored.data or {}
    verdict = data.get("verdict")
    return {
        "id": stored.id,
        "path": str(stored.path),
        **{key: data.get(key) for key in ("began", "ended", "silence_s", "phase", "call", "peer")},
        "verdict": verdict.get("id") if isinstance(verdict, dict) else None,
        "damage": list(stored.damage),
    }


def _when(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S}Z"
    except (OverflowError, ValueError, OSError):
        return "?"


def make_console() -> Console:
    """Return the console of standard output."""
    # A pipe has no width: rich would fold a table at 80 columns, and no program could read it.
    return Console(width=None if sys.stdout.isatty() else 240, highlight=False)

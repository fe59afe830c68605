"""The verb incidents: those of one kind together, or each by itself."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from watchdog_hook.cli import FINE, PROBLEM, UsageError, store
from watchdog_hook.cli.console import make_console, stdout_is_stderr, visible
from watchdog_hook.cli.wording import ending, when
from watchdog_hook.core.owner import is_own
from watchdog_hook.core.text import clean, frame_text

if TYPE_CHECKING:
    from watchdog_hook.cli.store import Stored


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


@dataclass(frozen=True)
class Group:
    """Incidents of one fingerprint, the oldest first; those without one are together as damaged."""

    fingerprint: str | None
    found: tuple[Stored, ...]

    @property
    def last(self) -> Stored:
        return self.found[-1]

    def heading(self) -> str:
        """Return the verdict, and the phase if there is one."""
        incident = self.last.incident
        if self.fingerprint is None or incident is None:
            return "damaged: verdict or stack cannot be read"
        return incident.finding.id + (f" in {incident.phase}" if incident.phase else "")

    def times(self) -> str:
        """Return how often, since when, and for how long each time."""
        known = [each.incident for each in self.found if each.incident is not None]
        began = min((each.began for each in known if each.began), default=None)
        silences = [f"{each.silence_s:.0f}" for each in known]
        text = "once" if len(self.found) == 1 else f"{len(self.found)} times"
        if began is not None:
            text += ", " if len(self.found) == 1 else " since "
            text += when(began, "%a %Y-%m-%d")
        if silences:
            least, most = min(silences, key=int), max(silences, key=int)
            text += f", {least} s" if least == most else f", {least}-{most} s"
        return text

    def place(self) -> str | None:
        """Return the innermost frame of the caller's own code."""
        incident = self.last.incident
        threads = incident.snapshot.threads if incident is not None else ()
        return next(
            (frame_text(f) for f in (threads[0].frames if threads else ()) if is_own(f)), None
        )


def grouped(found: Iterable[Stored]) -> list[Group]:
    """Return incidents by their fingerprint, the group with the newest one last."""
    groups: dict[str | None, list[Stored]] = {}
    for stored in found:
        # Put behind the others again: a group stands where its newest incident does.
        groups[stored.fingerprint] = [*groups.pop(stored.fingerprint, []), stored]
    return [Group(key, tuple(members)) for key, members in groups.items()]


def show_all(directory: Path, *, each: bool, as_json: bool) -> int:
    """Print the incidents in groups, or `each` in a line. Return 1 if one of them is damaged."""
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
    elif each:
        make_console().print(_table(found))
    else:
        _print_groups(grouped(found))
    for stored in found:
        for damage in stored.damage:
            print(visible(f"{stored.id}: {damage}"), file=sys.stderr)
    return PROBLEM if any(stored.damage for stored in found) else FINE


def find(directory: Path, asked: str) -> Stored:
    """Return the one incident that `asked` means: its id, the beginning of its id, or latest."""
    try:
        matches = store.matching(directory, asked)
    except OSError as error:
        raise UsageError(f"{directory} cannot be read ({error.strerror})") from None
    if not matches:
        raise UsageError(
            f"no incident {asked!r} in {directory}: `watchdog-hook incidents --all` lists them"
        )
    if len(matches) > 1:
        raise UsageError(f"{asked!r} may mean any of {', '.join(matches)}")
    return store.load(directory / matches[0])


def _print_groups(groups: list[Group]) -> None:
    console = make_console()
    for number, group in enumerate(groups):
        if number:
            console.print()
        style = "bold" if group.fingerprint else "bold red"
        lines = [Text(clean(group.heading()), style), Text(f"  {group.times()}")]
        if group.fingerprint and (place := group.place()):
            lines.append(Text(f"  at    {place}"))
        last = group.last.incident
        died = ", ended with its process" if last is not None and last.process_ended else ""
        lines.append(Text(f"  last  {visible(group.last.id)}{died}"))
        for line in lines:
            console.print(line, soft_wrap=True)


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
            when(incident.began),
            f"{incident.silence_s:.0f} s",
            incident.phase or "",
            incident.call or "",
            incident.finding.id,
            "with its process" if incident.process_ended else ending(incident),
        )
        table.add_row(*(Text(clean(cell)) for cell in cells))
    return table


def _row(stored: Stored) -> dict[str, Any]:
    data = stored.data or {}
    verdict = data.get("verdict")
    return {
        "id": stored.id,
        "path": str(stored.path),
        **{key: data.get(key) for key in ("began", "ended", "silence_s", "phase", "call", "peer")},
        "verdict": verdict.get("id") if isinstance(verdict, dict) else None,
        "process_ended": stored.incident is not None and stored.incident.process_ended,
        "fingerprint": stored.fingerprint,
        "damage": list(stored.damage),
    }

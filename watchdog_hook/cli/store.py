"""The incident directory, read. A damaged incident gives what can be read, and says what cannot."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from watchdog_hook.core import report

if TYPE_CHECKING:
    from watchdog_hook.core.model import Incident

NAME = re.compile(r"\d{8}T\d{6}Z-.+-\d+-\d+")
SCHEMA = 1
NEEDED = ("id", "began", "verdict", "threads")


@dataclass(frozen=True)
class Stored:
    """One incident as its files tell it."""

    path: Path
    data: dict[str, Any] | None
    incident: Incident | None
    damage: tuple[str, ...]

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def fingerprint(self) -> str | None:
        """
        What stalls of one kind in one place share; None where verdict or stack cannot be read.

        Reckoned anew: what an earlier release wrote into the file may have been reckoned in another way.
        """
        if self.incident is None or self.incident.finding.id == "?":
            return None
        return report.fingerprint(self.incident) if self.incident.snapshot.threads else None

    def others(self) -> tuple[str, ...]:
        """Return the names of the further files: faulthandler.txt, py-spy.txt."""
        try:
            names = sorted(os.listdir(self.path))
        except OSError:
            return ()
        return tuple(name for name in names if name not in ("incident.json", "dump.txt"))


def names(directory: Path) -> list[str]:
    """Return the ids of the incidents in a directory, the oldest first. Raises OSError."""
    return sorted(each.name for each in os.scandir(directory) if NAME.fullmatch(each.name))


def matching(directory: Path, asked: str) -> list[str]:
    """Return the ids that `asked` may mean: one id, the beginning of some, or the latest."""
    known = names(directory)
    if asked == "latest":
        return known[-1:]
    if asked in known:
        return [asked]
    return [name for name in known if name.startswith(asked)]


def load_all(directory: Path) -> Iterator[Stored]:
    """Read every incident of a directory, the oldest first."""
    for name in names(directory):
        yield load(directory / name)


def load(path: Path) -> Stored:
    """Read an incident. Never raises for what its files hold."""
    try:
        data = json.loads((path / "incident.json").read_bytes())
    except OSError as error:
        return Stored(path, None, None, (f"incident.json cannot be read ({error.strerror})",))
    except (ValueError, RecursionError) as error:
        return Stored(path, None, None, (f"incident.json is not JSON ({error})",))
    if not isinstance(data, dict):
        return Stored(path, None, None, ("incident.json holds no object",))
    damage = [f"incident.json has no {key}" for key in NEEDED if data.get(key) is None]
    if data.get("schema") != SCHEMA:
        damage.append(
            f"incident.json is of schema {data.get('schema')!r}, this program reads {SCHEMA}"
        )
    try:
        return Stored(path, data, report.from_json(data), tuple(damage))
    except Exception as error:  # noqa: BLE001 - a damaged file may hold anything
        return Stored(
            path, data, None, (*damage, f"incident.json cannot be understood ({error!r})")
        )


def dump_text(stored: Stored) -> tuple[str | None, str | None]:
    """Return dump.txt as it is, and why it could not be read if so."""
    return file_text(stored, "dump.txt")


def file_text(stored: Stored, name: str) -> tuple[str | None, str | None]:
    """Return one of an incident's files as it is, and why it could not be read if so."""
    try:
        return (stored.path / name).read_text("utf-8", "replace"), None
    except OSError as error:
        return None, f"{name} cannot be read ({error.strerror})"

"""The directory of all incidents, of many hosts perhaps: where it is, which are ours, which of these go."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Set
from pathlib import Path

ENTRIES_READ = 10_000  # of the directory: it may be shared by many hosts


def host_in_ids(host: str | None = None) -> str:
    """Return a host's name, or ours, as ids of incidents have it."""
    return re.sub(r"[^A-Za-z0-9.-]", "_", host or socket.gethostname()) or "localhost"


def ids_of(host: str) -> re.Pattern[str]:
    """Return what ids of a host's incidents look like."""
    return re.compile(rf"\d{{8}}T\d{{6}}Z-{re.escape(host)}-\d+-\d+")


def incident_directory(chosen: str | None) -> str:
    """Return where incidents are written: where it was chosen, or below the directory for temporary files."""
    return chosen or os.path.join(tempfile.gettempdir(), "watchdog_hook")


def newest(directory: Path, mine: re.Pattern[str], most: int) -> list[str]:
    """Return the ids of the newest incidents of ours, the newest first. May hang; raises OSError."""
    with os.scandir(directory) as entries:
        found = [
            entry.name
            for entry in itertools.islice(entries, ENTRIES_READ)
            if mine.fullmatch(entry.name)
        ]
    return sorted(found, reverse=True)[:most]


def prune(
    directory: Path, mine: re.Pattern[str], still_open: Set[str], retention: int, max_bytes: float
) -> None:
    """
    Remove the oldest incidents of ours beyond number or size; never one that is open. Raises OSError.

    What cannot be removed stays. Another process may remove the same ones meanwhile.
    """
    with os.scandir(directory) as entries:
        kept = sorted(
            (
                (_changed(entry), entry.name)
                for entry in entries
                if mine.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
            ),
            key=lambda pair: (pair[1].partition("-")[0], pair[0]),
        )
    names = [name for _, name in kept]
    sizes = {name: _size(directory / name) for name in names}
    count, total = len(names), sum(sizes.values())
    for name in names:
        if count <= retention and total <= max_bytes:
            break
        if name not in still_open:
            # Safe against links: rmtree opens each folder and removes what is in it by name.
            shutil.rmtree(directory / name, ignore_errors=True)
            count, total = count - 1, total - sizes[name]


def _changed(entry: os.DirEntry[str]) -> float:
    try:
        return entry.stat(follow_symlinks=False).st_mtime
    except OSError:  # gone meanwhile
        return 0.0


def _size(folder: Path) -> int:
    try:
        with os.scandir(folder) as entries:
            return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
    except OSError:
        return 0

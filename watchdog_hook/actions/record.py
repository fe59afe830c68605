"""The incident's files: a folder of its own for each, in a directory that stays within its bounds."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from watchdog_hook.actions import files
from watchdog_hook.actions.directory import host_in_ids, ids_of, newest, prune
from watchdog_hook.actions.failures import Failures
from watchdog_hook.core import report, speedscope
from watchdog_hook.errand import Errands

if TYPE_CHECKING:
    from watchdog_hook.core.model import Incident

DISK_PATIENCE = (
    10.0  # seconds for all files of a dump; a disk may hang, and nobody may hang with it
)
ALL = "incident files"
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - its files are on no disk (man shm_overview)


# Ids of this process, for a process may have two watchdogs.
_given: set[tuple[Path, str]] = set()


class Recorder:
    """
    Writes incidents. Nothing here raises: what failed is kept as a sentence for `trouble`, once.

    Folders are 0700, files 0600; no symbolic link is followed, no file of another host's incident touched.
    """

    def __init__(
        self,
        incident_dir: str | os.PathLike[str],
        retention: int = 50,
        max_mb: float = 200,
        *,
        host: str | None = None,
        mask: Callable[[str], str] | None = None,
    ) -> None:
        self._dir = Path(incident_dir)
        self._retention = retention
        self._max_bytes = max_mb * 1_000_000
        self._host = host_in_ids(host)
        self._mask = mask or str
        self._mine = ids_of(self._host)
        self._errands = Errands("watchdog-hook-disk", DISK_PATIENCE)
        self._failures = Failures()
        self._count = 0
        self._open: set[str] = set()
        self._missing: set[str] = set()

    def new_id(self, wall: float) -> str:
        """Return the id of a new incident, which is also its folder's name."""
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall))
        while True:
            self._count += 1
            found = f"{moment}-{self._host}-{os.getpid()}-{self._count}"
            if (self._dir, found) not in _given:
                _given.add((self._dir, found))
                return found

    def path(self, incident_id: str) -> Path:
        """Return where an incident's files are, or would be."""
        return self._dir / incident_id

    def write(self, incident: Incident, text: str) -> Path | None:
        """Write the files of an incident's first dump; return their folder, None when there is none."""
        self._open.add(incident.id)
        done: list[Path] = []
        self._do(lambda: self._write(incident, text, done))
        if not done:
            self._missing.add(incident.id)
        return done[0] if done else None

    def update(self, incident: Incident, delta: str = "") -> None:
        """Bring `incident.json` up to date, and append what changed to `dump.txt`."""
        if incident.id not in self._missing:  # said when it could not be written
            self._do(lambda: self._update(incident, delta))
        if incident.ended is not None:
            self._open.discard(incident.id)

    def trouble(self) -> str | None:
        """Return what went wrong since the last time this was asked, each kind once; None for nothing new."""
        return self._failures.news(self._dir)

    def working(self) -> bool:
        """Say whether files are being written."""
        return self._errands.working()

    def reset_after_fork(self) -> None:
        """In a forked child: forget the parent's thread, lock and open incidents."""
        self._errands.reset_after_fork()
        self._open = set()

    def _do(self, errand: Callable[[], None]) -> None:
        if not self._errands.send(lambda: self._failures.attempt(ALL, errand)):
            late = f"the disk has not answered for {DISK_PATIENCE:.0f} s"
            self._failures.add(
                ALL, late if self._errands.away() else "no thread can be started for that"
            )

    def _write(self, incident: Incident, text: str, done: list[Path]) -> None:
        self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = self.path(incident.id)
        folder.mkdir(mode=0o700)
        with files.opened(folder) as fd:
            written = [
                self._attempt_file(fd, "dump.txt", lambda file: files.put(file, [text, "\n"])),
                self._attempt_file(
                    fd, "incident.json", lambda file: files.put(file, self._json(incident))
                ),
                self._attempt_file(fd, "faulthandler.txt", _dump_by_faulthandler),
                *self._flame_graph(fd, incident),
            ]
        if any(written):
            done.append(folder)
        else:
            folder.rmdir()
        bounds = self._retention, self._max_bytes
        self._failures.attempt(
            "old incidents", lambda: prune(self._dir, self._mine, self._open, *bounds), "removed"
        )

    def _update(self, incident: Incident, delta: str) -> None:
        with files.opened(self.path(incident.id)) as fd:
            if delta:
                self._failures.attempt("dump.txt", lambda: files.append(fd, "dump.txt", delta))
            self._replace_json(fd, self._json(incident))

    def of_this_host(self, most: int) -> list[str]:
        """Return the ids of this host's newest incidents, the newest first. May hang; raises OSError."""
        return newest(self._dir, self._mine, most)

    def rewrite(self, incident_id: str, data: Mapping[str, Any]) -> None:
        """Put other content into an `incident.json`, masked already. May hang; raises OSError."""
        with files.opened(self.path(incident_id)) as fd:
            self._replace_json(fd, report.json_chunks(data))

    def _replace_json(self, folder: int, chunks: Iterable[str]) -> None:
        """Write `incident.json` anew: a reader sees the old file or the new one, never half of one."""
        temporary = ".incident.json.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        if self._attempt_file(folder, temporary, lambda file: files.put(file, chunks)):
            os.replace(temporary, "incident.json", src_dir_fd=folder, dst_dir_fd=folder)

    def _attempt_file(self, folder: int, name: str, fill: Callable[[int], None]) -> bool:
        """Make a new file, and return whether it could be written."""
        what = name.removeprefix(".").removesuffix(".new")
        return self._failures.attempt(what, lambda: files.make(folder, name, fill))

    def _flame_graph(self, folder: int, incident: Incident) -> list[bool]:
        """Write `speedscope.json` where there are samples. Of the first dump alone: the later ones bring none."""
        if not incident.snapshot.samples:
            return []
        pieces = (self._mask(piece) for piece in speedscope.chunks(incident))
        return [self._attempt_file(folder, "speedscope.json", lambda file: files.put(file, pieces))]

    def _json(self, incident: Incident) -> Iterable[str]:
        return (self._mask(chunk) for chunk in report.json_chunks(report.to_json(incident)))


def _dump_by_faulthandler(file: int) -> None:
    # It does not let go of the interpreter while it writes. Into memory, so that a disk that is slow or does not
    # answer holds up this thread only.
    with _memory() as memory:
        faulthandler.dump_traceback(file=memory.fileno(), all_threads=True)
        memory.seek(0)
        while piece := memory.read(64 * 1024):
            files.write_all(file, piece)


def _memory() -> IO[bytes]:
    """Return a file in memory that nobody else sees. Raises ValueError where there can be none."""
    try:
        return os.fdopen(os.memfd_create("faulthandler"), "w+b", buffering=0)
    except (AttributeError, OSError):
        # Python was built without it, or a seccomp profile refuses it.
        try:
            return tempfile.TemporaryFile(dir=SHARED_MEMORY, buffering=0)
        except OSError as error:
            why = f"{SHARED_MEMORY}: {error.strerror}"
            raise ValueError(f"no memory is to be had, by memfd_create or in {why}") from error

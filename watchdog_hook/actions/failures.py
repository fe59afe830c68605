"""What of an incident's files could not be written or removed, in sentences, each kind once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


class Failures:
    """Gathers them, from any thread."""

    def __init__(self) -> None:
        # Of what, what cannot be done with it, and why.
        self._told: set[tuple[str, str, str]] = set()
        self._new: list[tuple[str, str, str]] = []

    def attempt(self, what: str, errand: Callable[[], None], done: str = "written") -> bool:
        """Do it, and return whether it could be done; what is wrong with a file or a value is kept."""
        try:
            errand()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            self.add(what, why, done)
            return False
        return True

    def add(self, what: str, why: str, done: str = "written") -> None:
        """Keep one, unless it has been kept before."""
        if (what, done, why) not in self._told:
            self._told.add((what, done, why))
            self._new.append((what, done, why))

    def news(self, directory: Path) -> str | None:
        """Return what went wrong since the last time this was asked; None for nothing new."""
        new, self._new = self._new, []
        found: dict[tuple[str, str], list[str]] = {}
        for what, done, why in new:
            found.setdefault((done, why), []).append(what)
        parts = [
            f"{', '.join(what)} cannot be {done} under {directory}: {why}"
            for (done, why), what in found.items()
        ]
        return (
            f"{'; '.join(parts)}. Dumps still go to the log and to standard error"
            if parts
            else None
        )

"""Executors that get nowhere while the loop turns: begun and ended as incidents of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchdog_hook.core import progress

if TYPE_CHECKING:
    from watchdog_hook.incidents import Episode, Incidents
    from watchdog_hook.ports import Host


class Standstills:
    """Asks the host's executors now and then whether anything comes of their work."""

    def __init__(self, incidents: Incidents, host: Host) -> None:
        self._incidents = incidents
        self._host = host
        self._known: tuple[progress.Standstill, ...] = ()
        # Of those that were told, by executor.
        self._told: dict[str, tuple[Episode, float]] = {}

    def look(self, now: float, thread: int, where: str | None, *, silent: bool) -> None:
        """Look once. `silent`: so is the loop, which is told already, or a server is left alone."""
        executors = () if silent else self._host.executors()
        self._known, new = progress.watch(self._known, executors, now)
        for standstill in new:
            lasted = now - standstill.since
            episode = self._incidents.begin(thread, lasted, where)
            self._incidents.dump(episode, lasted, None, (), how="turning")
            self._told[standstill.name] = episode, standstill.since
        for name in set(self._told) - {standstill.name for standstill in self._known}:
            episode, since = self._told.pop(name)
            self._incidents.end(episode, now - since)

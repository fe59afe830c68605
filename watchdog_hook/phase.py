"""Where the loop is, marked by a with statement."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watchdog_hook.watchdog import Watchdog


class Phase:
    """Marks where the loop is, for the time of a with statement. Nests."""

    __slots__ = ("_before", "_dog", "name", "outer", "started")

    def __init__(self, dog: Watchdog, name: str) -> None:
        self._dog = dog
        self.name = name

    def __enter__(self) -> None:
        dog = self._dog
        recorder = dog.recorder
        self._before, self.outer = dog.where, recorder.inside
        self.started = recorder.now()
        dog.where, recorder.inside = self.name, self

    def __exit__(self, *_: object) -> None:
        dog = self._dog
        recorder = dog.recorder
        dog.where, recorder.inside = self._before, self.outer
        recorder.phases.append((self.name, self.started, recorder.now()))

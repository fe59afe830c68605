"""Collectors with a time limit: one that hangs is named, costs one thread, and holds up no other."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, TypeVar

from watchdog_hook.errand import Errands
from watchdog_hook.evidence.stacks import OURS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

PATIENCE = 1.0  # seconds for one collector
SOON = 0.0002  # seconds


@contextlib.contextmanager
def short_turns() -> Iterator[None]:
    """
    Have threads take short turns at the interpreter, for the time of a with statement.

    Each look at a file lets the interpreter go. Beside a thread that computes it is had back after a turn, which
    is 5 ms long as a rule: for the files of 200 children that made a second.
    """
    usual = sys.getswitchinterval()
    sys.setswitchinterval(min(usual, SOON))
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


class Limited:
    """
    Runs each collector on a daemon thread of its own, and waits for it for `patience` seconds.

    A collector that did not come back is lost: its thread stays, nobody waits for it, and until it returns
    after all it is not started again. What went wrong is in `missed`, under the collector's name.
    """

    def __init__(self, missed: dict[str, str], patience: float = PATIENCE) -> None:
        self._missed = missed
        self._patience = patience
        self._late = f"did not answer within {patience:g} s"
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Forget the threads and the locks of the parent. Takes no lock."""
        self._errands: dict[str, Errands] = {}

    def run(self, name: str, collect: Callable[[], T]) -> T | None:
        """Return what a collector returns; None when it did not come back in time, or failed. Never raises."""
        errands = self._errands.setdefault(name, Errands(OURS + name, self._patience))
        results: list[T] = []
        errors: list[str] = []

        def work() -> None:
            try:
                results.append(collect())
            except Exception as error:  # noqa: BLE001 - whatever it is, the other collectors go on
                errors.append(f"failed with {type(error).__name__}")

        errands.send(work)
        if results:
            self._missed.pop(name, None)
            return results[0]
        if errors:
            self._missed[name] = errors[0]
        elif errands.away():
            self._missed[name] = self._late
        else:
            self._missed[name] = "no thread could be started for it"
        return None

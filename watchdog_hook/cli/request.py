"""A dump that a process's own hook is asked for, through its pulse."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from watchdog_hook.cli.console import visible
from watchdog_hook.sentinel import pulse as places

if TYPE_CHECKING:
    from watchdog_hook.cli.pulses import Watched

PATIENCE = (
    45.0  # seconds for a hook that looks: its disk may have ten, the log two, the database four
)
LATE = 15.0  # seconds without a look after which the hook is not waited for
LEAST = 5.0  # seconds it is waited for at least
PAUSE = 0.05


class Unanswered(Exception):  # noqa: N818 - it is an answer
    """The hook does not make the dump. Says why."""


class Request:
    """
    A dump that is asked of a process's hook from now on.

    The request is a number in the shared memory, which the hook sees at its next look. No signal is sent.
    """

    def __init__(self, one: Watched) -> None:
        self.one = one
        words = one.pulse.words
        self._before = before = words[places.ANSWERED]
        words[places.REQUEST] = _other_than(before, words[places.REQUEST])
        self._began = time.monotonic()

    def answer(self) -> tuple[str, str]:
        """Wait for the hook to make the dump; return the incident's id and its path there. Raises Unanswered."""
        one, began, before = self.one, self._began, self._before
        numbers, words = one.pulse.numbers, one.pulse.words
        told = False
        while words[places.ANSWERED] == before:
            now = time.monotonic()
            if not one.running:
                raise Unanswered(f"{one.name} has ended, or is not watched any more")
            late = now - max(numbers[places.TICK_AT], min(began, one.pulse.beat_at))
            if now - began >= LEAST and late >= LATE:
                raise Unanswered(f"the hook of {one.name} has not looked for {late:.0f} s")
            if now - began >= PATIENCE:
                raise Unanswered(
                    f"the hook of {one.name} looks, and has not answered within {PATIENCE:.0f} s"
                )
            if not told and now - began >= 0.3 and sys.stderr.isatty():
                told = True
                say(f"asked {one.name} for a dump; its hook looks every three seconds ...")
            time.sleep(PAUSE)
        while (text := one.pulse.read(places.ANSWER)) is None:  # the next answer is being written
            if time.monotonic() - began >= PATIENCE:
                raise Unanswered(f"the hook of {one.name} has stopped in the middle of its answer")
            time.sleep(PAUSE)
        incident, _, path = text.partition("\n")
        return incident, path


def _other_than(*numbers: int) -> int:
    number = time.monotonic_ns()
    while number in numbers:
        number += 1
    return number


def say(text: str) -> None:
    """Say something beside the output."""
    print(visible(text), file=sys.stderr, flush=True)

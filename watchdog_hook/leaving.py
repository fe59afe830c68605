"""How the process comes to its end: told to by a signal, wanted by the loop, or stalled for too long."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from watchdog_hook.core.model import Deed
from watchdog_hook.core.report import log_line

if TYPE_CHECKING:
    from watchdog_hook.core.stall import State
    from watchdog_hook.ports import Actions
    from watchdog_hook.stalls import Stalls
    from watchdog_hook.watchdog import Watchdog

PATIENCE = 15.0  # seconds for the watchdog's thread to say its last words and end the process


class Leaving:
    """Says what there is to say before the process ends, and ends it."""

    def __init__(self, dog: Watchdog, actions: Actions, stalls: Stalls) -> None:
        self._dog = dog
        self._actions = actions
        self._stalls = stalls
        self.told: tuple[int, float] | None = None  # by which signal to end, and when
        self._heard: tuple[int, float] | None = None  # that one, once it was seen to
        self.wanted: str | None = None  # why the watched loop wants the process to end

    def wait_for_end(self, why: str) -> None:
        """Want the process to end at the watchdog's next look, and end it here where that does not come."""
        self.wanted = why
        dog = self._dog
        until = dog.now + PATIENCE
        while dog.now < until:
            dog.settle(dog.config.poll_interval)
        self._actions.terminate()

    def hear(self, state: State) -> None:
        """Say what is known of a stall in which the process is told to end: it may not come to more."""
        told, episode = self.told, self._stalls.episode
        if told is None or told is self._heard:
            return
        self._heard = told
        if episode is not None:
            name, silence = signal_name(told[0]), state.silence(told[1])
            deed = Deed(silence, "told to end", None, name)
            self._dog.incidents.last_words(episode, "told_to_end", deed, signal=name)

    def end(self, silence: float, why: str | None = None) -> None:
        """End the process with code 75, after the last words. `why`: the loop's own reason."""
        dog = self._dog
        about = {"action": "exit", "outcome": why, "exit_code": 75}
        # With a reason of its own there need be no stall.
        episode = self._stalls.episode or (None if why else self._stalls.open(silence))
        if episode is None:
            line = log_line("terminate", phase=dog.where, **about, component=dog.host.component)
            self._actions.urgent(line)
            self._actions.say("ERROR", line, wait=True)
        else:
            deed = Deed(silence, "terminate", None, "exit code 75")
            last_words = dog.incidents.last_words
            dog.fail.run("last words", last_words, episode, "terminate", deed, **about)
        self._actions.terminate()


def signal_name(number: int) -> str:
    """Return what a signal is called: SIGTERM."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

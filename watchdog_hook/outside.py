"""What the watchdog leaves for those who look from outside: its pulse, and what it knows of a stall."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchdog_hook.core.text import SENTENCE, clean
from watchdog_hook.failopen import Unavailable
from watchdog_hook.sentinel import pulse as places
from watchdog_hook.sentinel.pulse import Pulse

if TYPE_CHECKING:
    from watchdog_hook.config import Config
    from watchdog_hook.core.model import Incident

LOOKS = 4  # that have to be missing before the silence of the watchdog's thread means anything
ALONE = (
    "there is no sentinel and no backstop, and from outside (`watchdog-hook live`, `dump`) this loop looks as if"
    " nobody watched it"
)


class Outside:
    """The pulse of one watchdog: private until it is shown, and again in a forked child."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.pulse = Pulse.private()
        # Seconds without a tick that mean something: our thread rests between its looks, and they take time.
        self.after = max(config.backstop_after, LOOKS * config.poll_interval)
        self.woke = 0.0  # when the watchdog's thread came back from its last long silence

    def show(self, loop: int, now: float) -> None:
        """
        Let other processes see it from now on. `loop`: id of the loop's thread, as the kernel has it.

        Raises Unavailable where there is no memory of that kind.
        """
        try:
            pulse = Pulse.shared()
        except (AttributeError, OSError) as error:  # Python was built without it, or it is refused
            raise Unavailable(f"no memory can be shared ({error}): {ALONE}") from error
        config = self._config
        pulse.numbers[:] = self.pulse.numbers
        # Should the watchdog never come to look.
        pulse.numbers[places.BEAT_AT] = pulse.numbers[places.TICK_AT] = now
        pulse.numbers[places.DUMP_AFTER] = config.dump_after
        pulse.numbers[places.BACKSTOP_AFTER] = self.after
        pulse.numbers[places.TERMINATE_AFTER] = config.terminate_after
        pulse.words[places.LOOP] = loop
        self.pulse = pulse

    def name(self, component: str | None, loop: str | None) -> None:
        """Say whose pulse this is, for a process may have several. Called once it is shown."""
        named = {"component": component, "loop": loop}
        lines = (f"{key}={clean(value)}" for key, value in named.items() if value)
        self.pulse.write(places.WHOSE, "\n".join(lines))

    def is_lost(self, holder: int) -> bool:
        """
        Tell, once, that the host has closed the pulse for good.

        `holder`: a process that has it as well, through which it is opened again; 0 for none.
        """
        pulse = self.pulse
        if not pulse.is_lost() or (holder and pulse.take_again(holder)):
            return False
        pulse.close()
        return True

    def hide(self) -> None:
        """Say that nobody is watched any more."""
        self.pulse.words[places.MARK] = 0
        self.pulse.close()

    def forget(self) -> None:
        """In a forked child: leave the parent's pulse alone. Takes no lock."""
        # It is kept: the mapping closes a descriptor of its own where it ends, and that may be another's by now.
        self._inherited, self.pulse = self.pulse, Pulse.private()
        self._inherited.close()

    def runs_as(self, watchdog: int) -> None:
        """Note which thread the watchdog is, as the kernel has it."""
        self.pulse.words[places.WATCHDOG] = watchdog

    def tick(self, now: float, beat_at: float, *, excused: float = 0.0, grace: float = 0.0) -> None:
        """Say that the watchdog is at work, and which seconds of the silence are none, or are allowed."""
        numbers = self.pulse.numbers
        numbers[places.BEAT_AT] = beat_at
        if now - numbers[places.TICK_AT] > self.after / 2:
            self.woke = now
        numbers[places.EXCUSED] = excused
        numbers[places.GRACE] = grace
        numbers[places.TICK_AT] = now

    def tell(self, incident: Incident | None, path: str = "") -> None:
        """Leave what is known of the loop's stall, or that there is none."""
        known = (
            {}
            if incident is None
            else {
                "phase": incident.phase or "",
                "incident": incident.id,
                "path": path,
                "verdict": incident.finding.id,
                "sentence": incident.finding.sentence,
            }
        )
        lines = (f"{key}={clean(value, SENTENCE)}" for key, value in known.items())
        self.pulse.write(places.STATE, "\n".join(lines))

    def asked(self) -> int | None:
        """Return the number of a request for a dump that has not been answered; None for no request."""
        words = self.pulse.words
        request = words[places.REQUEST]
        return None if request == words[places.ANSWERED] else request

    def answer(self, request: int, incident: str, path: str) -> None:
        """Say which incident answers a request, and where its files are."""
        self.pulse.write(places.ANSWER, f"{incident}\n{path}")
        self.pulse.words[places.ANSWERED] = request

"""The dump that somebody asks for from outside: `watchdog-hook dump`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchdog_hook.core.model import Deed

if TYPE_CHECKING:
    from watchdog_hook.core.stall import State
    from watchdog_hook.incidents import Episode
    from watchdog_hook.lateness import Lateness
    from watchdog_hook.sampler import Sampler
    from watchdog_hook.watchdog import Watchdog

ASKED_AGAIN = 5.0  # seconds in which a dump answers the next who asks, too


class OnDemand:
    """Answers requests for a dump. Each is an incident of its own, and no stall."""

    def __init__(self, dog: Watchdog, sampler: Sampler, lateness: Lateness) -> None:
        self._dog = dog
        self._sampler = sampler
        self._lateness = lateness
        # When a dump was last asked for, whether the loop was stalled then, and the dump.
        self._last: tuple[float, bool, Episode] | None = None

    def look(self, now: float, state: State) -> None:
        """Answer what has been asked since the last look."""
        request = self._dog.outside.asked()
        if request is None:
            return
        last = self._last
        if last is None or now - last[0] >= ASKED_AGAIN or state.stalled != last[1]:
            self._last = last = now, state.stalled, self._dumped(state.silence(now), state)
        episode = last[2]
        self._dog.outside.answer(request, episode.incident.id, episode.path)

    def _dumped(self, silence: float, state: State) -> Episode:
        dog = self._dog
        moving = state.moving or state.slow
        episode = dog.incidents.begin(dog.ident, silence, dog.where)
        # A share of the processor in less than that says nothing.
        if silence >= dog.config.sample_after:
            episode.since, episode.late_s = self._lateness.since, self._lateness.worst
        deed = Deed(silence, "dump", None, "asked for by watchdog-hook dump")
        episode.incident = episode.incident.evolve(actions=(deed,))
        dog.incidents.dump(
            episode,
            silence,
            dog.age_in(episode.thread),
            self._sampler.taken,
            how="moving" if moving else "silent" if state.stalled else "asked",
            asked=True,
        )
        dog.incidents.end(episode, silence)
        return episode

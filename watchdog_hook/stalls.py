"""The loop's stalls as incidents: opened, dumped, dumped again while they last, ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchdog_hook.core import ladder
from watchdog_hook.core.ladder import Progress, Step

if TYPE_CHECKING:
    from watchdog_hook.core.model import InFlight
    from watchdog_hook.incidents import Episode
    from watchdog_hook.lateness import Lateness
    from watchdog_hook.ports import Evidence
    from watchdog_hook.sampler import Sampler
    from watchdog_hook.watchdog import Watchdog

FRESH = Progress()


class Stalls:
    """Keeps the incident of the loop's present stall, and knows which of its dumps is due."""

    def __init__(
        self, dog: Watchdog, evidence: Evidence, sampler: Sampler, lateness: Lateness
    ) -> None:
        self._dog = dog
        self._evidence = evidence
        self._sampler = sampler
        self._lateness = lateness
        self._limits = ladder.Limits(dog.config.dump_after, dog.config.terminate_after)
        self._progress = FRESH
        self.episode: Episode | None = None  # of the present stall

    def begin(self) -> None:
        """Begin at the lowest step again: the loop has beaten."""
        self._progress = FRESH

    def open(self, silence: float) -> Episode:
        """Begin the incident of a stall, and say so."""
        dog = self._dog
        self.episode = episode = dog.incidents.begin(dog.ident, silence, dog.where)
        episode.since, episode.of_loop = self._lateness.since, True
        episode.ended_by = dog.ended_by
        flight = dog.book.current(dog.ident)
        dog.say(
            "WARNING",
            "stall_began",
            incident=episode.incident.id,
            silent_s=silence,
            phase=dog.where,
            call=flight.call.name if flight else None,
            peer=str(flight.call.peer) if flight and flight.call.peer else None,
        )
        return episode

    def climb(self, silence: float, *, moving: bool, may_end: bool) -> bool:
        """
        Dump what is due after so much silence; tell whether the process is to end.

        `moving`: the loop is stalled for its length alone. `may_end`: this look can be trusted so far.
        """
        episode = self.episode
        changed = (
            episode is not None
            and episode.dumped
            and self._sampler.settled_elsewhere(episode.dumped_stack)
        )
        self._progress, steps = ladder.due(
            self._limits,
            self._progress,
            silence,
            changed=changed,
            may_end=may_end and self._may_end(moving=moving),
        )
        if Step.DUMP in steps:
            self._dump(episode or self.open(silence), silence, moving=moving)
        if Step.DELTA in steps and episode is not None:
            self._dump_again(episode, silence)
        return Step.TERMINATE in steps

    def dumped(self, flight: InFlight, silence: float, *, moving: bool) -> Episode:
        """Return the loop's incident, dumped with this call of the loop in it."""
        episode = self.episode or self.open(silence)
        if not episode.dumped:
            self._progress = ladder.dumped(self._limits, self._progress, silence)
            self._dump(episode, silence, moving=moving)
        elif flight.serial != episode.serial:
            # Another call of the same silence: it has not been shown yet.
            self._dump_again(episode, silence)
        return episode

    def dumped_elsewhere(self, thread: int, silence: float) -> Episode:
        """Return an incident of another thread, whose call has been silent for so long; dumped."""
        episode = self._dog.incidents.begin(thread, silence)
        self._dump(episode, silence)
        return episode

    def end(self, lasted: float) -> None:
        """End the incident, and say what ended the stall."""
        episode, self.episode = self.episode, None
        if episode is None:
            return
        dog = self._dog
        dog.incidents.end(episode, lasted)
        dog.outside.tell(None)
        incident = episode.incident
        landed = sum(deed.outcome == "landed" for deed in incident.actions)
        by = "told to end" if episode.last_words else "interrupted" if landed else "by itself"
        dog.say(
            "WARNING",
            "stall_ended",
            incident=incident.id,
            silent_s=lasted,
            phase=incident.phase,
            call=incident.call,
            peer=incident.peer,
            outcome=by,
            interrupts=landed or None,
            waiting=incident.waiting,
        )

    def _may_end(self, *, moving: bool) -> bool:
        """Tell whether nothing speaks against ending the process: it is neither moving nor debugged."""
        if not self._dog.config.terminate_after or moving:
            return False
        return not self._evidence.debugger()

    def _dump(self, episode: Episode, silence: float, *, moving: bool = False) -> None:
        self._dog.fail.run("dump", self._dump_once, episode, silence, moving=moving)

    def _dump_once(self, episode: Episode, silence: float, *, moving: bool) -> None:
        if episode.dumped:
            return
        dog = self._dog
        own = episode.thread == dog.ident
        episode.late_s, episode.gil_s = self._lateness.worst, self._lateness.gil or None
        dog.incidents.dump(
            episode,
            silence,
            dog.age_in(episode.thread),
            self._sampler.taken if own else (),
            how="moving" if moving else "silent",
        )
        if own:
            dog.outside.tell(episode.incident, episode.path)
        dog.count("stalls", {"verdict": episode.incident.finding.id})

    def _dump_again(self, episode: Episode, silence: float) -> None:
        dog = self._dog
        age = dog.age_in(episode.thread)
        dog.fail.run("delta", dog.incidents.again, episode, silence, age, self._sampler.stack)
        dog.outside.tell(episode.incident, episode.path)

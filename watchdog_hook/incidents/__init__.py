"""Incidents while they last: begun, dumped, acted upon, ended. Evidence in, files and records out."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from watchdog_hook.core import report
from watchdog_hook.core.diagnosis import diagnose
from watchdog_hook.core.model import (
    CallRecord,
    Deed,
    Finding,
    Incident,
    InFlight,
    Sample,
    Snapshot,
)
from watchdog_hook.core.summary import summary
from watchdog_hook.incidents.episode import NOTHING
from watchdog_hook.incidents.episode import Episode as Episode
from watchdog_hook.incidents.gathering import Gathering
from watchdog_hook.incidents.plan import plan_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from watchdog_hook.book import Book
    from watchdog_hook.config import Config
    from watchdog_hook.core.model import Clock
    from watchdog_hook.failopen import FailOpen
    from watchdog_hook.ports import Actions, Evidence, Host
    from watchdog_hook.recorder import Recorder

UNDIAGNOSED = Finding("unknown", "low", "No diagnosis was made; the stacks stand below.")


class Incidents:
    """Makes and writes incidents. Each part by itself: a report without a diagnosis is better than none."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        book: Book,
        evidence: Evidence,
        actions: Actions,
        host: Host,
        fail: FailOpen,
        recorder: Recorder,
    ) -> None:
        self._config = config
        self._clock = clock
        self._book = book
        self._evidence = evidence
        self._actions = actions
        self._host = host
        self._fail = fail
        self._gathering = Gathering(book, evidence, host, fail, recorder)
        self._kept = (
            ""  # of a stall that is over: its account stays, for it is why the process ends
        )

    def begin(self, thread: int, silence: float, phase: str | None = None) -> Episode:
        """Return a new incident of a thread that has been silent for so long; without a dump yet."""
        wall = self._clock.wall()
        incident_id, path = self._actions.new_incident(wall)
        incident = Incident(
            id=incident_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            began=wall - silence,
            first_dump=wall,
            silence_s=silence,
            phase=phase,
            finding=UNDIAGNOSED,
            snapshot=NOTHING,
            job_id=self._host.job_id,
            component=self._host.component,
        )
        return Episode(incident, path, thread)

    def dump(
        self,
        episode: Episode,
        silence: float,
        age: float | None,
        samples: Iterable[Sample],
        *,
        how: str = "silent",
        asked: bool = False,
    ) -> None:
        """
        Gather, diagnose and write the full dump.

        `age`: of the call its thread is in, in seconds. `how`: as core.signs.Case has it. `asked`: somebody
        wanted it.
        """
        snapshot = self._fail.run("evidence", self._gathering.gather, episode, samples) or NOTHING
        reading = self._evidence.thread(episode.thread, None)
        flight = self._book.current(episode.thread)
        finding = self._diagnose(episode, snapshot, silence, how)
        peer = flight.call.peer if flight and flight.call.peer else reading and reading.peer
        episode.incident = incident = episode.incident.evolve(
            silence_s=silence,
            first_dump=self._clock.wall(),
            snapshot=snapshot,
            finding=finding or UNDIAGNOSED,
            call=flight.call.name if flight else None,
            peer=str(peer) if peer else None,
            age_s=age,
            waiting=self._fail.run("waiting", self._host.waiting),
            process_started=self._evidence.process_started(),
            versions={**self._evidence.versions(), **self._host.versions()},
            settings=self._config.as_text(),
        )
        episode.dumped, episode.dumped_at = True, silence
        episode.dumped_stack = reading.stack if reading else 0
        episode.serial = flight.serial if flight else 0
        episode.snapshot = snapshot
        plan = plan_of(self._config, flight, how, self._host.component)
        about: dict[str, Any] = {"files": episode.path, "plan": plan, "asked": asked}
        about |= {"event": "no_progress"} if how == "turning" else {"event": "dump"}
        text = report.render(incident, limit=None, **about)
        record = self.mask(report.render(incident, **about))
        # In this order no stuck handler can silence it: the files, standard error, the log.
        self._actions.record(incident, self.mask(text))
        self._actions.urgent(record.partition("\n")[0])
        level = "WARNING" if asked or how == "turning" else "ERROR"
        self._leave(episode)
        self._actions.say(level, record, wait=True)

    def again(self, episode: Episode, silence: float, age: float | None, stack: int) -> None:
        """Write what has changed since the dump before."""
        before, snapshot = episode.snapshot, self._gathering.gather(episode, ())
        since = silence - episode.dumped_at
        finding = self._diagnose(episode, snapshot, silence) or episode.incident.finding
        episode.incident = episode.incident.evolve(silence_s=silence, age_s=age, finding=finding)
        episode.snapshot, episode.dumped_at, episode.dumped_stack = snapshot, silence, stack
        flight = self._book.current(episode.thread)
        episode.serial = flight.serial if flight else 0
        text = self.mask(
            report.render_delta(
                episode.incident, before, snapshot, since_s=since, files=episode.path
            )
        )
        self._actions.update(episode.incident, text)
        self._actions.urgent(text.partition("\n")[0])
        self._leave(episode)
        self._actions.say("ERROR", text, wait=True)

    def acted(self, episode: Episode, deed: Deed) -> None:
        """Add a deed to an incident; one of the same time, kind and lever replaces the one before."""
        deeds = [
            old
            for old in episode.incident.actions
            if (old.at_s, old.deed, old.lever) != (deed.at_s, deed.deed, deed.lever)
        ]
        episode.incident = episode.incident.evolve(actions=(*deeds, deed))
        self._actions.update(episode.incident)
        self._leave(episode)

    def last_words(self, episode: Episode, event: str, deed: Deed, **more: Any) -> None:
        """
        Say what is known of a stall that this process may not survive.

        On standard error first, then where it outlives the process; the log gets one line. Its summary stays
        there also when the stall ends after all.
        """
        incident = episode.incident
        episode.incident = incident.evolve(silence_s=deed.at_s, actions=(*incident.actions, deed))
        episode.last_words = event, more
        text = self._summary(episode)
        self._actions.urgent(text)
        if episode.of_loop:
            self._actions.leave(self._kept + text)
        if episode.dumped:
            self._actions.update(episode.incident)
        self._actions.say("ERROR", text.partition("\n")[0], wait=True)

    def _summary(self, episode: Episode) -> str:
        event, more = episode.last_words or ("dump", {})
        return self.mask(summary(episode.incident, event, episode.path, **more))

    def _leave(self, episode: Episode) -> None:
        if episode.of_loop and episode.dumped:
            self._actions.leave(self._kept + self._summary(episode))

    def end(self, episode: Episode, lasted: float) -> None:
        """Write that an incident is over, after so many seconds of silence."""
        episode.incident = episode.incident.evolve(ended=self._clock.wall(), silence_s=lasted)
        if episode.dumped:
            self._actions.update(episode.incident)
        if episode.of_loop and episode.last_words is not None:
            self._kept = self._summary(episode) + "\n"
        elif episode.of_loop:
            self._actions.leave(self._kept or None)

    def mask(self, text: str) -> str:
        """Return a text without secrets, as far as the host knows them."""
        return self._fail.run("mask", self._host.mask, text) or text

    def _diagnose(
        self, episode: Episode, snapshot: Snapshot, silence: float, how: str = "silent"
    ) -> Finding | None:
        return self._fail.run(
            "diagnosis",
            diagnose,
            snapshot,
            phase=episode.incident.phase,
            silence=silence,
            reading=self._evidence.thread(episode.thread, None),
            call=_record_of(self._book.current(episode.thread), snapshot),
            how=how,
            component=episode.incident.component,
        )


def _record_of(flight: InFlight | None, snapshot: Snapshot) -> CallRecord | None:
    if flight is None:
        return None
    return next((each for each in snapshot.in_flight if each.call == flight.call.name), None)

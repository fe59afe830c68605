"""Incidents while they last: begun, dumped, acted upon, ended. Evidence in, files and records out."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from watchdog_hook.core import ladder, report
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

if TYPE_CHECKING:
    from collections.abc import Iterable

    from watchdog_hook.book import Book
    from watchdog_hook.config import Config
    from watchdog_hook.core.model import Clock
    from watchdog_hook.failopen import FailOpen
    from watchdog_hook.ports import Actions, Evidence, Host

UNDIAGNOSED = Finding("unknown", "low", "No diagnosis was made; the stacks stand below.")
NOTHING = Snapshot(())


@dataclass
class Episode:
    """One incident while it lasts: a silence of the loop, or one stuck call of another thread."""

    incident: Incident
    path: str
    thread: int
    dumped: bool = False
    dumped_at: float = 0.0  # seconds of silence at the last dump
    dumped_stack: int = 0  # hash of the stack then
    serial: int = 0  # of the call its thread was in then
    snapshot: Snapshot = NOTHING  # of the last dump


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
    ) -> None:
        self._config = config
        self._clock = clock
        self._book = book
        self._evidence = evidence
        self._actions = actions
        self._host = host
        self._fail = fail

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
        )
        return Episode(incident, path, thread)

    def dump(
        self, episode: Episode, silence: float, age: float | None, samples: Iterable[Sample]
    ) -> None:
        """Gather, diagnose and write the full dump. `age`: of the call its thread is in, in seconds."""
        snapshot = self._fail.run("evidence", self._gather, episode.thread, samples) or NOTHING
        reading = self._evidence.thread(episode.thread, None)
        flight = self._book.current(episode.thread)
        finding = self._diagnose(episode, snapshot, silence)
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
        plan = self._plan(flight)
        text = report.render(incident, files=episode.path, plan=plan, limit=None)
        record = self.mask(report.render(incident, files=episode.path, plan=plan))
        # In this order no stuck handler can silence it: the files, standard error, the log.
        self._actions.record(incident, self.mask(text))
        self._actions.urgent(record.partition("\n")[0])
        self._actions.say("ERROR", record, wait=True)

    def again(self, episode: Episode, silence: float, age: float | None, stack: int) -> None:
        """Write what has changed since the dump before."""
        before, snapshot = episode.snapshot, self._gather(episode.thread, ())
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

    def end(self, episode: Episode, lasted: float) -> None:
        """Write that an incident is over, after so many seconds of silence."""
        episode.incident = episode.incident.evolve(ended=self._clock.wall(), silence_s=lasted)
        if episode.dumped:
            self._actions.update(episode.incident)

    def mask(self, text: str) -> str:
        """Return a text without secrets, as far as the host knows them."""
        return self._fail.run("mask", self._host.mask, text) or text

    def _diagnose(self, episode: Episode, snapshot: Snapshot, silence: float) -> Finding | None:
        return self._fail.run(
            "diagnosis",
            diagnose,
            snapshot,
            phase=episode.incident.phase,
            silence=silence,
            reading=self._evidence.thread(episode.thread, None),
            call=_record_of(self._book.current(episode.thread), snapshot),
        )

    def _gather(self, thread: int, samples: Iterable[Sample]) -> Snapshot:
        stacks = self._evidence.stacks(thread)
        in_flight, recent = self._book.records({stack.ident: stack.name for stack in stacks})
        return Snapshot(
            threads=stacks,
            samples=tuple(samples),
            in_flight=in_flight,
            recent=recent,
            unavailable=self._evidence.unavailable(),
        )

    def _plan(self, flight: InFlight | None) -> str:
        """Say what will be done about this, as far as that is decided now."""
        config, steps = self._config, []
        if not config.may_interrupt:
            steps.append("nothing is interrupted ([watchdog_hook] interrupt = off)")
        elif flight is not None and flight.guarded:
            limit = min(config.interrupt_after, flight.limit or config.interrupt_after)
            steps.append(
                f"the call gets {flight.error.__name__} once it has been silent for {limit:g} s,"
                f" or open for {ladder.OVERLONG * limit:g} s in all"
            )
        else:
            steps.append("nothing here may be interrupted: no guarded call is in flight")
        if config.terminate_after:
            steps.append(f"the process exits with 75 after {config.terminate_after:g} s of silence")
        return "; ".join(steps) + "."


def _record_of(flight: InFlight | None, snapshot: Snapshot) -> CallRecord | None:
    if flight is None:
        return None
    return next((each for each in snapshot.in_flight if each.call == flight.call.name), None)

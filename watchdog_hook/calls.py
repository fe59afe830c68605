"""The calls in flight under the watchdog's eyes: proven stuck, dumped, interrupted, and seen to land."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from watchdog_hook.actions.interrupt import ANY_FRAME
from watchdog_hook.core import ladder
from watchdog_hook.core.ladder import CallReading, Ground
from watchdog_hook.core.model import Deed, InFlight, ThreadReading

if TYPE_CHECKING:
    from watchdog_hook.incidents import Episode
    from watchdog_hook.ports import Actions, Evidence
    from watchdog_hook.watchdog import Watchdog

LANDING_LOOKS = 10  # short waits after a shot, before the outcome is left to the next look
LANDING_WAIT = 0.02  # seconds each
AGAIN = (
    3  # times the signal is tried on a trickling call: it may have moved between look and delivery
)


@dataclass
class Watched:
    """What is remembered of one call between two looks."""

    flight: InFlight
    reading: ThreadReading | None = None
    looks: int = 0
    slept: float | None = None  # when a look last found it asleep between two attempts
    asked: float | None = None  # … because its server had asked for that
    episode: Episode | None = None
    own_episode: bool = False  # ends with the call, not with the loop's silence
    shots: list[tuple[str, float]] = field(default_factory=list)
    deed: Deed | None = None
    gave_up: bool = False


class CallWatch:
    """Looks at every guarded call that is old enough; interrupts the one that is proven stuck."""

    def __init__(self, dog: Watchdog, evidence: Evidence, actions: Actions) -> None:
        self._dog = dog
        self._evidence = evidence
        self._actions = actions
        self._watched: dict[int, Watched] = {}

    def look(self, now: float) -> None:
        """Look at each call in flight once."""
        self.settle()
        in_flight = self._dog.book.in_flight()
        # The debugger is looked for only when there is something to judge: it is a third of what a look costs.
        if not in_flight:
            return
        if self._evidence.debugger():
            self.reset()
            return
        for innermost in in_flight:
            flight = _guarded(innermost)
            if flight is not None and not flight.closed:
                self._look_at(flight, now)

    def reset(self) -> None:
        """Forget the proof so far: the process did not run, or a debugger holds it."""
        for watched in self._watched.values():
            watched.reading, watched.looks = None, 0

    def settle(self) -> None:
        """Say what came of the shots at calls that have ended since."""
        for serial, watched in list(self._watched.items()):
            if watched.flight.ended is None:
                continue
            del self._watched[serial]
            self._landed(watched)
            if watched.own_episode and watched.episode is not None:
                self._dog.incidents.end(
                    watched.episode, watched.flight.ended - watched.flight.started
                )

    def _look_at(self, flight: InFlight, now: float) -> None:
        config = self._dog.config
        limit = min(config.interrupt_after, flight.limit or config.interrupt_after)
        age = self._dog.age(flight, now)
        # Three looks prove a call stuck; there is no need to look at a young one.
        if age < min(limit / 2, config.sample_after):
            return
        watched = self._watched.setdefault(flight.serial, Watched(flight))
        native = self._dog.native_id if flight.thread == self._dog.ident else None
        reading = self._evidence.thread(flight.thread, native)
        if reading is None:
            return
        same = watched.reading is not None and (
            watched.reading.position,
            watched.reading.stack,
            watched.reading.switches,
        ) == (reading.position, reading.stack, reading.switches)
        watched.looks = watched.looks + 1 if same else 1
        watched.reading = reading
        if reading.in_retry_sleep:
            watched.slept = now
        if reading.was_asked:
            watched.asked = now
        # A pause is no silence of the server's; one that it asked for does not count as the call's time either.
        silent = self._since(watched.slept, now, age)
        if reading.received_ago_s is not None:
            silent = min(silent, self._since(now - reading.received_ago_s, now, age))
        call = CallReading(
            age=self._since(watched.asked, now, age),
            silent=silent,
            looks=watched.looks,
            guarded=flight.guarded,
            stream=flight.call.kind == "stream",
            in_socket=reading.in_socket,
            in_library=reading.in_library,
            in_retry_sleep=reading.in_retry_sleep,
        )
        if not ladder.overdue(call, limit):
            return
        ground = ladder.ground(call, limit)
        if ground is not None:
            self._interrupt(watched, reading, ground, now, age)
        elif watched.looks >= ladder.LOOKS_TO_PROVE:
            self._give_up(watched, now, age, "not in a call that can be ended")

    def _since(self, moment: float | None, now: float, most: float) -> float:
        """Return for how many seconds since this moment the process ran; `most` without one."""
        return most if moment is None else min(most, now - moment - self._dog.paused_since(moment))

    def _interrupt(
        self, watched: Watched, reading: ThreadReading, ground: Ground, now: float, age: float
    ) -> None:
        flight = watched.flight
        if watched.shots and now - watched.shots[-1][1] < ladder.LEVER_PATIENCE:
            return
        first = watched.episode is None
        episode = self._dumped_episode(watched, now)
        if first:
            # The dump took its time, and the thread may have gone on meanwhile, its socket's number may be
            # another connection's: the next look proves the call stuck again, and fires.
            return
        lever = self._next_lever(watched, reading, ground)
        if lever is None:
            self._give_up(watched, now, age, "every lever was tried")
            return
        if ground is Ground.OVERLONG:
            reading = replace(reading, position=(ANY_FRAME, *reading.position[1:]))
        watched.shots.append((lever, now))
        outcome = self._actions.fire(lever, flight, reading, episode.incident.id, age)
        for _ in range(LANDING_LOOKS):
            if outcome != "fired" or flight.closed:
                break
            self._dog.settle(LANDING_WAIT)
        landed = flight.closed and flight.fired
        outcome = "landed" if landed else "ended by itself" if flight.closed else outcome
        self._dog.say(
            "ERROR",
            "interrupt",
            incident=episode.incident.id,
            phase=episode.incident.phase,
            call=flight.call.name,
            peer=str(flight.call.peer) if flight.call.peer else reading.peer and str(reading.peer),
            age_s=age,
            lever=lever,
            action=f"raise {flight.error.__name__}",
            outcome=outcome,
            ground=ground.value,
        )
        watched.deed = Deed(age, "interrupt", lever, outcome)
        self._dog.incidents.acted(episode, watched.deed)
        self._dog.count("interrupts")

    def _dumped_episode(self, watched: Watched, now: float) -> Episode:
        if watched.episode is None:
            watched.episode = self._dog.dumped_episode(watched.flight, now)
            watched.own_episode = watched.flight.thread != self._dog.ident
        return watched.episode

    def _next_lever(self, watched: Watched, reading: ThreadReading, ground: Ground) -> str | None:
        tried = [lever for lever, _ in watched.shots]
        for lever in self._actions.levers(watched.flight, reading):
            allowed = AGAIN if ground is Ground.OVERLONG and lever == "signal" else 1
            if tried.count(lever) < allowed:
                return lever
        return None

    def _give_up(self, watched: Watched, now: float, age: float, why: str) -> None:
        if watched.gave_up:
            return
        watched.gave_up = True
        episode = self._dumped_episode(watched, now)
        self._dog.say(
            "ERROR",
            "no_lever",
            incident=episode.incident.id,
            phase=episode.incident.phase,
            call=watched.flight.call.name,
            age_s=age,
            action="none",
            outcome=why,
        )
        self._dog.incidents.acted(episode, Deed(age, "no_lever", None, why))

    def _landed(self, watched: Watched) -> None:
        if watched.deed is None or watched.episode is None or watched.deed.outcome != "fired":
            return
        outcome = "landed" if watched.flight.fired else "ended by itself"
        self._dog.incidents.acted(
            watched.episode,
            Deed(watched.deed.at_s, watched.deed.deed, watched.deed.lever, outcome),
        )


def _guarded(flight: InFlight | None) -> InFlight | None:
    """Return the innermost call of this chain that may be interrupted."""
    while flight is not None and not flight.guarded:
        flight = flight.outer
    return flight

"""From readings to events: a stall began or ended, the loop is slow, the process was paused."""

from __future__ import annotations

from dataclasses import dataclass, replace

# A loop that is seen to move is slow, not stuck; but nobody waits for ever. At this many times the
# patience it is dumped all the same (240 s by default: before Kubernetes' probe kills the evidence).
MOTION_LIMIT = 8


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the loop may be silent, in seconds."""

    stall: float  # silence that is a stall
    sample: float  # silence after which the stack is sampled, so that motion can be seen
    startup: float  # silence allowed until the first iteration has ended
    tolerance: float  # how late the watchdog's own wait may end before the process counts as paused


@dataclass(frozen=True, slots=True)
class Reading:
    """What one look at the loop found."""

    now: float
    beat_at: float  # of the last beat
    overslept: float = 0.0  # how much later than asked the watchdog's own wait ended
    moved: bool = False  # since the look before: another stack, or a call began or ended
    ending: bool = False  # the loop is over: what is left of the process is shutting down


@dataclass(frozen=True, slots=True)
class State:
    """What is remembered between two looks."""

    beat_at: float
    moved_at: float
    beats: int = 0  # changes seen, not beats made
    excused: float = 0.0  # seconds of this silence in which the process did not run
    stalled: bool = False
    moving: bool = False  # stalled for its length alone: it is seen to move
    slow: bool = False

    @classmethod
    def begin(cls, now: float) -> State:
        """Return the state of a loop that starts now."""
        return cls(beat_at=now, moved_at=now)

    def silence(self, now: float) -> float:
        """Return the seconds since the last beat in which the process ran."""
        return max(0.0, now - self.beat_at - self.excused)


@dataclass(frozen=True, slots=True)
class StallBegan:
    """The loop passed its patience without a beat and without motion."""

    silence: float


@dataclass(frozen=True, slots=True)
class StallEnded:
    """The loop beat again after a stall."""

    silence: float


@dataclass(frozen=True, slots=True)
class Slow:
    """The loop passed its patience without a beat, but moves."""

    silence: float


@dataclass(frozen=True, slots=True)
class SlowEnded:
    """A slow iteration ended."""

    silence: float


@dataclass(frozen=True, slots=True)
class Paused:
    """The whole process did not run for a while: stopped, suspended or starved."""

    seconds: float


Event = StallBegan | StallEnded | Slow | SlowEnded | Paused


def judge(state: State, reading: Reading, patience: Patience) -> tuple[State, tuple[Event, ...]]:
    """
    Advance by one reading.

    A beat that came between two readings counts from its own time. A late reading (the process did not
    run) never begins a stall: its lateness is taken off the silence, and the next reading judges.
    """
    events: list[Event] = []
    if reading.beat_at != state.beat_at:
        lasted = max(0.0, reading.beat_at - state.beat_at - state.excused)
        if state.stalled:
            events.append(StallEnded(lasted))
        elif state.slow:
            events.append(SlowEnded(lasted))
        state = State(beat_at=reading.beat_at, moved_at=reading.beat_at, beats=state.beats + 1)

    if reading.overslept > patience.tolerance:
        # The pause may have begun before the last beat: never excuse more than the silence.
        excused = min(reading.overslept, reading.now - state.beat_at - state.excused)
        state = replace(
            state,
            excused=state.excused + max(0.0, excused),
            moved_at=min(reading.now, state.moved_at + reading.overslept),
        )
        events.append(Paused(reading.overslept))
        return state, tuple(events)

    if reading.moved:
        state = replace(state, moved_at=reading.now)

    silence = state.silence(reading.now)
    limit = max(patience.stall, grace(state, reading.ending, patience))
    if silence >= limit and not state.stalled:
        still = reading.now - state.moved_at
        stuck = still >= patience.stall - patience.sample
        if stuck or silence >= MOTION_LIMIT * limit:
            state = replace(state, stalled=True, moving=not stuck)
            events.append(StallBegan(silence))
        elif not state.slow:
            state = replace(state, slow=True)
            events.append(Slow(silence))
    elif state.moving and reading.now - state.moved_at >= patience.stall - patience.sample:
        state = replace(state, moving=False)
    return state, tuple(events)


def grace(state: State, ending: bool, patience: Patience) -> float:
    """Return the seconds of silence that are allowed to the first iteration; 0 after it, and where it is over."""
    return patience.startup if state.beats < 2 and not ending else 0.0

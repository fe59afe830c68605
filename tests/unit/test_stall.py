"""From readings to events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from watchdog_hook.core.stall import (
    MOTION_LIMIT,
    Event,
    Patience,
    Paused,
    Reading,
    Slow,
    SlowEnded,
    StallBegan,
    StallEnded,
    State,
    judge,
)

PATIENCE = Patience(stall=30, sample=15, startup=300, tolerance=3)


def running() -> State:
    """A loop past its first iteration, that beat last at 1000."""
    return State(beat_at=1000.0, moved_at=1000.0, beats=2)


def play(state: State, *readings: Reading, patience: Patience = PATIENCE) -> list[Event]:
    events: list[Event] = []
    for reading in readings:
        state, new = judge(state, reading, patience)
        events.extend(new)
    return events


def every_second(until: float, beat_at: float = 1000.0, *, moved: bool = False) -> list[Reading]:
    return [Reading(1000.0 + at, beat_at, moved=moved) for at in range(1, int(until) + 1)]


def test_silence_is_reported_once():
    assert play(running(), *every_second(100)) == [StallBegan(30.0)]


def test_a_stall_ends_with_the_next_beat_and_lasted_until_it():
    events = play(running(), *every_second(40), Reading(1042.0, beat_at=1041.5))

    assert events == [StallBegan(30.0), StallEnded(41.5)]


def test_a_second_stall_is_a_stall_of_its_own():
    events = play(running(), *every_second(40), Reading(1041.0, 1040.5), Reading(1071.0, 1040.5))

    assert events == [StallBegan(30.0), StallEnded(40.5), StallBegan(30.5)]


def test_a_loop_that_moves_is_slow_and_said_to_be_once():
    events = play(running(), *every_second(100, moved=True), Reading(1101.0, 1100.5))

    assert events == [Slow(30.0), SlowEnded(100.5)]


def test_a_loop_that_stops_moving_stalls_after_having_been_slow():
    moving = every_second(40, moved=True)
    still = [Reading(1000.0 + at, 1000.0) for at in range(41, 70)]

    assert play(running(), *moving, *still) == [Slow(30.0), StallBegan(55.0)]


def test_nobody_waits_for_ever_for_a_loop_that_moves():
    events = play(running(), *every_second(MOTION_LIMIT * 30, moved=True))

    assert events == [Slow(30.0), StallBegan(MOTION_LIMIT * 30.0)]


def test_the_first_iteration_has_its_own_grace():
    assert play(State.begin(1000.0), *every_second(299)) == []
    assert play(State.begin(1000.0), *every_second(300)) == [StallBegan(300.0)]


def test_the_grace_ends_when_the_first_iteration_has():
    first, second = Reading(1001.0, 1000.5), Reading(1051.0, 1050.5)
    still = [Reading(1051.0 + at, 1050.5) for at in range(1, 40)]

    assert play(State.begin(1000.0), first, second, *still) == [StallBegan(30.5)]


def test_a_process_that_did_not_run_was_paused_and_not_stalled():
    events = play(
        running(),
        Reading(1020.0, 1000.0, overslept=19.0),
        *[Reading(1020.0 + at, 1000.0) for at in range(1, 20)],
    )

    assert events == [Paused(19.0)]


def test_the_time_of_a_pause_is_taken_off_the_silence():
    state = running()
    for reading in (Reading(1020.0, 1000.0, overslept=19.0), Reading(1040.0, 1000.0)):
        state, _ = judge(state, reading, PATIENCE)

    assert state.silence(1040.0) == 21.0


def test_a_pause_that_began_before_the_last_beat_excuses_no_more_than_the_silence():
    state, _ = judge(running(), Reading(1050.0, 1049.0, overslept=40.0), PATIENCE)

    assert state.silence(1050.0) == 0.0
    assert state.silence(1060.0) == 10.0


def test_a_stall_that_a_pause_interrupts_is_not_begun_twice():
    events = play(
        running(),
        *every_second(35),
        Reading(1060.0, 1000.0, overslept=24.0),
        *[Reading(1060.0 + at, 1000.0) for at in range(1, 40)],
    )

    assert events == [StallBegan(30.0), Paused(24.0)]


# --- properties ---------------------------------------------------------------------------------------

step = st.fixed_dictionaries(
    {
        "wait": st.floats(0.1, 20),
        "beat": st.booleans(),
        "moved": st.booleans(),
        "overslept": st.sampled_from([0.0, 0.0, 0.0, 1.0, 5.0, 100.0]),
    }
)
steps = st.lists(step, max_size=60)


def readings(made: list[dict[str, float]]) -> list[Reading]:
    now, beat_at, result = 1000.0, 1000.0, []
    for one in made:
        before = now
        now += one["wait"] + one["overslept"]
        if one["beat"]:
            beat_at = before + (now - before) / 2
        result.append(Reading(now, beat_at, one["overslept"], bool(one["moved"])))
    return result


@given(steps)
def test_began_and_ended_alternate(made):
    open_ones = 0
    for event in play(State.begin(1000.0), *readings(made)):
        open_ones += isinstance(event, StallBegan) - isinstance(event, StallEnded)

        assert open_ones in (0, 1)


@given(st.lists(st.tuples(st.floats(0.01, 29.9), st.booleans()), max_size=60))
def test_no_stall_if_every_gap_is_below_patience(gaps):
    now, made = 1000.0, []
    for gap, moved in gaps:
        now += gap
        made.append(Reading(now, beat_at=now, moved=moved))  # beats at each look, late as it is

    assert play(running(), *made) == []


@given(steps)
def test_a_late_reading_never_begins_a_stall(made):
    state = State.begin(1000.0)
    for reading in readings(made):
        state, events = judge(state, reading, PATIENCE)

        if reading.overslept > PATIENCE.tolerance:
            assert not any(isinstance(event, (StallBegan, Slow)) for event in events)
            assert Paused(reading.overslept) in events


@given(steps)
def test_a_stall_only_begins_past_the_patience_and_the_silence_is_never_negative(made):
    state = State.begin(1000.0)
    for reading in readings(made):
        state, events = judge(state, reading, PATIENCE)

        assert 0.0 <= state.silence(reading.now) <= reading.now - state.beat_at + 1e-6
        for event in events:
            assert not isinstance(event, StallBegan) or event.silence >= PATIENCE.stall
            assert not isinstance(event, (StallEnded, SlowEnded)) or event.silence >= 0.0


@given(steps)
def test_a_loop_that_stays_silent_is_always_found_in_the_end(made):
    state = State.begin(1000.0)
    for reading in readings(made):
        state, _ = judge(state, reading, PATIENCE)
        now, beat_at = reading.now, reading.beat_at
    if not made:
        now, beat_at = 1000.0, 1000.0
    for _ in range(1000):
        now += 1.0
        state, _ = judge(state, Reading(now, beat_at), PATIENCE)

    assert state.stalled

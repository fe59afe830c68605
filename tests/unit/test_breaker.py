"""When an API server is left alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from watchdog_hook.core.breaker import LONGEST, PROBE_EVERY, TRIAL_LIMIT, Breaker, Gate

NEW = Breaker(after=3, open_for=30)


def opened(now: float = 1000.0) -> Breaker:
    return NEW.failed(now).failed(now).failed(now)


def test_it_opens_after_so_many_failures_with_no_answer_between():
    assert NEW.failed(0).failed(1).allows
    assert opened().gate is Gate.OPEN
    assert not opened().allows


def test_one_answer_begins_the_count_anew():
    assert NEW.failed(0).failed(1).answered().failed(2).failed(3).allows


def test_it_is_probed_when_its_time_is_over_and_again_while_nobody_answers():
    breaker = opened(1000.0)

    assert not breaker.probe_due(1029.9)
    assert breaker.probe_due(1030.0)
    again = breaker.probed(False, 1030.0)
    assert not again.allows
    assert not again.probe_due(1030.0 + PROBE_EVERY - 0.1)
    assert again.probe_due(1030.0 + PROBE_EVERY)


def test_after_an_answered_probe_one_call_goes_through_with_a_short_limit():
    trial = opened().probed(True, 1030.0)

    assert trial.allows
    assert trial.limit == TRIAL_LIMIT
    assert NEW.limit is None


def test_a_trial_that_fails_opens_it_for_twice_as_long():
    breaker, now, lengths = opened(), 1000.0, []
    for _ in range(6):
        lengths.append(breaker.length)
        now += breaker.length
        breaker = breaker.probed(True, now).failed(now)

    assert lengths == [30, 60, 120, 240, 300, 300]


def test_a_trial_that_is_answered_closes_it_as_new():
    assert opened().probed(True, 1030.0).answered() == NEW


def test_a_probe_that_comes_late_changes_nothing():
    assert NEW.probed(True, 1.0) == NEW
    assert opened().answered().probed(False, 1.0) == NEW


events = st.lists(
    st.tuples(st.sampled_from(["failed", "answered", "probe yes", "probe no"]), st.floats(0, 400)),
    max_size=60,
)


@given(events, st.integers(1, 5), st.floats(1, 1000))
def test_whatever_comes_it_keeps_its_promises(sequence, after, open_for):
    breaker, now, silent = Breaker(after, open_for), 0.0, 0
    for event, wait in sequence:
        now, before = now + wait, breaker
        if event == "failed":
            breaker, silent = breaker.failed(now), silent + 1
        elif event == "answered":
            breaker, silent = breaker.answered(), 0
        else:
            breaker = breaker.probed(event == "probe yes", now)

        if breaker.gate is Gate.OPEN and before.gate is Gate.CLOSED:
            assert silent >= after
        if event == "answered":
            assert breaker == Breaker(after, open_for)
        if before.gate is Gate.OPEN and event != "answered":
            # Nothing but an answered probe lets a call through.
            assert breaker.allows == (event == "probe yes")
        assert breaker.length <= LONGEST
        if breaker.gate is Gate.OPEN:
            assert not breaker.allows
            assert breaker.probe_due(now + LONGEST + PROBE_EVERY)
        assert breaker.allows is (breaker.gate is not Gate.OPEN)


@given(events)
def test_it_never_opens_while_answers_come_between(sequence):
    breaker = NEW
    for _, now in sequence:
        breaker = breaker.failed(now).failed(now).answered()

        assert breaker.gate is Gate.CLOSED

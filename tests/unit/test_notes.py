"""Events on their way to the log."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from watchdog_hook.notes import FOLDED, FORGET_AFTER, Notes, SlowPhases


def said(notes: Notes, now: float) -> list[str]:
    return [line for _, line in notes.drain(now)]


def test_an_event_is_said_once_at_the_next_look():
    notes = Notes()
    notes.add("breaker_closed", {"peer": "k8s:443"})

    assert notes.drain(0.0) == [("WARNING", "watchdog_hook: event=breaker_closed peer=k8s:443")]
    assert notes.drain(1.0) == []


def test_bad_news_is_an_error():
    notes = Notes()
    notes.add("breaker_open", {})

    assert notes.drain(0.0)[0][0] == "ERROR"


def test_repeats_are_said_at_2_4_and_8_with_their_count():
    notes = Notes()
    counts = []
    for now in range(10):
        notes.add("requeued", {"ti": "a"})
        for line in said(notes, float(now)):
            found = re.search(r"count=(\d+)", line)
            counts.append((now + 1, int(found[1]) if found else 1))

    assert counts == [(1, 1), (2, 2), (4, 4), (8, 8)]


def test_other_jobs_are_other_events():
    notes = Notes()
    for ti in ("a", "b", "c"):
        notes.add("requeued", {"ti": ti})

    assert len(said(notes, 0.0)) == 3


def test_after_a_while_it_is_news_again():
    notes = Notes()
    notes.add("requeued", {"ti": "a"})
    said(notes, 0.0)
    notes.add("requeued", {"ti": "a"})

    assert said(notes, FORGET_AFTER + 1) == ["watchdog_hook: event=requeued ti=a"]


def test_what_happens_rarely_is_said_every_time():
    notes = Notes()
    for _ in range(3):
        notes.add("breaker_open", {"peer": "k8s"})

    assert len(said(notes, 0.0)) == 3


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=100))
def test_of_any_number_of_repeats_at_least_one_line_and_at_most_a_few_are_said(tis):
    notes = Notes()
    for ti in tis:
        notes.add(sorted(FOLDED)[0], {"ti": ti})
    lines = said(notes, 0.0)

    for ti in set(tis):
        repeats = tis.count(ti)
        assert sum(f"ti={ti}" in line for line in lines) == repeats.bit_length()


class TestSlowPhases:
    def test_a_phase_is_said_to_be_slow_once_in_ten_minutes_with_count_and_worst(self):
        slow = SlowPhases()

        assert slow.began("timers", 30.0, 0.0) == {
            "phase": "timers",
            "times_before": None,
            "worst_s": None,
        }
        slow.ended("timers", 45.0)
        assert slow.began("timers", 30.0, 100.0) is None
        slow.ended("timers", 70.0)
        assert slow.began("timers", 30.0, 700.0) == {
            "phase": "timers",
            "times_before": 1,
            "worst_s": 70.0,
        }

    def test_another_phase_is_said_by_itself(self):
        slow = SlowPhases()
        slow.began("timers", 30.0, 0.0)

        assert slow.began("scheduling", 30.0, 1.0) is not None

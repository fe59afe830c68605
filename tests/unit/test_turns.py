"""The flight recorder as text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from watchdog_hook.core import turns
from watchdog_hook.core.observed import Iteration

ENDED = Iteration(
    32.0,
    1.02,
    (
        ("scheduling", 0.0, 0.4),
        ("executor.heartbeat (K)", 0.4, 0.25),
        ("clear", 0.5, 0.125),
        ("executor.heartbeat (K)", 0.65, 0.3),
        ("timer pools", 0.95, 0.001),
    ),
)
PRESENT = Iteration(
    31.0, None, (("scheduling", 0.0, 0.4), ("heartbeat", 0.4, 30.6), ("clear", 1.0, 30.0))
)


def test_a_turn_shows_its_phases_and_what_is_left_of_it():
    assert turns.lines((ENDED, PRESENT), 5) == [
        " Turns of the loop, newest last (1 before this one: median 1.02 s, longest 1.02 s):",
        "    turn 1.02 s: scheduling 0.40, executor.heartbeat (K) 0.55 (2 x), else 0.07",
        "    this turn, 31.00 s so far: scheduling 0.40, heartbeat 30.60 > clear 30.00 so far",
    ]


def test_with_room_inner_phases_stand_in_brackets():
    assert turns.lines((ENDED,))[1] == (
        "    turn 1.02 s: scheduling 0.40, executor.heartbeat (K) 0.25 (clear 0.12),"
        " executor.heartbeat (K) 0.30, timer pools 0.00, else 0.07"
    )


def test_a_short_list_has_the_last_ones_and_the_present_one():
    many = tuple(Iteration(60.0 - n, float(n), ()) for n in range(1, 51))
    text = turns.lines((*many, PRESENT), 5)

    assert text[0] == (
        " Turns of the loop, newest last (50 before this one: median 25.00 s, longest 50.00 s):"
    )
    assert [line.split()[1] for line in text[1:-1]] == [f"{n}.00" for n in range(46, 51)]
    assert text[-1].startswith("    this turn, 31.00 s so far")
    assert len(turns.lines((*many, PRESENT))) == 52


def test_a_turn_without_a_phase_says_so():
    assert turns.lines((Iteration(2.0, 1.5, ()), Iteration(0.5, None, ())))[1:] == [
        "    turn 1.50 s: no phase of note",
        "    this turn, 0.50 s so far: in no phase",
    ]


def test_where_neither_turns_nor_phases_were_told_there_is_nothing_to_show():
    assert turns.lines((Iteration(31.0, None, ()),)) == []
    assert turns.lines(()) == []


def test_the_usual_turn_is_the_middle_one_in_each_of_its_parts():
    three = (
        Iteration(3.0, 1.0, (("a", 0.0, 0.5), ("rare", 0.5, 0.4))),
        Iteration(2.0, 0.4, (("a", 0.0, 0.3),)),
        Iteration(1.0, 0.6, (("a", 0.0, 0.1), ("a", 0.1, 0.3))),
    )

    assert turns.usual_turn((*three, PRESENT)) == "a turn takes 0.60 s (a 0.40)"
    assert turns.usual_turn((PRESENT,)) is None


TIMES = st.floats(0, 100)
PHASES = st.lists(st.tuples(st.text(max_size=5), TIMES, TIMES), max_size=30).map(tuple)


@given(st.lists(st.builds(Iteration, TIMES, st.none() | TIMES, PHASES), max_size=5).map(tuple))
def test_whatever_the_times_are_each_turn_is_one_line(iterations):
    for most in (None, 2):
        text = turns.lines(iterations, most)
        assert len(text) <= 1 + len(iterations)
        assert all(line.isprintable() and len(line) <= 310 for line in text)
    turns.usual_turn(iterations)


def test_phases_within_phases_without_end_are_one_line_too():
    deep = tuple((f"p{n}", n / 1000, 10.0 - n / 500) for n in range(1500))

    assert len(turns.lines((Iteration(20.0, 10.0, deep), Iteration(10.0, None, deep)))) == 3

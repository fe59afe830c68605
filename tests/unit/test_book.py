"""The book of calls."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog_hook.book import Book, Guard
from watchdog_hook.core.model import Call, CallRecord, InFlight, Peer, StuckCallTimeout
from watchdog_hook.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable

ME = threading.get_ident()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


@pytest.fixture
def book(clock: ManualClock) -> Book:
    return Book(clock.now, kept=3)


def test_a_call_is_in_the_book_from_enter_to_leave(book):
    flight = book.enter(Call("GET /pods"))

    assert book.current(ME) is flight
    assert book.in_flight() == (flight,)
    book.leave(flight, "200")
    assert book.current(ME) is None
    assert book.in_flight() == ()


def test_calls_nest_and_the_innermost_is_the_current_one(book):
    outer, inner = book.enter(Call("outer")), book.enter(Call("inner"))

    assert book.current(ME) is inner
    assert inner.outer is outer
    book.leave(inner)
    assert book.current(ME) is outer


def test_leaving_twice_is_leaving_once(book, clock):
    flight = book.enter(Call("GET /pods"))
    book.leave(flight, "200")
    clock.wait(5)
    book.leave(flight, "500")

    assert (flight.answer, flight.ended, book.left) == ("200", 1000.0, 1)


def test_an_answer_read_after_a_later_call_began_is_taken_out_from_below(book):
    streamed, later = book.enter(Call("LIST")), book.enter(Call("GET"))
    book.leave(streamed, "200")

    assert book.current(ME) is later
    book.leave(later, "200")
    assert book.in_flight() == ()


def test_the_records_say_who_is_in_what_and_what_was_before(book, clock):
    done = book.enter(Call("GET /pods", Peer("k8s", 443)))
    clock.wait(2)
    book.leave(done, "200")
    book.enter(Call("POST /pods"), guarded=True)
    clock.wait(3)
    done.bytes = 99
    in_flight, past = book.records({ME: "MainThread"})

    assert in_flight == (CallRecord("POST /pods", None, "MainThread", 3.0, guarded=True),)
    assert past == (CallRecord("GET /pods", "k8s:443", "MainThread", 5.0, 2.0, "200", bytes=99),)


def test_only_the_last_ones_are_kept(book):
    for number in range(5):
        book.leave(book.enter(Call(str(number))))

    assert [record.call for record in book.records()[1]] == ["2", "3", "4"]


def test_two_hundred_are_the_last_ones(clock):
    book = Book(clock.now)
    for number in range(250):
        book.leave(book.enter(Call(str(number))))

    assert [record.call for record in book.records()[1]] == [str(n) for n in range(50, 250)]


def test_the_calls_of_other_threads_are_their_own(book):
    entered, free = threading.Event(), threading.Event()

    def call() -> None:
        flight = book.enter(Call("theirs"))
        entered.set()
        free.wait()
        book.leave(flight)

    thread = threading.Thread(target=call)
    thread.start()
    assert entered.wait(20)
    mine = book.enter(Call("mine"))

    assert {flight.call.name for flight in book.in_flight()} == {"mine", "theirs"}
    assert book.current(ME) is mine
    free.set()
    thread.join(20)
    assert book.in_flight() == (mine,)


def test_a_call_cut_short_while_it_was_being_left_is_not_seen_any_more(book):
    outer, inner = book.enter(Call("outer")), book.enter(Call("inner"))
    inner.closed = True  # and an exception came before it was taken out

    assert book.current(ME) is outer
    assert book.in_flight() == (outer,)
    assert book.enter(Call("next")).outer is outer


def test_a_child_has_no_call_in_flight(book):
    book.enter(Call("the parent's"))
    book.forget()

    assert book.in_flight() == ()


def fired_at(book: Book, then: Callable[[], object]) -> None:
    """Make a guarded call that is fired at, and ends as `then` does."""
    with Guard(book, "ask"):
        book.current(ME).fired = True
        then()


def raising(error: BaseException) -> Callable[[], object]:
    def raise_it() -> None:
        raise error

    return raise_it


class TestGuard:
    def test_a_guarded_call_says_what_came_of_it(self, book):
        with Guard(book, "fine"):
            assert book.current(ME).guarded
        with pytest.raises(KeyError), Guard(book, "broken"):
            raise KeyError

        assert [record.answer for record in book.records()[1]] == ["returned", "KeyError"]

    def test_once_fired_at_the_outcome_is_unknown_whatever_the_call_returned(self, book, clock):
        with pytest.raises(StuckCallTimeout) as caught:
            fired_at(book, lambda: clock.wait(70))

        assert (caught.value.call, caught.value.age_s) == ("ask", 70.0)

    def test_and_whatever_it_raised(self, book):
        with pytest.raises(StuckCallTimeout) as caught:
            fired_at(book, raising(ConnectionResetError()))

        assert isinstance(caught.value.__cause__, ConnectionResetError)

    @pytest.mark.parametrize("stronger", [SystemExit, KeyboardInterrupt])
    def test_an_exit_is_stronger(self, book, stronger):
        with pytest.raises(stronger):
            fired_at(book, raising(stronger()))

    def test_the_timeout_itself_passes_as_it_is(self, book):
        error = StuckCallTimeout("ask", 60.0, "an incident")
        with pytest.raises(StuckCallTimeout) as caught:
            fired_at(book, raising(error))

        assert caught.value is error

    def test_what_was_nested_in_an_ended_call_ended_with_it(self, book):
        nested: list[InFlight] = []
        with pytest.raises(StuckCallTimeout):
            fired_at(book, lambda: nested.append(book.enter(Call("inner"))))

        assert nested[0].closed
        assert nested[0].ended is not None
        assert book.in_flight() == ()

    def test_a_streamed_answer_outlives_a_guard_that_nobody_fired_at(self, book):
        with Guard(book, "outer"):
            streamed = book.enter(Call("LIST"))

        assert book.current(ME) is streamed


@given(st.lists(st.one_of(st.none(), st.integers(0, 30)), max_size=60))
def test_in_whatever_order_calls_are_left_the_others_stay_in_the_book(steps):
    book, open_ones = Book(ManualClock().now), []
    for step in steps:
        if step is None:
            open_ones.append(book.enter(Call(str(len(open_ones)))))
        elif open_ones:
            book.leave(open_ones.pop(step % len(open_ones)), "200")
        nested: list[InFlight] = []
        flight = book.current(ME)
        while flight is not None:
            nested.append(flight)
            flight = flight.outer

        assert nested == open_ones[::-1]
        assert len(book.records()[0]) == len(open_ones)

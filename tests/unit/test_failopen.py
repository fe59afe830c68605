"""Our own failures: said once, then that part is off."""

from __future__ import annotations

import logging

import pytest

from watchdog_hook.core.model import StuckCallTimeout
from watchdog_hook.failopen import FailOpen, Unavailable


def broken(*_: object) -> None:
    raise ValueError("our mistake")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def fail(said: list[str]) -> FailOpen:
    return FailOpen(said.append)


def test_what_a_part_returns_comes_back(fail):
    assert fail.run("sum", lambda one, two=0: one + two, 1, two=2) == 3


def test_the_first_failure_is_said_with_its_traceback_and_the_part_is_off(fail, said):
    calls: list[int] = []

    def part() -> None:
        calls.append(1)
        broken()

    for _ in range(5):
        assert fail.run("book", part) is None

    assert calls == [1]
    (text,) = said
    assert text.startswith("watchdog_hook: event=part_off part=")
    assert "ValueError: our mistake" in text
    assert all(line.startswith(" ") for line in text.splitlines()[1:])


def test_what_is_not_to_be_had_is_said_in_a_sentence_and_the_part_is_off(fail, said):
    def part() -> None:
        raise Unavailable("no memory: there is no sentinel")

    for _ in range(2):
        assert fail.run("pulse", part) is None

    assert said == [
        'watchdog_hook: event=part_off part="pulse" outcome="no memory: there is no sentinel;'
        ' Airflow is not affected"'
    ]


def test_the_other_parts_go_on(fail):
    fail.run("book", broken)

    assert fail.run("host", lambda: "fine") == "fine"


def test_a_timeout_of_ours_passes_and_breaks_nothing(fail, said):
    def interrupted() -> None:
        raise StuckCallTimeout("ask")

    with pytest.raises(StuckCallTimeout):
        fail.run("book", interrupted)

    assert fail.off == set()
    assert said == []


@pytest.mark.parametrize("stronger", [SystemExit, KeyboardInterrupt])
def test_an_exit_passes(fail, stronger):
    def leaving() -> None:
        raise stronger

    with pytest.raises(stronger):
        fail.run("book", leaving)

    assert fail.off == set()


def test_a_mouth_that_is_broken_too_does_not_reach_the_host():
    fail = FailOpen(broken)

    assert fail.run("book", broken) is None
    assert fail.off == {"book"}


def test_without_a_mouth_of_its_own_it_speaks_through_the_log(caplog):
    FailOpen().run("book", broken)

    (record,) = caplog.records
    assert (record.name, record.levelno) == ("watchdog_hook", logging.ERROR)

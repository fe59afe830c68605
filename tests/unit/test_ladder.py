"""Which step is due."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog_hook.core.ladder import (
    LOOKS_TO_PROVE,
    OVERLONG,
    CallReading,
    Ground,
    Limits,
    Progress,
    Step,
    due,
    ground,
    overdue,
)

LIMITS = Limits(dump=30, terminate=240)
STUCK = CallReading(age=60, silent=60, looks=3, guarded=True, in_socket=True, in_library=True)


def climb(limits: Limits, until: int, *, changed: bool = False):
    """Take every second of a stall, which begins at 30."""
    progress, found = Progress(), []
    for silence in range(30, until + 1):
        progress, steps = due(limits, progress, float(silence), changed=changed)
        found.extend((silence, step) for step in steps)
    return found


def test_the_steps_come_in_their_order_each_once_and_the_deltas_at_2_4_and_8_times():
    assert climb(LIMITS, 300) == [
        (30, Step.DUMP),
        (60, Step.DELTA),
        (120, Step.DELTA),
        (240, Step.DELTA),
        (240, Step.TERMINATE),
    ]


def test_a_stack_that_settled_somewhere_else_is_dumped_again_but_not_too_often():
    found = climb(LIMITS, 100, changed=True)

    assert found == [(30, Step.DUMP), (60, Step.DELTA), (90, Step.DELTA)]


def test_a_process_is_not_ended_while_something_speaks_against_it():
    kept = due(LIMITS, Progress(dumps=1), 300.0, changed=False, may_end=False)[1]

    assert Step.TERMINATE not in kept


def test_zero_is_never():
    found = climb(replace(LIMITS, terminate=0), 3000)

    assert Step.TERMINATE not in [step for _, step in found]


@given(
    st.lists(st.tuples(st.floats(0.1, 40), st.booleans()), max_size=60),
    st.sampled_from([0.0, 31.0, 240.0, 1000.0]),
)
def test_the_ladder_never_descends_or_repeats_a_step(looks, terminate):
    limits, progress = Limits(30, terminate), Progress()
    silence, done = 30.0, []
    for wait, changed in looks:
        silence += wait
        before = progress
        progress, steps = due(limits, progress, silence, changed=changed)
        done += steps

        ranks = [step.value for step in steps]
        assert ranks == sorted(set(ranks))
        assert progress.dumps >= before.dumps
        assert progress.terminated >= before.terminated
    assert done.count(Step.DUMP) <= 1
    assert done.count(Step.TERMINATE) <= 1
    if done:
        assert done[0] is Step.DUMP


@given(st.lists(st.tuples(st.floats(0.1, 90), st.booleans()), max_size=40))
def test_evidence_always_comes_before_the_end(looks):
    progress, silence = Progress(), 30.0
    for wait, changed in looks:
        silence += wait
        progress, steps = due(LIMITS, progress, silence, changed=changed)
        if Step.TERMINATE in steps:
            before = steps[: steps.index(Step.TERMINATE)]

            assert Step.DUMP in before or Step.DELTA in before


class TestCalls:
    def test_a_call_that_is_silent_in_its_socket_may_be_ended(self):
        assert ground(STUCK, 60) is Ground.SILENT

    @pytest.mark.parametrize(
        "change",
        [
            {"guarded": False},
            {"stream": True},
            {"in_retry_sleep": True},
            {"in_socket": False},
            {"silent": 59.9},
            {"looks": LOOKS_TO_PROVE - 1},
        ],
        ids=str,
    )
    def test_one_doubt_is_enough_to_leave_it(self, change):
        assert ground(replace(STUCK, **change), 60) is None

    def test_an_answer_that_trickles_ends_at_three_times_the_limit(self):
        trickling = replace(STUCK, silent=1, looks=1)

        assert ground(replace(trickling, age=OVERLONG * 60 - 1), 60) is None
        assert ground(replace(trickling, age=OVERLONG * 60), 60) is Ground.OVERLONG

    def test_an_overlong_call_outside_the_library_is_left(self):
        assert ground(replace(STUCK, silent=1, looks=1, age=999, in_library=False), 60) is None

    @given(
        st.builds(
            CallReading,
            age=st.floats(0, 1000),
            silent=st.floats(0, 1000),
            looks=st.integers(1, 10),
            guarded=st.booleans(),
            stream=st.booleans(),
            in_socket=st.booleans(),
            in_library=st.booleans(),
            in_retry_sleep=st.booleans(),
        ),
        st.floats(0.1, 300),
    )
    def test_no_call_is_ended_that_is_not_guarded_overdue_and_in_a_socket(self, call, limit):
        found = ground(call, limit)
        if found is not None:
            assert call.guarded
            assert not call.stream
            assert not call.in_retry_sleep
            assert call.in_socket or call.in_library
            assert overdue(call, limit)
            assert call.silent >= limit or call.age >= OVERLONG * limit


def test_the_deltas_are_found_however_rarely_one_looks():
    for every in (1, 7, 45, 100):
        progress, dumps = Progress(), []
        for silence in itertools.takewhile(lambda at: at < 1000, itertools.count(30, every)):
            progress, steps = due(replace(LIMITS, terminate=0), progress, silence, changed=False)
            dumps += [silence for step in steps if step in (Step.DUMP, Step.DELTA)]

        assert len(dumps) == len(set(dumps)) <= 6

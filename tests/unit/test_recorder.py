"""The flight recorder: turns, phases and healthy stacks, each within its bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog_hook import recorder
from watchdog_hook.core.model import Frame
from watchdog_hook.core.observed import Iteration
from watchdog_hook.recorder import Picture, Recorder
from watchdog_hook.testing import ManualClock
from watchdog_hook.watchdog import Phase, Watchdog

LOOP = Frame("loop", "/x.py", 1)


class Loop:
    """A loop whose seconds the test counts."""

    def __init__(self) -> None:
        self.clock = ManualClock(100.0)
        self.dog = Watchdog(clock=self.clock)
        self.recorder = self.dog.recorder

    def turn(self, **phases: float) -> Loop:
        self.dog.turn("loop")
        for name, seconds in phases.items():
            self.phase(name, seconds)
        return self

    def phase(self, name: str, seconds: float) -> Loop:
        with self.dog.phase(name):
            self.clock.wait(seconds)
        return self

    def idle(self, seconds: float) -> Loop:
        self.clock.wait(seconds)
        return self

    @property
    def iterations(self) -> tuple[Iteration, ...]:
        return self.recorder.iterations()


@pytest.fixture
def loop() -> Loop:
    return Loop()


class TestTurns:
    def test_a_turn_lasts_until_the_next_and_has_its_phases(self, loop):
        loop.turn(scheduling=2.0, heartbeat=1.0).idle(0.5).turn(scheduling=4.0)

        assert loop.iterations == (
            Iteration(7.5, 3.5, (("scheduling", 0.0, 2.0), ("heartbeat", 2.0, 1.0))),
            Iteration(4.0, None, (("scheduling", 0.0, 4.0),)),
        )

    def test_phases_that_go_on_are_there_with_their_time_so_far(self, loop):
        loop.turn(scheduling=1.0)
        with loop.dog.phase("heartbeat"):
            loop.idle(2.0)
            with loop.dog.phase("clear"):
                loop.idle(3.0)
                (now,) = loop.iterations

        assert now.duration_s is None
        assert now.phases == (
            ("scheduling", 0.0, 1.0),
            ("heartbeat", 1.0, 5.0),
            ("clear", 3.0, 3.0),
        )
        assert loop.dog.where == "loop"

    def test_a_phase_inside_another_is_beside_it_after_the_end_too(self, loop):
        loop.turn()
        with loop.dog.phase("heartbeat"):
            loop.idle(1.0).phase("clear", 1.0)

        assert loop.iterations[-1].phases == (("heartbeat", 0.0, 2.0), ("clear", 1.0, 1.0))

    def test_only_the_last_turns_are_kept(self, loop):
        for _ in range(recorder.TURNS + 20):
            loop.turn(scheduling=1.0)
        found = loop.iterations

        assert len(found) == recorder.TURNS + 1
        assert [each.duration_s for each in found] == [1.0] * recorder.TURNS + [None]
        assert all(len(each.phases) == 1 for each in found)

    def test_a_turn_whose_phases_are_gone_is_gone_too(self, loop):
        for _ in range(10):
            loop.turn(**{f"p{n}": 0.25 for n in range(recorder.PHASES // 5)})
        found = loop.iterations

        assert len(found) == 5
        assert {len(each.phases) for each in found} == {recorder.PHASES // 5}

    def test_the_present_turn_is_there_whatever_it_does(self, loop):
        loop.turn()
        for _ in range(recorder.PHASES + 7):
            loop.phase("again", 0.5)
        (now,) = loop.iterations

        assert len(now.phases) == recorder.PHASES
        assert now.started_ago_s == (recorder.PHASES + 7) / 2

    def test_a_phase_that_was_cut_short_is_over_with_its_turn(self, loop):
        loop.turn()
        loop.dog.phase("heartbeat").__enter__()  # and an exception came at once in its __exit__
        loop.idle(1.0).turn(scheduling=1.0)

        assert loop.iterations[-1].phases == (("scheduling", 0.0, 1.0),)

    def test_where_no_turn_is_told_the_present_one_began_at_the_last_beat_seen(self, loop):
        loop.phase("before", 1.0)
        loop.dog.beat("round 1")
        loop.recorder.beat_seen(loop.clock.now())
        loop.phase("sending", 2.0)

        assert loop.iterations == (Iteration(2.0, None, (("sending", 0.0, 2.0),)),)

    def test_watching_anew_forgets_what_was(self, loop):
        loop.turn(scheduling=1.0)
        loop.recorder.watch(7, loop.clock.now())

        assert loop.iterations == (Iteration(0.0, None, ()),)

    @given(st.lists(st.sampled_from(["turn", "enter", "leave", "cut", "wait"]), max_size=60))
    def test_in_whatever_order_things_happen_the_times_hold(self, steps):
        loop, inside = Loop(), list[Any]()
        for step in steps:
            if step == "turn":
                loop.dog.turn()
            elif step == "enter":
                inside.append(Phase(loop.dog, "p"))
                inside[-1].__enter__()
            elif step == "leave" and inside:
                inside.pop().__exit__()
            elif step == "cut" and inside:
                inside.pop()
            else:
                loop.idle(1.0)
            *ended, now = loop.iterations
            assert now.duration_s is None
            assert all(each.duration_s is not None for each in ended)
            for each in (*ended, now):
                assert all(start >= 0 and lasted >= 0 for _, start, lasted in each.phases)
                assert all(start <= each.started_ago_s for _, start, _ in each.phases)


class TestTheSchedulersLoop:
    """As its methods are wrapped in a scheduler."""

    class Executor:
        def heartbeat(self) -> None:
            self.clock.wait(2.0)

    class Runner:
        def _do_scheduling(self) -> int:
            self.clock.wait(1.0)
            return 7

        def _emit_pool_metrics(self) -> None:
            self.clock.wait(0.5)

    @pytest.fixture
    def patched(self, loop: Loop) -> Any:
        pytest.importorskip("wrapt")
        from watchdog_hook.integrations.airflow.loop import Loop as Wrapped
        from watchdog_hook.integrations.patch import Patches

        runner, executor = self.Runner(), self.Executor()
        runner.clock = executor.clock = loop.clock
        patches = Patches(loop.dog.fail)
        assert Wrapped(loop.dog, None).patch(patches, runner, [executor])
        yield runner, executor
        patches.remove()

    def test_a_turn_begins_where_the_loop_beats(self, loop, patched):
        runner, executor = patched
        for _ in range(2):
            assert runner._do_scheduling() == 7
            executor.heartbeat()
            runner._emit_pool_metrics()
            loop.idle(0.25)
        first, present = loop.iterations

        assert (first.duration_s, present.duration_s) == (3.75, None)
        assert (
            first.phases
            == present.phases
            == (
                ("scheduling", 0.0, 1.0),
                ("executor.heartbeat (Executor)", 1.0, 2.0),
                ("emit_pool_metrics", 3.0, 0.5),
            )
        )

    def test_where_the_loop_is_has_the_names_it_had(self, loop, patched):
        runner, _ = patched
        seen = []
        loop.clock.on_wait = lambda _: seen.append(loop.dog.where)
        runner._do_scheduling()
        runner._emit_pool_metrics()

        assert (seen, loop.dog.where) == (["scheduling", "emit_pool_metrics"], "loop")

    def test_what_scheduling_raises_passes_and_its_phase_is_over(self, loop, patched):
        runner, _ = patched
        loop.clock.on_wait = lambda _: 1 / 0
        with pytest.raises(ZeroDivisionError):
            runner._do_scheduling()

        assert loop.dog.where == "loop"
        assert loop.recorder.inside is None


class TestPicture:
    def stack(self, number: int, depth: int = 1) -> tuple[Frame, ...]:
        return (*(Frame(f"f{number}", "/x.py", line) for line in range(depth)), LOOP)

    def test_equal_stacks_are_counted_the_most_frequent_first(self):
        picture = Picture()
        for number in (1, 2, 2, 3, 2, 3):
            picture.add(self.stack(number))

        assert picture.stacks() == ((self.stack(2), 3), (self.stack(3), 2), (self.stack(1), 1))

    def test_when_it_is_full_the_least_frequent_goes_first(self):
        picture = Picture()
        for number in range(recorder.STACKS):
            picture.add(self.stack(number))
        picture.add(self.stack(0))  # twice, and now the one seen last
        for number in (1000, 1001):
            picture.add(self.stack(number))
        left = dict(picture.stacks())

        assert len(left) == recorder.STACKS
        assert left[self.stack(0)] == 2
        assert {self.stack(1000), self.stack(1001), self.stack(3)} <= set(left)
        assert not {self.stack(1), self.stack(2)} & set(left)

    def test_of_equally_frequent_ones_the_one_not_seen_for_longest_goes(self):
        picture = Picture()
        numbers = range(recorder.STACKS)
        for number in (*numbers, *reversed(numbers), 1000):
            picture.add(self.stack(number))

        assert {stack for stack, _ in picture.stacks()} == {
            *map(self.stack, numbers[:-1]),
            self.stack(1000),
        }

    def test_deep_stacks_are_fewer(self):
        picture = Picture()
        for number in range(recorder.STACKS):
            picture.add(self.stack(number, 199))

        assert sum(len(stack) for stack, _ in picture.stacks()) <= recorder.FRAMES
        assert picture.stacks()[-1][0] == self.stack(recorder.STACKS - 1, 199)

    def test_equal_frames_of_different_stacks_are_one_value(self):
        picture = Picture()
        for _ in range(2):
            for number in range(5):
                picture.add((Frame(f"f{number}", "/x.py", 1), Frame("loop", "/x.py", 1)))

        assert len({id(stack[-1]) for stack, _ in picture.stacks()}) == 1

    def test_what_has_gone_is_forgotten_altogether(self):
        picture = Picture()
        for number in range(4 * recorder.FRAMES // 50):
            picture.add(self.stack(number, 50))

        assert len(picture._frames) <= recorder.FRAMES + 50 + 1


class TestHealthySamples:
    def test_a_stack_counts_once_the_loop_has_beaten_again(self):
        found = Recorder(ManualClock().now)
        found.watch(7, 0.0)
        found.healthy((LOOP,))
        assert found.normal(7) == ()
        found.beat_seen(1.0)

        assert found.normal(7) == (((LOOP,), 1),)
        found.beat_seen(2.0)
        assert found.normal(7) == (((LOOP,), 1),)

    def test_the_last_stack_before_a_silence_is_no_healthy_one(self):
        found = Recorder(ManualClock().now)
        found.watch(7, 0.0)
        found.healthy((LOOP,))
        found.silent()
        found.beat_seen(99.0)

        assert found.normal(7) == ()

    def test_another_thread_has_no_such_picture(self):
        found = Recorder(ManualClock().now)
        found.watch(7, 0.0)
        found.healthy((LOOP,))
        found.beat_seen(1.0)

        assert found.normal(8) == ()

"""The order of things, with a manual clock, no thread, and evidence and actions that are made up."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from watchdog_hook import Config, Watchdog
from watchdog_hook.core.model import (
    Call,
    Frame,
    Incident,
    InFlight,
    Peer,
    ThreadReading,
    ThreadStack,
)
from watchdog_hook.core.observed import ExecutorFacts, Observed, ThreadInKernel
from watchdog_hook.ports import Host
from watchdog_hook.sentinel import pulse
from watchdog_hook.testing import ManualClock

FRAME = Frame("recv", "/x/socket.py", 7)
STUCK = ThreadReading(
    position=(1, 2, 3),
    stack=10,
    leaf=FRAME,
    switches=5,
    in_socket=True,
    in_library=True,
    descriptor=9,
)


UNSAID = ("files", "stderr", "message", "no message")


class Evidence:
    """Tells of a thread what the test says."""

    def __init__(self) -> None:
        self.reading: ThreadReading | None = STUCK
        self.traced = False
        self.cpu = 0.0
        self.broken: set[str] = set()
        self.at: tuple[Frame, ...] = (FRAME,)
        self.walks = 0

    def stacks(self, first: int | None) -> tuple[ThreadStack, ...]:
        self._perhaps("stacks")
        return (ThreadStack(first or 0, "MainThread", self.at),)

    def frames(self, ident: int) -> tuple[Frame, ...]:
        self._perhaps("frames")
        self.walks += 1
        return self.at

    def thread(self, ident: int, native_id: int | None) -> ThreadReading | None:
        self._perhaps("thread")
        return self.reading

    def debugger(self) -> bool:
        self._perhaps("debugger")
        return self.traced

    def pressure(self) -> Any:
        return None

    def cpu_seconds(self) -> float:
        return self.cpu

    def wakes(self) -> int:
        return 0

    def waited_for_interpreter(self, woken: int, seconds: float) -> bool:
        return woken >= 100 * seconds

    def pause_cause(self, before: Any, after: Any, seconds: float) -> str:
        return "stopped"

    def in_kernel(self, native_id: int | None) -> ThreadInKernel | None:
        self._perhaps("in_kernel")
        return None

    def observe(self, native_id: int | None, **_: Any) -> Observed:
        self._perhaps("observe")
        return Observed()

    def forget(self) -> None: ...

    def unavailable(self) -> tuple[tuple[str, str], ...]:
        return ()

    def process_started(self) -> float | None:
        return None

    def is_gone(self, pid: int, moment: float | None) -> bool:
        return False

    def versions(self) -> dict[str, str]:
        return {}

    def _perhaps(self, what: str) -> None:
        if what in self.broken:
            raise RuntimeError(f"{what} is broken")


class Ended(BaseException):
    """The process would be gone."""


class Actions:
    """Writes down what would have been done, in its order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.texts: list[str] = []
        self.lines: list[str] = []  # on standard error
        self.incidents: dict[str, Incident] = {}
        self.outcome = "fired"
        self.lands = True
        self.available: tuple[str, ...] = ("signal", "shutdown")
        self.count = 0
        self.left: str | None = None  # where it outlives the process

    def arm(self, current: Any) -> str | None:
        return None

    def release(self) -> None: ...

    def disarm(self) -> None: ...

    def forget(self) -> None: ...

    def measure(self, send: Callable[[], object]) -> None:
        send()

    def settle(self) -> None: ...

    def working(self) -> bool:
        return False

    def new_incident(self, wall: float) -> tuple[str, str]:
        self.count += 1
        return f"i{self.count}", f"/incidents/i{self.count}"

    def record(self, incident: Incident, text: str) -> None:
        self.done.append("files")
        self.incidents[incident.id] = incident

    def update(self, incident: Incident, delta: str = "") -> None:
        self.incidents[incident.id] = incident

    def leave(self, text: str | None) -> None:
        self.done.append("message" if text else "no message")
        self.left = text

    def look_back(self, note: Any, is_gone: Any) -> None: ...

    def say(self, level: str, text: str, *, wait: bool = False) -> None:
        found = re.match(r"watchdog_hook: event=(\w+)", text)
        self.done.append(found[1] if found else text)
        self.texts.append(text)

    def urgent(self, line: str) -> None:
        self.done.append("stderr")
        self.lines.append(line)

    def levers(self, flight: InFlight, reading: ThreadReading) -> tuple[str, ...]:
        return self.available

    def fire(
        self, lever: str, flight: InFlight, reading: ThreadReading, incident: str | None, age: float
    ) -> str:
        self.done.append(f"fire {lever}")
        if self.lands:
            flight.fired = flight.closed = True
        return self.outcome

    def terminate(self) -> None:
        self.done.append("terminated")
        raise Ended

    @property
    def said(self) -> list[str]:
        return [word for word in self.done if word not in UNSAID]


class Scene:
    """One watchdog whose seconds the test counts."""

    def __init__(self, host: Host | None = None, **options: Any) -> None:
        self.clock = ManualClock(1000.0)
        self.evidence, self.actions = Evidence(), Actions()
        self.dog = Watchdog(
            Config(**{"startup_grace": 0, **options}),
            clock=self.clock,
            evidence=self.evidence,
            actions=self.actions,
            host=host,
        )

    def look(self, seconds: int = 1, overslept: float = 0.0, woken: int = 0) -> Scene:
        for _ in range(seconds):
            self.clock.wait(1)
            self.dog.look(overslept, woken)
        return self

    def beat(self) -> Scene:
        self.dog.beat("scheduling")
        return self

    def enter(self, *, guarded: bool = True, **changes: Any) -> InFlight:
        return self.dog.enter(Call("POST /pods", Peer("k8s", 443)), guarded=guarded, **changes)

    @property
    def said(self) -> list[str]:
        return self.actions.said

    def text(self, event: str) -> str:
        return next(text for text in self.actions.texts if f"event={event}" in text)


def test_a_stuck_call_is_noticed_dumped_ended_and_the_end_is_told():
    scene = Scene().beat()
    flight = scene.enter()
    scene.look(62)
    scene.dog.leave(flight, "StuckCallTimeout")
    scene.beat().look()

    assert scene.said == [
        "stall_began",
        "dump",
        "dump",
        "fire signal",
        "interrupt",
        "stall_ended",
    ]
    assert "outcome=interrupted" in scene.text("stall_ended")
    assert "lever=signal" in scene.text("interrupt")


def test_a_healthy_loop_is_never_spoken_of():
    scene = Scene()
    for _ in range(100):
        scene.beat().look()

    assert scene.actions.done == []


def test_the_files_come_first_then_standard_error_then_the_log():
    scene = Scene().beat().look(31)

    assert scene.actions.done == ["stall_began", "files", "stderr", "message", "dump"]


def test_the_dump_comes_again_at_2_4_and_8_times():
    scene = Scene().beat()
    dumps = []
    for second in range(1, 300):
        before = scene.said.count("dump")
        scene.look()
        if scene.said.count("dump") > before:
            dumps.append(second)

    assert dumps == [30, 60, 120, 240]


def test_there_is_no_interrupt_without_a_dump_before_it():
    # By its settings the interrupt is due before the loop counts as stalled.
    scene = Scene(dump_after=500, sample_after=400, interrupt_after=20).beat()
    scene.enter()
    scene.look(40)

    assert scene.actions.done.index("files") < scene.actions.done.index("fire signal")
    assert scene.said.count("fire signal") == 1


def test_what_the_dump_took_long_for_is_proven_again_before_a_shot():
    scene = Scene(dump_after=500, sample_after=400, interrupt_after=20).beat()
    scene.enter()
    record = scene.actions.record

    def slow(incident: Incident, text: str) -> None:
        record(incident, text)
        scene.evidence.reading = replace(STUCK, position=(4, 5, 6), stack=11, descriptor=12)

    scene.actions.record = slow  # type: ignore[method-assign]
    while "files" not in scene.actions.done:
        scene.look()
    scene.look()

    assert "fire signal" not in scene.said
    scene.look(3)
    assert "fire signal" in scene.said


def test_the_first_iteration_has_its_grace_but_not_a_call_in_it():
    scene = Scene(startup_grace=300)
    scene.look(100)
    assert scene.said == []
    scene.enter()
    scene.look(70)

    assert "fire signal" in scene.said


def test_a_loop_that_moves_is_slow_and_not_stalled():
    scene = Scene(terminate_after=60).beat()
    for number in range(100):
        scene.evidence.reading = replace(STUCK, stack=number)
        scene.look()

    assert scene.said == ["slow"]


def test_calls_that_begin_and_end_are_motion():
    scene = Scene().beat()
    for _ in range(25):
        flight = scene.enter()
        scene.look(4)
        scene.dog.leave(flight, "200")

    assert scene.said == ["slow"]
    assert "calls=" in scene.text("slow")


def test_a_paused_process_is_reported_and_never_interrupted():
    scene = Scene().beat()
    scene.enter()
    scene.look(5)
    scene.clock.jump(500)
    scene.look(overslept=500)

    assert scene.said == ["paused"]
    assert "pause_s=500" in scene.text("paused")
    scene.look(20)
    assert scene.said == ["paused"]


def test_a_wait_for_the_interpreter_is_silence_and_no_pause():
    scene = Scene().beat()
    scene.look(5)
    scene.clock.jump(40)
    scene.look(overslept=40, woken=40 * 200)

    assert scene.said == ["slow", "stall_began", "dump"]
    assert "GIL" in scene.text("slow")
    incident = scene.actions.incidents["i1"]
    assert incident.finding.id == "interpreter-held"
    assert "for 40 s of it" in incident.finding.sentence


def test_after_a_wait_for_the_interpreter_the_loop_has_until_the_next_look_to_come_back():
    scene = Scene(terminate_after=60).beat()
    scene.look(5)
    scene.clock.jump(100)
    scene.look(overslept=100, woken=100 * 200)
    assert "terminate" not in scene.said
    scene.beat().look(5)

    assert scene.said[-1] == "stall_ended"


def test_a_wait_for_the_interpreter_is_of_its_own_turn_of_the_loop():
    scene = Scene().beat()
    scene.clock.jump(20)
    scene.look(overslept=20, woken=20 * 200)
    scene.beat().look(40)

    assert scene.actions.incidents["i1"].finding.id != "interpreter-held"


def test_a_pause_before_the_first_look_is_reported_with_its_cause():
    dog = Watchdog(clock=ManualClock(), actions=Actions())
    dog.look(overslept=100)

    assert dog.fail.off == set()


def test_after_a_pause_the_clocks_go_on_where_they_were():
    scene = Scene().beat()
    scene.enter()
    scene.look(5)
    scene.clock.jump(500)
    scene.look(overslept=500)
    scene.look(50)
    assert "fire signal" not in scene.said
    scene.look(10)

    assert "fire signal" in scene.said


def test_after_a_pause_a_call_is_proven_stuck_anew():
    scene = Scene().beat()
    scene.enter()
    scene.look(59)
    scene.clock.jump(500)
    scene.look(overslept=500)
    scene.look(2)
    assert "fire signal" not in scene.said
    scene.look(3)

    assert "fire signal" in scene.said


def test_with_a_debugger_attached_nothing_is_interrupted():
    scene = Scene().beat()
    scene.evidence.traced = True
    scene.enter()
    scene.look(250)

    assert "dump" in scene.said
    assert not any(word.startswith("fire") for word in scene.said)
    scene.evidence.traced = False
    scene.look(5)
    assert "fire signal" in scene.said


def test_with_interrupt_off_it_only_observes():
    scene = Scene(interrupt="off").beat()
    scene.enter()
    scene.look(250)

    assert set(scene.said) == {"stall_began", "dump"}
    assert "interrupt = off" in scene.text("dump")


def test_a_call_without_a_guard_is_dumped_and_left_alone():
    scene = Scene().beat()
    scene.enter(guarded=False)
    scene.look(250)

    assert set(scene.said) == {"stall_began", "dump"}


def test_a_call_outside_any_socket_has_no_lever():
    scene = Scene().beat()
    scene.evidence.reading = replace(STUCK, in_socket=False, in_library=False, descriptor=None)
    scene.enter()
    scene.look(250)

    assert not any(word.startswith("fire") for word in scene.said)
    assert scene.said.count("no_lever") == 1


def test_a_lever_that_does_not_land_gives_way_to_the_next_and_the_last_one_says_so():
    scene = Scene().beat()
    scene.actions.lands = False
    scene.enter()
    scene.look(90)

    assert [word for word in scene.said if word.startswith(("fire", "no_"))] == [
        "fire signal",
        "fire shutdown",
        "no_lever",
    ]


def test_a_call_that_is_throttled_by_its_server_is_never_interrupted():
    scene = Scene().beat()
    scene.evidence.reading = replace(STUCK, in_retry_sleep=True)
    scene.enter()
    scene.look(250)

    assert not any(word.startswith("fire") for word in scene.said)


@pytest.mark.parametrize(
    ("received", "patience", "ground"), [(120.0, 59, "silent"), (1.0, 178, "overlong")]
)
def test_the_attempt_after_a_pause_that_the_server_asked_for_has_its_whole_time(
    received: float, patience: int, ground: str
):
    scene = Scene().beat()
    asked = Frame("Retry.sleep_for_retry", "/x/urllib3/util/retry.py", 9)
    scene.evidence.reading = replace(STUCK, leaf=asked, in_retry_sleep=True)
    scene.enter()
    scene.look(250)
    scene.evidence.reading = replace(STUCK, received_ago_s=received)
    scene.look(patience)
    assert not any(word.startswith("fire") for word in scene.said)
    scene.look(5)

    assert "fire signal" in scene.said
    assert f"ground={ground}" in scene.text("interrupt")


def test_a_call_that_makes_attempt_after_attempt_by_itself_is_overlong_in_the_end():
    scene = Scene().beat()
    scene.evidence.reading = replace(STUCK, in_retry_sleep=True)
    scene.enter()
    scene.look(250)
    assert not any(word.startswith("fire") for word in scene.said)
    scene.evidence.reading = STUCK
    scene.look(3)

    assert "fire signal" in scene.said
    assert "ground=overlong" in scene.text("interrupt")


def test_a_byte_that_came_in_counts_as_life_until_the_call_is_overlong():
    scene = Scene().beat()
    scene.evidence.reading = replace(STUCK, received_ago_s=1.0)
    scene.enter()
    scene.look(178)
    assert not any(word.startswith("fire") for word in scene.said)
    scene.look(5)

    assert "fire signal" in scene.said
    assert "ground=overlong" in scene.text("interrupt")


def test_the_evidence_comes_before_the_end_of_the_process():
    scene = Scene(terminate_after=240).beat()
    with pytest.raises(Ended):
        scene.look(300)

    assert scene.clock.now() == 1240.0
    assert scene.actions.done[-4:] == ["stderr", "message", "terminate", "terminated"]
    assert scene.actions.done.index("files") < scene.actions.done.index("terminated")
    assert scene.actions.incidents["i1"].actions[-1].deed == "terminate"


def test_a_loop_that_wants_out_is_ended_by_the_next_look_after_what_it_said():
    scene = Scene().beat()
    scene.dog.note("fenced", job_id=7)
    scene.dog._leaving.wanted = "fenced"
    with pytest.raises(Ended):
        scene.look()

    assert scene.actions.done == ["fenced", "stderr", "terminate", "terminated"]
    assert "outcome=fenced" in scene.text("terminate")
    assert "exit_code=75" in scene.text("terminate")


def test_a_loop_that_wants_out_in_the_middle_of_a_look_has_its_say_first(monkeypatch):
    scene = Scene().beat()
    say = scene.dog._say_notes

    def said_and_then(now: float) -> None:
        say(now)
        if scene.dog._leaving.wanted is None:
            scene.dog.note("fenced", job_id=7)
            scene.dog._leaving.wanted = "fenced"

    monkeypatch.setattr(scene.dog, "_say_notes", said_and_then)
    with pytest.raises(Ended):
        scene.look(2)

    assert scene.actions.done == ["fenced", "stderr", "terminate", "terminated"]


def test_a_loop_that_wants_out_does_not_go_on_when_no_look_comes():
    scene = Scene().beat()
    with pytest.raises(Ended):
        scene.dog.exit("fenced")

    assert scene.actions.done == ["terminated"]


def test_a_stuck_call_of_another_thread_is_an_incident_of_its_own():
    scene = Scene().beat()
    flight = scene.enter()
    flight.thread += 1  # as if another one had entered it
    scene.dog.book._slots = {flight.thread: flight}
    for _ in range(70):
        scene.beat().look()

    assert "stall_began" not in scene.said
    assert [word for word in scene.said if word != "dump"] == ["fire signal", "interrupt"]
    assert scene.actions.incidents["i1"].ended is None
    scene.dog.leave(flight)
    scene.beat().look()
    assert scene.actions.incidents["i1"].ended is not None


def test_what_ends_by_itself_is_told_too():
    scene = Scene().beat().look(40)
    scene.beat().look()

    assert scene.said == ["stall_began", "dump", "stall_ended"]
    assert 'outcome="by itself"' in scene.text("stall_ended")


def test_each_stall_is_an_incident_of_its_own():
    scene = Scene().beat().look(40).beat().look(40)

    assert list(scene.actions.incidents) == ["i1", "i2"]


def test_notes_of_the_loop_are_said_before_what_is_judged_now():
    scene = Scene().beat().look(29)
    scene.dog.note("requeued", ti="a")
    scene.look()

    assert scene.said == ["requeued", "stall_began", "dump"]


class TestProgress:
    """Of the executors, while the loop turns."""

    class Executors(Host):
        def __init__(self) -> None:
            self.facts = ExecutorFacts("KubernetesExecutor", 0, 7, 25, task_queue=3)

        def executors(self) -> tuple[ExecutorFacts, ...]:
            return (self.facts,)

    def turn(self, scene: Scene, seconds: int) -> None:
        for _ in range(seconds):
            scene.beat().look()

    def test_an_executor_that_gets_nowhere_is_told_and_its_end_is_written(self):
        host = self.Executors()
        scene = Scene(host)
        self.turn(scene, 320)

        assert scene.said == ["no_progress"]
        assert "cause=no-progress" in scene.text("no_progress")
        assert scene.actions.incidents["i1"].ended is None
        host.facts = replace(host.facts, task_queue=0)
        self.turn(scene, 20)
        assert scene.actions.incidents["i1"].ended is not None
        assert scene.actions.incidents["i1"].silence_s > 300

    def test_a_silent_loop_is_told_once_and_not_twice(self):
        scene = Scene(self.Executors()).beat().look(400)

        assert "no_progress" not in scene.said


class TestAsked:
    """For a dump, from outside."""

    def ask(self, scene: Scene, number: int = 1) -> Scene:
        scene.dog.outside.pulse.words[pulse.REQUEST] = number
        return scene

    def answer(self, scene: Scene) -> str | None:
        return scene.dog.outside.pulse.read(pulse.ANSWER)

    def test_of_a_healthy_loop_the_dump_says_that_it_is_healthy(self):
        scene = self.ask(Scene().beat().look().beat()).look()

        assert scene.said == ["dump"]
        assert "cause=no-stall asked=true" in scene.text("dump")
        assert "A dump was asked for: nothing is wrong; the loop's last beat" in scene.text("dump")
        assert "Next: nothing; this is no stall." in scene.text("dump")
        assert scene.actions.incidents["i1"].ended is not None
        assert self.answer(scene) == "i1\n/incidents/i1"
        assert scene.dog.outside.asked() is None

    def test_it_is_no_stall(self):
        counted: list[str] = []

        class Counts(Host):
            def incr(self, name: str, tags: dict[str, str] | None = None) -> None:
                counted.append(name)

        scene = self.ask(Scene(Counts()).beat()).look(5).beat().look()

        assert scene.said == ["dump"]
        assert counted == []
        assert not scene.dog.outside.pulse.read(pulse.STATE)

    def test_a_loop_that_is_silent_for_a_while_is_not_called_stalled(self):
        scene = self.ask(Scene().beat().look(20)).look()

        assert "so far this is no stall; the loop's last beat came 21 s ago" in scene.text("dump")

    def test_in_a_stall_the_cause_is_told_and_the_stall_goes_on(self):
        scene = self.ask(Scene().beat().look(31)).look().beat().look()

        assert scene.said == ["stall_began", "dump", "dump", "stall_ended"]
        asked = scene.actions.incidents["i2"]
        assert asked.finding.id != "no-stall"
        assert "MainThread has been silent for 32 s" in asked.finding.sentence
        assert scene.text("stall_ended").count("incident=i1")

    def test_a_loop_that_moves_is_called_slow(self):
        scene = Scene().beat()
        for number in range(40):
            scene.evidence.reading = replace(STUCK, stack=number)
            scene.look()
        self.ask(scene).look()

        assert scene.said == ["slow", "dump"]
        assert "cause=slow asked=true" in scene.text("dump")

    def test_who_asks_soon_again_gets_the_same(self):
        scene = self.ask(Scene().beat()).look()
        self.ask(scene, 2).look(5)

        assert scene.said == ["dump"]
        assert self.answer(scene) == "i1\n/incidents/i1"
        assert scene.dog.outside.asked() is None
        self.ask(scene, 3).look(3)
        assert scene.said == ["dump", "dump"]
        assert self.answer(scene) == "i2\n/incidents/i2"

    def test_what_was_healthy_when_it_was_asked_for_does_not_answer_in_a_stall(self):
        scene = self.ask(Scene().beat().look(28)).look()
        self.ask(scene, 2).look(3)

        assert scene.said == ["dump", "stall_began", "dump", "dump"]
        assert scene.actions.incidents["i1"].finding.id == "no-stall"
        assert self.answer(scene) == "i3\n/incidents/i3"

    def test_no_call_is_ended_for_it(self):
        scene = Scene().beat()
        scene.enter()
        self.ask(scene).look(3)

        assert scene.said == ["dump"]
        assert not scene.dog.book.current(scene.dog.ident).fired

    def test_while_the_loop_shuts_down_that_is_said(self):
        scene = Scene().beat()
        scene.dog.where, scene.dog.ending = "executor.end (KubernetesExecutor)", True
        self.ask(scene).look(3)

        assert "cause=shutdown asked=true" in scene.text("dump")
        assert "A dump was asked for: the loop is over" in scene.text("dump")


class TestFlightRecorder:
    """What a dump knows of the time before it."""

    IDLE = Frame("idle", "/x/loop.py", 1)

    def healthy(self, looks: int, **options: Any) -> Scene:
        scene = Scene(**options)
        scene.evidence.at = (self.IDLE,)
        for _ in range(looks):
            scene.beat().look()
        return scene

    def observed(self, scene: Scene) -> Observed:
        return scene.actions.incidents["i1"].snapshot.observed

    def test_of_ten_looks_at_a_healthy_loop_one_takes_its_stack(self):
        assert self.healthy(100).evidence.walks == 10

    def test_a_loop_that_does_not_beat_is_not_taken_for_healthy(self):
        scene = Scene().beat().look(14)

        assert scene.evidence.walks == 0

    def test_a_dump_says_what_is_new_since_healthy_days(self):
        scene = self.healthy(60)
        scene.evidence.at = (FRAME, self.IDLE)
        scene.look(31)

        assert self.observed(scene).normal == (((self.IDLE,), 6),)
        assert " Normally (6 healthy samples): innermost 100 % idle" in scene.text("dump")
        assert " New since the healthy picture: recv (/x/socket.py:7);" in scene.text("dump")
        assert "  + recv (/x/socket.py:7)\n    idle (/x/loop.py:1)" in scene.text("dump")

    def test_the_stack_in_which_the_loop_got_stuck_is_no_healthy_one(self):
        # The first stack is taken when the loop has just beaten, and then never again.
        scene = self.healthy(6)
        scene.evidence.at = (FRAME, self.IDLE)
        assert scene.evidence.walks == 0
        scene.beat().look()
        assert scene.evidence.walks == 1
        scene.look(30)

        assert self.observed(scene).normal == ()
        scene.beat().look(40)
        assert scene.actions.incidents["i2"].snapshot.observed.normal == ()

    def test_another_threads_call_is_not_held_against_the_loop(self):
        scene = self.healthy(60)
        flight = scene.enter()
        flight.thread += 1
        scene.dog.book._slots = {flight.thread: flight}
        for _ in range(70):
            scene.beat().look()

        assert self.observed(scene).normal == ()
        assert "Normally" not in scene.text("dump")

    def test_the_turns_before_and_the_present_one_are_in_the_dump(self):
        scene = Scene()
        for _ in range(7):
            scene.dog.turn("loop")
            with scene.dog.phase("scheduling"):
                scene.look()
        scene.dog.turn("loop")
        with scene.dog.phase("heartbeat"):
            scene.look(31)
        *ended, now = self.observed(scene).iterations

        assert [each.duration_s for each in ended] == [1.0] * 7
        assert {each.phases for each in ended} == {(("scheduling", 0.0, 1.0),)}
        assert now.phases == (("heartbeat", 0.0, now.started_ago_s),)
        text = scene.text("dump")
        assert text.count("    turn 1.00 s: scheduling 1.00\n") == 5
        assert "    this turn, 30.00 s so far: heartbeat 30.00 so far\n" in text

    def test_the_time_between_the_looks_is_in_the_table(self):
        scene = Scene().beat().look(31)

        assert " 100.00% 100.00%   15.00s    15.00s   recv (/x/socket.py)" in scene.text("dump")

    def test_healthy_samples_that_are_broken_cost_themselves_alone(self):
        scene = Scene()
        scene.evidence.broken.add("frames")
        for _ in range(20):
            scene.beat().look()
        scene.evidence.broken.clear()
        scene.look(31)

        assert scene.said == ["part_off", "stall_began", "dump"]
        assert self.observed(scene).normal == ()


class TestInterval:
    """Of the looks, as the watchdog's own thread waits between them."""

    def waits(self, scene: Scene, *during: Callable[[], object]) -> list[float]:
        """Return how long each wait was; in each of them the next of these happens."""
        found, happenings = [], iter(during)

        def on_wait(seconds: float) -> None:
            found.append(seconds)
            happening = next(happenings, scene.clock.stop)
            happening()

        scene.clock.on_wait = on_wait
        scene.dog._run()
        return found

    def test_looks_are_rare_while_the_loop_beats(self):
        scene = Scene()

        assert self.waits(scene, scene.beat, scene.beat) == [1, 3, 3]

    def test_a_loop_that_is_silent_is_looked_at_each_time(self):
        scene = Scene()

        assert self.waits(scene, scene.beat, lambda: None, lambda: None) == [1, 3, 1, 1]

    def test_while_a_call_is_in_flight_each_look_is_taken(self):
        scene = Scene()
        scene.enter()

        assert self.waits(scene, scene.beat, scene.beat) == [1, 1, 1]

    def test_what_is_to_be_said_does_not_wait_longer(self):
        scene = Scene()

        scene.actions.settle = lambda: scene.dog.note("requeued", ti="a")

        assert self.waits(scene, scene.beat, scene.beat) == [1, 1, 1]

    def test_it_is_never_so_rare_that_a_silence_is_noticed_late(self):
        scene = Scene(sample_after=8, dump_after=20, interrupt_after=30)

        assert self.waits(scene, scene.beat, scene.beat) == [1, 2, 2]


class TestFailOpen:
    def test_a_diagnosis_without_evidence_still_makes_a_dump(self):
        scene = Scene().beat()
        scene.evidence.broken.add("stacks")
        scene.look(31)

        assert "part_off" in scene.said
        assert "dump" in scene.said
        assert "files" in scene.actions.done

    @pytest.mark.parametrize("part", ["observe", "in_kernel"])
    def test_without_the_kernel_and_the_children_the_stacks_are_still_dumped(self, part):
        scene = Scene().beat()
        scene.evidence.broken.add(part)
        scene.look(31)

        assert "part_off" in scene.said
        assert scene.said[-1] == "dump"
        assert scene.actions.incidents["i1"].snapshot.threads

    def test_a_broken_host_costs_the_host_only(self):
        class Broken(Host):
            def tick(self, now: float) -> None:
                raise RuntimeError

            def mask(self, text: str) -> str:
                raise RuntimeError

            def gauge(self, name: str, value: float) -> None:
                raise RuntimeError

            def waiting(self) -> int | None:
                raise RuntimeError

            def breaker_open(self) -> bool:
                raise RuntimeError

        scene = Scene(Broken()).beat()
        flight = scene.enter()
        scene.look(64)
        scene.dog.leave(flight)
        scene.beat().look()

        assert "fire signal" in scene.said
        assert scene.said[-1] == "stall_ended"
        assert "look" not in scene.dog.fail.off
        assert scene.said.count("part_off") == len(scene.dog.fail.off) == 5

    def test_interrupts_that_are_broken_leave_the_dumps(self):
        scene = Scene().beat()
        scene.evidence.broken.add("debugger")
        scene.enter()
        scene.look(130)

        assert scene.said.count("part_off") == 1
        assert scene.said.count("dump") == 3

    def test_where_the_book_is_broken_nothing_is_interrupted(self):
        """A call that could not be left would be shot at while its thread is long elsewhere."""
        scene = Scene().beat()
        scene.enter()
        scene.dog.fail.run("book", lambda: 1 / 0)
        scene.look(250)

        assert not any(word.startswith("fire") for word in scene.said)

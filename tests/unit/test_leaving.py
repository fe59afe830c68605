"""What is said while a process is told to end, and while it leaves; with a manual clock and without a thread."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest

from tests.unit.test_watchdog import STUCK, Ended, Scene
from watchdog_hook.core.model import Deed, Finding, Frame, Incident, Snapshot
from watchdog_hook.core.summary import LIMIT, summary
from watchdog_hook.ports import Host

ENDING = {"startup_grace": 300, "dump_after": 30, "terminate_after": 0}


class Masking(Host):
    """Knows one secret."""

    def mask(self, text: str) -> str:
        return text.replace("hunter2", "***")


def left(scene: Scene) -> str:
    """Return what is where it outlives the process, and fail where that is nothing."""
    assert scene.actions.left is not None
    return scene.actions.left


class TestTheAccountThatOutlivesTheProcess:
    def test_it_is_there_from_the_first_dump_and_gone_with_the_stall(self):
        scene = Scene().beat().look(29)
        assert scene.actions.left is None
        scene.look(2)

        assert left(scene).startswith("watchdog_hook: event=dump incident=i1 silent_s=30 ")
        assert "MainThread has been silent for 30 s" in left(scene)
        assert "Verdict: socket, medium confidence." in left(scene)
        assert "Files: /incidents/i1" in left(scene)
        scene.beat().look()
        assert scene.actions.left is None

    def test_it_says_what_was_done_about_it(self):
        scene = Scene().beat()
        scene.enter()
        scene.actions.lands = False
        scene.look(62)

        assert "At 61.0 s: interrupt by signal: fired" in left(scene)

    def test_it_follows_the_verdict(self):
        scene = Scene().beat().look(31)
        scene.evidence.at = (Frame("getaddrinfo", "/x/socket.py", 7),)
        scene.look(30)

        assert "Verdict: name-service," in left(scene)
        assert "silent_s=60 " in left(scene)

    def test_a_stuck_call_of_another_thread_is_not_what_the_process_died_of(self):
        scene = Scene()
        flight = scene.enter()
        flight.thread = 99
        for _ in range(70):
            scene.beat().look()

        assert "files" in scene.actions.done
        assert "message" not in scene.actions.done
        assert "no message" not in scene.actions.done

    def test_a_secret_is_masked_in_it(self):
        scene = Scene(host=Masking()).beat()
        scene.evidence.at = (Frame("hunter2", "/x/y.py", 7),)
        scene.look(31)

        assert "in *** (/x/y.py:7)" in left(scene)


class TestToldToEnd:
    def test_in_a_stall_the_summary_goes_to_standard_error_before_anything_else(self):
        scene = Scene().beat().look(45)
        scene.actions.done.clear()
        scene.dog.tell(signal.SIGTERM)
        scene.clock.wait(0.5)
        scene.dog.loop_is_over("SIGTERM: the scheduler was told to end")
        scene.look()

        assert scene.actions.done == ["stderr", "message", "told_to_end", "stall_ended"]
        summed = scene.actions.lines[-1]
        assert summed.startswith("watchdog_hook: event=told_to_end incident=i1 silent_s=45 ")
        assert "signal=SIGTERM" in summed.partition("\n")[0]
        assert "MainThread has been silent for 30 s" in summed
        assert scene.text("told_to_end") == summed.partition("\n")[0]

    def test_its_account_stays_although_the_stall_ends(self):
        scene = Scene().beat().look(45)
        scene.dog.tell(signal.SIGTERM)
        scene.look()
        scene.beat().look(5)

        assert "event=told_to_end" in left(scene)
        assert 'outcome="told to end"' in scene.text("stall_ended")
        incident = scene.actions.incidents["i1"]
        assert incident.actions == (Deed(45.0, "told to end", None, "SIGTERM"),)
        assert incident.ended is not None

    def test_what_the_shutdown_gets_stuck_in_stands_behind_it(self):
        scene = Scene().beat().look(45)
        scene.dog.tell(signal.SIGTERM)
        scene.dog.loop_is_over("SIGTERM: the scheduler was told to end")
        scene.look(31)

        first, _, second = left(scene).partition("\nwatchdog_hook: ")
        assert first.startswith("watchdog_hook: event=told_to_end incident=i1 ")
        assert second.startswith("event=dump incident=i2 ")
        assert "cause=shutdown" in second
        scene.beat().look()
        assert left(scene) == first + "\n"

    def test_it_is_said_once_for_each_time_it_is_told(self):
        scene = Scene().beat().look(45)
        scene.dog.tell(signal.SIGTERM)
        scene.look(5)
        assert scene.said.count("told_to_end") == 1
        scene.dog.tell(signal.SIGTERM)
        scene.look(5)

        assert scene.said.count("told_to_end") == 2

    def test_a_healthy_loop_is_told_in_silence(self):
        scene = Scene().beat().look()
        scene.dog.tell(signal.SIGTERM)
        scene.look()
        scene.dog.loop_is_over("SIGTERM: the scheduler was told to end")
        scene.look(20)

        assert scene.actions.done == []

    def test_a_stall_that_comes_later_is_not_told_of_it(self):
        scene = Scene().beat()
        scene.dog.tell(signal.SIGTERM)
        scene.look(40)

        assert scene.said == ["stall_began", "dump"]


class TestTheEndOfTheLoop:
    def test_what_shuts_down_is_dumped_as_early_as_the_loop(self):
        scene = Scene(**ENDING).beat().look()
        scene.dog.loop_is_over("OperationalError: the server went away")
        with scene.dog.phase("executor.end (KubernetesExecutor)"):
            scene.look(29)
            assert scene.said == []
            scene.look(2)

        assert scene.said == ["stall_began", "dump"]
        sentence = scene.actions.incidents["i1"].finding.sentence
        assert "the loop is over (ended by OperationalError: the server went away)" in sentence
        assert "some 20 s" in sentence
        assert "cause=shutdown" in scene.text("dump")

    def test_without_a_limit_it_is_never_ended(self):
        scene = Scene(**ENDING).beat()
        scene.dog.loop_is_over()
        scene.look(1000)

        assert "terminated" not in scene.said

    def test_with_a_limit_it_is_ended_with_a_dump_and_a_summary_before(self):
        scene = Scene(**{**ENDING, "terminate_after": 100}).beat()
        scene.dog.loop_is_over("OperationalError: the server went away")
        with pytest.raises(Ended):
            scene.look(101)

        assert scene.said[-3:] == ["dump", "terminate", "terminated"]
        assert scene.actions.lines[-1].startswith("watchdog_hook: event=terminate incident=i1 ")
        assert "ended by OperationalError" in scene.actions.lines[-1]
        assert left(scene) == scene.actions.lines[-1]
        assert "action=exit" in scene.text("terminate")
        assert "exit_code=75" in scene.text("terminate")

    def test_a_second_executor_has_the_time_of_its_own(self):
        scene = Scene(**{**ENDING, "terminate_after": 100}).beat()
        for _ in range(5):
            scene.dog.loop_is_over()
            scene.look(25)

        assert scene.said == []

    def test_the_first_exception_is_the_one_that_ended_it(self):
        scene = Scene(**ENDING).beat()
        scene.dog.loop_is_over("OperationalError: the server went away")
        scene.dog.loop_is_over("ValueError: of the clean-up")
        scene.look(31)

        assert "ended by OperationalError" in scene.text("dump")

    def test_even_the_first_turn_has_no_grace_once_it_is_over(self):
        scene = Scene(**ENDING)
        scene.dog.loop_is_over()
        scene.look(31)

        assert scene.said == ["stall_began", "dump"]


class TestTheExitOfTheProcess:
    def test_a_hang_in_it_is_dumped_and_nothing_is_interrupted(self):
        scene = Scene(**ENDING).beat()
        flight = scene.enter()
        scene.dog.loop_is_over("OperationalError: the server went away")
        scene.dog.let_go()
        scene.look(200)

        assert not flight.fired
        assert set(scene.said) == {"stall_began", "dump"}
        assert "phase=exit" in scene.text("dump")
        sentence = scene.actions.incidents["i1"].finding.sentence
        assert "ended by OperationalError" in sentence
        assert "the process has not ended" in sentence

    def test_with_a_limit_it_is_ended(self):
        scene = Scene(**{**ENDING, "terminate_after": 100}).beat()
        scene.dog.let_go()
        with pytest.raises(Ended):
            scene.look(101)

        assert "phase=exit" in scene.text("terminate")

    def test_a_quick_one_says_nothing_and_measures_nothing(self):
        class Counted(Host):
            ticks = 0

            def tick(self, now: float) -> None:
                self.ticks += 1

        host = Counted()
        scene = Scene(host, **ENDING).beat().look()
        scene.dog.let_go()
        before = host.ticks
        scene.look(20)

        assert host.ticks == before > 0
        assert scene.actions.done == []

    def test_what_moves_is_slow_and_not_ended(self):
        scene = Scene(**{**ENDING, "terminate_after": 100}).beat()
        scene.dog.let_go()
        for number in range(150):
            scene.evidence.reading = replace(STUCK, stack=number)
            scene.look()

        assert scene.said == ["slow"]


def an_incident(sentence: str, deeds: int) -> Incident:
    return Incident(
        id="20261123T004624Z-host-1-1",
        host="host",
        pid=1,
        began=0.0,
        first_dump=30.0,
        silence_s=30.0,
        phase="p" * 1000,
        finding=Finding("unknown", "low", sentence),
        snapshot=Snapshot(()),
        call="c" * 1000,
        actions=tuple(Deed(float(n), "interrupt", "signal", "o" * 400) for n in range(deeds)),
    )


class TestSummary:
    def test_it_stays_within_its_bounds(self):
        text = summary(an_incident("ü" * 5000, 500), "dump", "/incidents/" + "x" * 500)

        assert len(text.encode()) <= LIMIT
        assert text.startswith("watchdog_hook: event=dump ")
        assert "Verdict: unknown" in text
        assert "\n Files: " in text

    def test_it_has_the_last_deeds(self):
        text = summary(an_incident("It waits.", 9), "dump", "/incidents/i1")

        assert "At 8.0 s" in text
        assert "At 3.0 s" not in text

"""What a probe makes of a pulse."""

from __future__ import annotations

import json

import pytest

from watchdog_hook.cli import live, main, pulses
from watchdog_hook.cli.live import Life
from watchdog_hook.cli.pulses import Watched
from watchdog_hook.sentinel import pulse as places
from watchdog_hook.sentinel.pulse import Pulse

NOW = 10_000.0


def life(
    *,
    beat: float,
    tick: float = 1.0,
    excused: float = 0.0,
    grace: float = 0.0,
    told: dict[str, str] | None = None,
    max_silence: float = 240.0,
    process: str = "S",
    note: dict[str, object] | None = None,
    torn: bool = False,
) -> Life:
    """
    Return what is made of a pulse; `beat` and `tick` are seconds ago.

    `note`: of the sentinel, of the present silence where it does not say otherwise. `torn`: while it is written.
    """
    memory = bytearray(places.SIZE)
    pulse = Pulse(memory)
    pulse.numbers[places.BEAT_AT] = NOW - beat
    pulse.numbers[places.TICK_AT] = NOW - tick
    pulse.numbers[places.EXCUSED] = excused
    pulse.numbers[places.GRACE] = grace
    pulse.numbers[places.DUMP_AFTER] = 30.0
    lines = (f"{key}={value}" for key, value in (told or {}).items())
    pulse.write(places.STATE, "\n".join(lines))
    pulse.numbers[places.BACKSTOP_AFTER] = 90.0
    if note:
        given = {"since": NOW - tick, "incident": "", **note}
        pulse.write(places.NOTE, "\n".join(f"{key}={value}" for key, value in given.items()))
        memory[places.NOTE[0] + 20] ^= torn
    return Life(Watched(7, pulse), NOW, max_silence, process)


TOLD = {
    "phase": "executor.heartbeat (KubernetesExecutor)",
    "incident": "20261123T004624Z-vm-428-1",
    "sentence": "MainThread has been silent for 30 s: a=b, POST /pods got no answer.",
}


@pytest.mark.parametrize(
    ("beat", "state"), [(0.2, "turning"), (29, "turning"), (31, "silent"), (241, "stalled")]
)
def test_the_age_of_the_last_beat_decides(beat, state):
    assert life(beat=beat).state == state


def test_one_line_says_since_when_where_and_why():
    line = life(beat=251, told=TOLD).line()

    assert line == (
        "stalled: the loop of pid 7 has been silent for 251 s in phase executor.heartbeat"
        " (KubernetesExecutor), more than the 240 s that are allowed. Incident 20261123T004624Z-vm-428-1:"
        " MainThread has been silent for 30 s: a=b, POST /pods got no answer."
    )


def test_a_line_has_room_in_the_event_of_a_probe():
    told = {**TOLD, "sentence": "x" * 1900, "phase": "y" * 1900}

    assert len(life(beat=251, tick=300, told=told).line()) <= live.WIDTH


def test_a_line_is_one_line():
    line = life(beat=251, told={**TOLD, "sentence": "a\x1b[2Jb\u2028c"}).line()

    assert len(line.splitlines()) == 1
    assert "\x1b" not in line


def test_of_a_loop_that_turns_nothing_older_is_told():
    assert life(beat=0.3, told=TOLD).line() == "turning: the loop of pid 7 beat 0.3 s ago."


def test_time_in_which_the_process_did_not_run_is_no_silence():
    assert life(beat=300, excused=280).silence == 20


def test_what_was_excused_before_the_last_beat_is_not_taken_off():
    """As after the end of the watchdog's thread, which would have corrected it."""
    told = life(beat=300, tick=400, excused=280, told=TOLD)

    assert told.silence == 300
    assert "POST" not in told.line()


@pytest.mark.parametrize(("beat", "state"), [(250, "starting"), (301, "stalled")])
def test_starting_and_ending_may_take_their_time(beat, state):
    assert life(beat=beat, grace=300).state == state


def test_a_watchdog_that_does_not_look_is_said_to_be_so_and_the_beats_count():
    turns = life(beat=0.2, tick=500)
    stalled = life(beat=500, tick=500)

    assert turns.state == "turning"
    assert "has not looked for 500 s" in turns.line()
    assert "its log says why" in turns.line()
    assert stalled.state == "stalled"
    assert "something holds the interpreter" in stalled.line()


def test_a_watchdog_that_has_not_had_its_first_look_is_not_late():
    assert not life(beat=0.2, tick=NOW).late


HELD = {"cause": "gil_held", "incident": "X-1", "sentence": "Thread 9 keeps the interpreter."}
STOPPED = {"cause": "stopped", "sentence": "It is stopped (SIGSTOP)."}
SAW = "the sentinel saw"


def test_the_sentinel_says_what_the_watchdog_cannot():
    held = life(beat=500, tick=500, told=TOLD, note=HELD)

    assert (
        f"for 500 s; {SAW} (incident X-1): Thread 9 keeps the interpreter. Incident" in held.line()
    )
    assert "something holds the interpreter" not in held.line()
    assert held.plain()["sentinel"] == HELD


@pytest.mark.parametrize(
    "lacks",
    [
        {"note": HELD, "torn": True},
        {"note": {**HELD, "since": NOW - 500.1}},  # of an earlier silence
        {"note": {**HELD, "since": "x"}},
        {"note": {**HELD, "since": "nan"}},
        {"note": {**HELD, "sentence": ""}},
        {"note": STOPPED},  # and goes on since
        {},
    ],
)
def test_without_a_note_of_this_silence_it_is_said_what_is_known(lacks):
    held = life(beat=500, tick=500, told=TOLD, **lacks)

    assert SAW not in held.line()
    assert "something holds the interpreter" in held.line()
    assert held.plain()["sentinel"] is None


def test_a_note_that_is_younger_than_any_silence_of_the_watchdog_is_none():
    """As one whose silence ended just before the note was written."""
    assert SAW not in life(beat=500, tick=2, note=HELD).line()


def test_a_stopped_process_is_not_said_to_hold_the_interpreter():
    assert SAW not in life(beat=500, tick=500, process="T", note=HELD).line()
    stopped = life(beat=500, tick=500, process="T", note=STOPPED).line()
    assert f"for 500 s; {SAW}: It is stopped (SIGSTOP)." in stopped


def test_a_long_note_has_room_in_the_event_of_a_probe():
    note = {**HELD, "sentence": "z" * 3900}

    assert len(life(beat=500, tick=500, told=TOLD, note=note).line()) == live.WIDTH


def test_a_text_that_is_written_meanwhile_is_read_again():
    class Writing:
        answers = iter([None, None, "a=b=c\nd"])

        def read(self, place: object) -> str | None:
            return next(self.answers)

    assert pulses.lines_of(Writing(), places.STATE) == {"a": "b=c", "d": ""}  # type: ignore[arg-type]


def test_the_worst_comes_first_and_of_the_stalled_the_one_that_says_why():
    turns, silent = life(beat=1), life(beat=40)
    held, followed = life(beat=500, tick=500, note=HELD), life(beat=501, tick=500)
    lives = [turns, followed, held, silent]

    assert sorted(lives, key=Life.badness, reverse=True) == [held, followed, silent, turns]


@pytest.mark.parametrize(
    ("whose", "alone", "name"),
    [
        ("", True, "pid 7"),
        ("", False, "pid 7 (thread 9)"),
        ("component=triggerer\nloop=asyncio", True, "pid 7 (triggerer, asyncio)"),
        ("component=dag_processor", False, "pid 7 (dag_processor)"),
    ],
)
def test_a_loop_has_the_name_that_is_known_of_it(whose, alone, name):
    pulse = Pulse.private()
    pulse.words[places.PID], pulse.words[places.LOOP] = 7, 9
    pulse.write(places.WHOSE, whose)

    assert Watched(7, pulse, alone=alone).name == name


@pytest.mark.parametrize(("letter", "word"), [("T", "SIGSTOP"), ("t", "debugger")])
def test_a_stopped_process_is_said_to_be_one(letter, word):
    assert word in life(beat=500, tick=500, process=letter).line()


def test_letters_that_the_output_cannot_hold_do_not_make_a_probe_fail(monkeypatch, capsys):
    class Plain:
        encoding = "ascii"

        def __init__(self) -> None:
            self.text = ""

        def write(self, text: str) -> None:
            self.text += text.encode("ascii").decode()

    out = Plain()
    monkeypatch.setattr("sys.stdout", out)
    live._print("silent: täglich", [], 0, as_json=False)

    assert out.text == "silent: t\\xe4glich\n"


def test_without_a_watched_process_the_reasons_are_said(monkeypatch, capsys):
    monkeypatch.setattr("watchdog_hook.cli.pulses._pids", list)

    code = main(["live"])

    out = capsys.readouterr().out
    assert code == 1
    assert out.startswith("no process in sight is watched by watchdog_hook")
    assert "enabled is False" in out
    assert len(out) <= live.WIDTH + 1


def test_a_program_gets_the_same(monkeypatch, capsys):
    monkeypatch.setattr("watchdog_hook.cli.pulses._pids", list)

    assert main(["live", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)

    assert (told["alive"], told["processes"]) == (False, [])
    assert "doctor" in told["says"]
    assert life(beat=251, told=TOLD).plain() == {
        "pid": 7,
        "component": None,
        "loop": None,
        "thread": 0,
        "state": "stalled",
        "silence_s": 251.0,
        "allowed_s": 240.0,
        "watchdog_looked_s": 1.0,
        "phase": TOLD["phase"],
        "incident": TOLD["incident"],
        "path": None,
        "verdict": None,
        "sentence": TOLD["sentence"],
        "sentinel": None,
    }


def test_a_process_that_is_not_there_is_not_alive(capsys):
    assert main(["live", "--pid", str((1 << 22) + 1)]) == 1
    assert "there is no process" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["live", "--max-silence", "0"],
        ["live", "--max-silence", "nan"],
        ["live", "--max-silence", "soon"],
        ["live", "--pid", "0"],
        ["live", "--pid", "self"],
        ["dump", "--pid", "-1"],
        ["dump", "7"],
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(arguments, capsys):
    with pytest.raises(SystemExit) as leaving:
        main(arguments)

    assert leaving.value.code == 2


def test_the_help_names_the_default(capsys):
    with pytest.raises(SystemExit):
        main(["live", "--help"])

    assert f"{live.MAX_SILENCE:.0f} by default" in " ".join(capsys.readouterr().out.split())

"""The pulse of a real process, as others see it."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import threading

import pytest

from watchdog_hook import Config, Watchdog
from watchdog_hook.cli.pulses import NotWatched, of
from watchdog_hook.sentinel import pulse
from watchdog_hook.sentinel.pulse import Pulse

LOOK = """
import sys
from watchdog_hook.sentinel import pulse
found = pulse.of_process(int(sys.argv[1]))
print(None if found is None else list([found.beat_at]), found and found.read(pulse.STATE))
"""


def seen_from_outside() -> str:
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(os.getpid())], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_another_process_sees_the_beats_and_the_looks():
    with Watchdog(Config(poll_interval=0.01)) as dog:
        dog.beat()
        beat = dog._beat_at
        while dog.outside.pulse.numbers[pulse.TICK_AT] <= beat:
            pass
        assert seen_from_outside().startswith(f"[{beat!r}]")

        dog.turn()
        assert seen_from_outside().startswith(f"[{dog._beat_at!r}]")
        assert dog.outside.pulse.words[pulse.LOOP] == threading.get_native_id()
        assert dog.outside.pulse.words[pulse.WATCHDOG] in map(int, os.listdir("/proc/self/task"))
    assert seen_from_outside().startswith("None")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_leaves_its_parents_pulse_alone():
    with Watchdog() as dog:
        dog.turn()
        before = dog.outside.pulse.numbers[pulse.OWN_BEAT_AT]
        child = os.fork()
        if not child:
            dog.turn()
            os._exit(0 if pulse.of_process(os.getpid()) is None else 1)
        _, status = os.waitpid(child, 0)

        assert os.waitstatus_to_exitcode(status) == 0
        assert dog.outside.pulse.numbers[pulse.OWN_BEAT_AT] == before
        assert pulse.of_process(os.getpid()) is not None


def test_a_text_that_is_half_written_is_not_read():
    shown = Pulse.shared()
    shown.write(pulse.NOTE, "all of it")
    seen = Pulse.of_descriptor(shown.fd)

    assert seen.read(pulse.NOTE) == "all of it"
    begin = pulse.NOTE[0]
    mmap.mmap(shown.fd, pulse.SIZE)[begin + 8] = ord("A")
    assert seen.read(pulse.NOTE) is None
    shown.close()


def test_a_text_that_is_too_long_loses_its_end():
    page = Pulse.private()
    page.write(pulse.ANSWER, "x" * 5000)

    assert page.read(pulse.ANSWER) == "x" * (pulse.ANSWER[1] - 8)


def test_memory_of_another_layout_is_refused():
    fd = os.memfd_create(pulse.NAME)
    with pytest.raises(ValueError, match="another version"):
        Pulse.of_descriptor(fd)
    os.ftruncate(fd, pulse.SIZE)
    os.pwrite(fd, b"x", 256)
    with pytest.raises(ValueError, match="another version"):
        Pulse.of_descriptor(fd)
    os.close(fd)


def test_a_watchdog_that_was_stopped_does_not_stand_before_the_next_one():
    with Watchdog() as gone:
        pass
    with Watchdog() as dog:
        (found,) = of(os.getpid())

        assert gone.outside.pulse.words[pulse.MARK] == 0
        assert found.pulse.words[pulse.WATCHDOG] == dog.outside.pulse.words[pulse.WATCHDOG]
    with pytest.raises(NotWatched, match="is not watched"):
        of(os.getpid())

"""
Processes that are watched, for those who look from outside: `python -m tests.victims.watched WHAT FOLDER [UID]`.

Each says "ready" once it is what it is called.
"""

from __future__ import annotations

import ctypes
import faulthandler
import itertools
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from watchdog_hook import Config, Watchdog
from watchdog_hook.sentinel import pulse

PR_SET_DUMPABLE = 4
FOREVER = 3600
BACKTRACKS = "(a|aa)+$", "a" * 80 + "b"


def become(uid: int) -> None:
    """Go on as another user, whom others of the same may look into, as if it had been started by him."""
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def ready() -> None:
    """Say that it is so far."""
    print("ready", flush=True)


def turning(dog: Watchdog) -> None:
    """Beat for ever."""
    for number in itertools.count():
        with dog.phase("scheduling"):
            dog.turn()
            time.sleep(0.02)
        if number == 2:
            ready()


def silent(dog: Watchdog) -> None:
    """Wait for a lock of one's own."""
    dog.beat("scheduling")
    ready()
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def holds_interpreter(dog: Watchdog) -> None:
    """Sleep without letting any other thread run."""
    dog.beat("scheduling")
    ready()
    ctypes.PyDLL(None).sleep(FOREVER)


def holds_and_leaves_a_signal(dog: Watchdog) -> None:
    """Compute without letting any other thread run; the hook has a signal at which its stack is written."""
    ready()
    re.match(*BACKTRACKS)


def holds_and_does_not_catch(dog: Watchdog) -> None:
    """Sleep likewise, and have named a signal that would end the process."""
    words = dog.outside.pulse.words
    words[pulse.SIGNAL], words[pulse.BACKSTOP] = signal.SIGUSR1, os.memfd_create("stacks") + 1
    holds_interpreter(dog)


def holds_where_the_host_has_our_number(dog: Watchdog) -> None:
    """Compute likewise; what was ours to write the stack into is a file of the host by now."""
    theirs = os.open(f"{dog.config.incident_dir}.theirs", os.O_RDWR | os.O_CREAT, 0o600)
    faulthandler.register(signal.SIGUSR1, file=theirs, all_threads=False)
    words = dog.outside.pulse.words
    words[pulse.SIGNAL], words[pulse.BACKSTOP] = signal.SIGUSR1, theirs + 1
    holds_and_leaves_a_signal(dog)


def unlooked(dog: Watchdog) -> None:
    """Beat for ever, while the watchdog's thread has ended."""
    dog.fail.off.add("look")
    while any(thread.name == "watchdog-hook" for thread in threading.enumerate()):
        dog.turn()
        time.sleep(0.01)
    turning(dog)


def forks(dog: Watchdog) -> None:
    """Beat for ever, beside a child that was forked."""
    child = os.fork()
    if not child:
        time.sleep(FOREVER)
    print(child, flush=True)
    turning(dog)


def starts(dog: Watchdog) -> None:
    """Beat for ever, beside a child that is watched as well."""
    child = os.fork()
    if not child:
        with Watchdog(dog.config) as own:
            own.beat()
            time.sleep(FOREVER)
    print(child, flush=True)
    turning(dog)


def _beside(dog: Watchdog, loop: Callable[[Watchdog], None]) -> Watchdog:
    """Return the watchdog of another loop in a thread of its own, once it is watched."""
    watched: list[Watchdog] = []

    def run() -> None:
        with Watchdog(dog.config) as own:
            own.turn("beside")
            watched.append(own)
            loop(own)

    threading.Thread(target=run, daemon=True).start()
    while not watched:
        dog.turn()
        time.sleep(0.01)
    print(watched[0].native_id, flush=True)
    return watched[0]


def _waits(dog: Watchdog) -> None:
    time.sleep(FOREVER)


def _turns(dog: Watchdog) -> None:
    while True:
        dog.turn("beside")
        time.sleep(0.02)


def two_of_which_main_is_silent(dog: Watchdog) -> None:
    """Wait for a lock, while a loop in another thread turns."""
    _beside(dog, _turns)
    silent(dog)


def two_of_which_main_turns(dog: Watchdog) -> None:
    """Beat for ever, while a loop in another thread is silent. That one has a name."""
    _beside(dog, _waits).outside.name("triggerer", "asyncio")
    turning(dog)


def two_of_which_one_has_no_watchdog(dog: Watchdog) -> None:
    """Beat in two threads, one of which has lost its watchdog's."""
    _beside(dog, _turns).fail.off.add("look")
    while sum(thread.name == "watchdog-hook" for thread in threading.enumerate()) > 1:
        dog.turn()
        time.sleep(0.01)
    turning(dog)


WHAT: dict[str, Callable[[Watchdog], None]] = {
    each.__name__: each
    for each in (
        turning,
        silent,
        holds_interpreter,
        holds_and_leaves_a_signal,
        holds_where_the_host_has_our_number,
        holds_and_does_not_catch,
        unlooked,
        forks,
        starts,
        two_of_which_main_is_silent,
        two_of_which_main_turns,
        two_of_which_one_has_no_watchdog,
    )
}

# On a busy machine they may well be late by half a second.
BEATING = ("turning", "forks", "starts")


def main() -> None:
    """Be what was asked for."""
    what, folder, *users = sys.argv[1:]
    if what == "unwatched":
        ready()
        time.sleep(FOREVER)
    grace = FOREVER if what == "silent" and "grace" in Path(folder).name else 0
    config = Config(
        poll_interval=0.05,
        sample_after=0.2,
        dump_after=5 if what in BEATING else 0.5,
        startup_grace=grace,
        interrupt="off",
        incident_dir=str(Path(folder, "incidents")),
        sentinel=what == "holds_and_leaves_a_signal",  # it is for the sentinel that the hook does
    )
    dog = Watchdog(config)
    for uid in users:
        become(int(uid))
    with dog:
        WHAT[what](dog)


if __name__ == "__main__":
    main()

"""
A process whose watchdog falls silent. Says "watched" and its sentinel's pid, and does what it is told.

    python tests/victims/silent.py KIND THREADS SETTINGS

SETTINGS is a JSON object of options. A line on standard input begins the silence; a second one ends it where
it can be ended at all.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import select
import signal
import sys
import threading
import time
from collections.abc import Callable

from watchdog_hook import Config, Watchdog
from watchdog_hook.sentinel import pulse

QUICK = {"poll_interval": 0.1, "backstop_after": 1.5, "startup_grace": 0, "interrupt": "off"}
CLONE_VFORK, SIGCHLD = 0x4000, 17
SYS_CLONE = {"x86_64": 56, "aarch64": 220}

holding = ctypes.PyDLL(None)  # what is called through it keeps the GIL


def regex(dog: Watchdog) -> None:
    """Compute in C for hours, with the GIL."""
    re.match(r"(a+)+$", "a" * 60 + "b")


def pydll(dog: Watchdog) -> None:
    """Sleep in C with the GIL, until a line comes."""
    holding.read(0, ctypes.create_string_buffer(2), 2)


def uninterruptible(dog: Watchdog) -> None:
    """Wait as vfork does for a child, which the kernel lets nothing interrupt; with the GIL."""
    if holding.syscall(SYS_CLONE[os.uname().machine], CLONE_VFORK | SIGCHLD, 0, 0, 0, 0) == 0:
        holding.read(0, ctypes.create_string_buffer(2), 2)
        holding._exit(0)


def swapped(dog: Watchdog) -> None:
    """Read much memory in C, with the GIL, after a line has come: it may be in swap then."""
    heap = b"x" * (64 << 20)
    print("heap", flush=True)
    sys.stdin.readline()
    heap.count(b"y")


def another(dog: Watchdog) -> None:
    """Become another program, as the same process: the same victim from its start, which beats."""
    os.execv(sys.executable, [sys.executable, sys.argv[0], "beating", *sys.argv[2:]])


CATCHING = """
import signal, sys
for number in range(signal.SIGRTMIN, signal.SIGRTMAX + 1):
    signal.signal(number, lambda *_: None)
signal.signal(signal.SIGABRT, lambda *_: print("ended", flush=True))
sys.stdin.buffer.raw.read(2)
print("over", flush=True)
"""


def catching(dog: Watchdog) -> None:
    """Become a program that nobody watches, and that catches whatever signal ours did."""
    os.execv(sys.executable, [sys.executable, "-c", CATCHING])


def closing(dog: Watchdog) -> None:
    """Close whatever we do not know, and keep the GIL until a line comes."""
    os.closerange(3, 256)
    pydll(dog)


def closing_early(dog: Watchdog) -> None:
    """The same, once the watchdog has seen what was closed."""
    os.closerange(3, 256)
    numbers = dog.outside.pulse.numbers
    for _ in range(3):
        looked = numbers[pulse.TICK_AT]
        while numbers[pulse.TICK_AT] == looked:
            dog.beat("closed")
    pydll(dog)


def reopening(dog: Watchdog) -> None:
    """Close whatever we do not know, take all its numbers for one file, and keep the GIL until a line comes."""
    theirs = f"{dog.config.incident_dir}.theirs"
    highest = max(map(int, os.listdir("/proc/self/fd")))
    os.closerange(3, 256)
    while os.open(theirs, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600) < highest:
        pass
    pydll(dog)


def plant(dog: Watchdog) -> None:
    """Let the watchdog's thread break at its next look, and see it end."""

    def look(*_: object) -> None:
        raise RuntimeError("planted")

    dog.look = look  # type: ignore[method-assign]
    while dog._thread is not None and dog._thread.is_alive():
        dog.beat("planting")


def fault(dog: Watchdog) -> None:
    """Have no watchdog any more, and beat on until a line comes."""
    plant(dog)
    beating(dog)


def fault_and_silence(dog: Watchdog) -> None:
    """Have no watchdog any more, and wait for a line."""
    plant(dog)
    os.read(0, 1)


def beating(dog: Watchdog) -> None:
    """Beat until a line comes: nothing is wrong inside."""
    ended: list[str] = []
    threading.Thread(target=lambda: ended.append(sys.stdin.readline()), daemon=True).start()
    while not ended:
        dog.beat("beating")
        time.sleep(0.01)


def crowded(dog: Watchdog) -> None:
    """Beat beside threads that compute in Python: each needs some processor time before it lets another one."""

    def compute() -> None:
        while True:
            pass

    for _ in range(8):
        threading.Thread(target=compute, daemon=True).start()
    print("crowded", flush=True)
    beating(dog)


def buried(dog: Watchdog) -> None:
    """Beat until the sentinel, which is our child where we are process 1, has been killed and is no zombie."""
    sentinel = dog.outside.pulse.words[pulse.SENTINEL]
    looked = dog.outside.pulse.numbers[pulse.TICK_AT]
    while dog.outside.pulse.numbers[pulse.TICK_AT] == looked:
        dog.beat("before")
    os.kill(sentinel, signal.SIGKILL)
    while os.path.exists(f"/proc/{sentinel}"):
        dog.beat("waiting")
        time.sleep(0.01)
    print("buried", flush=True)


def followed(dog: Watchdog) -> None:
    """Have a child of the number that the sentinel had, and see how it ended."""
    sentinel = dog.outside.pulse.words[pulse.SENTINEL]
    while not dog.deputies._sentinel:
        dog.beat("before")
    os.kill(sentinel, signal.SIGKILL)
    while os.path.exists(f"/proc/{sentinel}"):
        dog.beat("waiting")
    child = 0
    while child != sentinel:
        with open("/proc/sys/kernel/ns_last_pid", "w") as last:
            last.write(str(sentinel - 1))
        child = os.fork()
        if not child:
            os._exit(7)
        if child != sentinel:
            os.waitpid(child, 0)
    while dog.deputies._expected is not None:
        dog.beat("being missed")
    print("it ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def forking(dog: Watchdog) -> None:
    """Fork a hundred children, see them all end as they should, and keep the GIL until a line comes."""
    codes = set()
    for _ in range(100):
        child = os.fork()
        if not child:
            dog.beat("in a child")
            sys.exit(
                0
            )  # through the interpreter's own end: it would wait for the timer's thread there
        codes.add(os.waitpid(child, 0)[1])
    print("children", sorted(codes), flush=True)
    pydll(dog)


KINDS: dict[str, Callable[[Watchdog], None]] = {
    each.__name__: each
    for each in (
        regex,
        pydll,
        uninterruptible,
        swapped,
        fault,
        another,
        catching,
        closing,
        closing_early,
        reopening,
        fault_and_silence,
        beating,
        crowded,
        buried,
        followed,
        forking,
    )
}


def main() -> None:
    """Be watched, and fall silent when told to."""
    kind, threads, settings = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
    for _ in range(threads - 1):
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    with Watchdog(Config(**{**QUICK, **settings})) as dog:
        words = dog.outside.pulse.words
        while dog.config.sentinel and not words[pulse.SENTINEL]:
            dog.beat("start")
        print("watched", words[pulse.SENTINEL], words[pulse.WATCHDOG], flush=True)
        while not select.select([sys.stdin], [], [], 0.01)[0]:
            dog.beat("waiting")
        sys.stdin.readline()
        dog.beat("stuck")
        KINDS[kind](dog)
        dog.beat("over")
        print("over", flush=True)
        for _ in iter(sys.stdin.readline, ""):
            dog.beat("over")


if __name__ == "__main__":
    main()

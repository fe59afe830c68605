"""What samples and the flight recorder cost while nothing is wrong: the loop, the watchdog's thread, memory."""

from __future__ import annotations

import gc
import itertools
import random
import statistics
import tempfile
import threading
import time
import tracemalloc
from typing import TYPE_CHECKING

from benchmarks.calls import per_call
from benchmarks.crowd import descend, make_functions
from benchmarks.figures import Line, interleaved, median_line
from benchmarks.idle import thread_clock
from watchdog_hook import Config, Watchdog, recorder, sampler, watchdog
from watchdog_hook.core.model import Call, Frame
from watchdog_hook.evidence.here import Evidence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.bench import Effort

TURNS = 10  # a second: a busy scheduler's loop
PHASES = 5  # in each
FRAMES = 30  # of the loop's stack
NEVER = 10**9


def measure_recorder(effort: Effort) -> Iterator[Line]:
    """Measure a turn with and without, a look with and without, and what is kept when all of it is full."""
    marked, bare = turns(effort)
    with_stack, without = looks(effort)
    config = Config()
    rest = (
        watchdog.REST * config.poll_interval * sampler.HEALTHY_EVERY
    )  # seconds between two stacks
    share = [
        100 * (TURNS * (one - other) / 1e9 + (stack - look) / rest)
        for one, other, stack, look in zip(marked, bare, with_stack, without, strict=False)
    ]
    note = (
        f"{TURNS} turns a second of {PHASES} phases, a stack of {FRAMES} frames every {rest:.0f} s"
    )
    yield median_line("samples and recorder: share of one core", share, "%", 0.3, note)
    yield median_line(
        f"a turn of {PHASES} phases against one whose phases only have names",
        [one / other for one, other in zip(marked, bare, strict=True)],
        "x",
    )
    yield median_line(
        "a look that takes a healthy stack against one that does not",
        [one / other for one, other in zip(with_stack, without, strict=True)],
        "x",
        note=f"a look without: {1e6 * statistics.median(without):.0f} µs of the thread's time",
    )
    yield Line("kept in memory, everything full", memory(), "MiB", bound=2)


class Named:
    """A phase that has a name and is not recorded: what there was before."""

    __slots__ = ("_before", "_dog", "_name")

    def __init__(self, dog: Watchdog, name: str) -> None:
        self._dog = dog
        self._name = name

    def __enter__(self) -> None:
        self._before = self._dog.where
        self._dog.where = self._name

    def __exit__(self, *_: object) -> None:
        self._dog.where = self._before


def turns(effort: Effort) -> tuple[list[float], list[float]]:
    """Return nanoseconds of a turn with the recorder, and of one without, turn about."""
    dog = Watchdog()

    def recorded() -> None:
        dog.turn("loop")
        for _ in range(PHASES):
            with dog.phase("a phase"):
                pass

    def bare() -> None:
        dog.beat("loop")
        for _ in range(PHASES):
            with Named(dog, "a phase"):
                pass

    rounds, number = effort(31, 11), effort(5_000, 1_000)
    pairs = interleaved(
        per_call("turn()", number, turn=recorded), per_call("turn()", number, turn=bare), rounds
    )
    return [one for one, _ in pairs], [other for _, other in pairs]


class Counted(Evidence):
    """Knows how many looks there were."""

    looks = 0

    def cpu_seconds(self) -> float:
        """Return the processor time of this process; asked for once in each look."""
        self.looks += 1
        return super().cpu_seconds()


def looks(effort: Effort) -> tuple[list[float], list[float]]:
    """Return processor seconds of a look that takes a stack, and of one that does not, turn about."""
    functions, chance, evidence = make_functions(), random.Random(0), Counted()
    every = sampler.HEALTHY_EVERY
    window, rounds = effort(20, 10) / 10, effort(31, 7)
    effort.say(f"{2 * window * rounds:.0f} s of beating")
    with tempfile.TemporaryDirectory() as folder:
        config = Config(poll_interval=0.05, incident_dir=folder)
        with Watchdog(config, evidence=evidence) as dog:
            names = {thread.name: thread.ident for thread in threading.enumerate()}
            clock = thread_clock(names[watchdog.THREAD_NAME])

            def per_look(healthy_every: int) -> float:
                sampler.HEALTHY_EVERY = healthy_every
                dog._sampler._healthy_in = healthy_every - 1
                until = time.monotonic() + window
                used, looks = time.clock_gettime(clock), evidence.looks
                while time.monotonic() < until:
                    # Each turn by another way: no two of its stacks are equal, which costs the most.
                    descend(
                        chance.sample(functions, FRAMES), lambda: (dog.turn(), time.sleep(0.01))
                    )
                return (time.clock_gettime(clock) - used) / max(1, evidence.looks - looks)

            try:
                per_look(1)  # what the first looks import
                pairs = interleaved(lambda: per_look(1), lambda: per_look(NEVER), rounds)
            finally:
                sampler.HEALTHY_EVERY = every
    return [one for one, _ in pairs], [other for _, other in pairs]


def memory() -> float:
    """Return the MiB that turns, phases, healthy stacks and calls take when each is at its bound."""
    lines = itertools.count(1000)
    depth = recorder.FRAMES // recorder.STACKS

    def fill(dog: Watchdog) -> None:
        for _ in range(2 * recorder.STACKS):
            # No two frames are equal: then the fewest can be shared.
            dog.recorder.healthy(tuple(Frame("f", "/x.py", next(lines)) for _ in range(depth)))
            dog.recorder.beat_seen(0.0)
        for number in range(recorder.PHASES):
            if number % PHASES == 0:
                dog.turn()
            with dog.phase(f"executor.heartbeat (ExecutorOfItsOwn{number})"):
                pass
        for number in range(1000):
            dog.leave(dog.enter(Call(f"GET /api/v1/namespaces/{{namespace}}/{number}")), "200")

    dog = Watchdog()
    return allocated(lambda: fill(dog)) / 2**20


def allocated(fill: Callable[[], None]) -> int:
    """Return the bytes that are held after a call and were not before."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        fill()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

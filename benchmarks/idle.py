"""What the watchdog's thread costs while the loop beats."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from benchmarks.figures import Line, median_line

if TYPE_CHECKING:
    from benchmarks.bench import Effort


def measure_idle(effort: Effort) -> Iterator[Line]:
    """Beat every 10 ms under default settings, and read the processor clock of the watchdog's thread."""
    from watchdog_hook import Config, Watchdog

    shares = []
    with tempfile.TemporaryDirectory() as folder, Watchdog(Config(incident_dir=folder)) as dog:
        clock = thread_clock(*[t.ident for t in threading.enumerate() if t.name == "watchdog-hook"])
        window = 5.0
        effort.say(f"{effort(24, 4) * window:.0f} s of beating")
        _beat_until(dog, time.monotonic() + 1.5)  # what the first look imports
        for _ in range(effort(24, 4)):
            began, used = time.monotonic(), time.clock_gettime(clock)
            _beat_until(dog, began + window)
            spent = time.clock_gettime(clock) - used
            shares.append(100 * spent / (time.monotonic() - began))
    yield median_line("share of one core, poll_interval 1.0", shares, "%", 0.1)


def thread_clock(ident: int | None) -> int:
    """Return the processor clock of one thread."""
    if ident is None:
        raise RuntimeError("the watchdog's thread has not started")
    return time.pthread_getcpuclockid(ident)


def _beat_until(dog: object, end: float) -> None:
    while time.monotonic() < end:
        dog.beat("loop")  # type: ignore[attr-defined]
        time.sleep(0.01)

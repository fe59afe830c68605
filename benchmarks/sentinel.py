"""What the sentinel takes while the watchdog ticks: memory, processor, and the moment of its start."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Line, median_line, worst_line

if TYPE_CHECKING:
    from benchmarks.bench import Effort


def measure_sentinel(effort: Effort) -> Iterator[Line]:
    """Start watchdogs under default settings, and read memory and processor time of their sentinels."""
    starts, sizes, private, shares = [], [], [], []
    window = 10.0
    rounds = effort(6, 2)
    effort.say(f"{rounds * (window + 2):.0f} s of ticks")
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            took, size, own, share = _one(folder, window)
        starts.append(took)
        sizes.append(size)
        private.append(own)
        shares.append(share)
    yield worst_line("resident memory", sizes, "MiB", 12)
    yield worst_line("of it not shared with other Pythons", private, "MiB")
    yield median_line("share of one core", shares, "%", 0.05)
    yield median_line("starting a watchdog with it", starts, "ms")


def _one(folder: str, window: float) -> tuple[float, float, float, float]:
    from watchdog_hook import Config, Watchdog
    from watchdog_hook.sentinel import pulse

    began = time.monotonic()
    with Watchdog(Config(incident_dir=folder)) as dog:
        took = 1000 * (time.monotonic() - began)
        while not (pid := dog.outside.pulse.words[pulse.SENTINEL]):
            time.sleep(0.01)
        _beat_until(dog, time.monotonic() + 3)  # its first looks
        used, since = _seconds(pid), time.monotonic()
        _beat_until(dog, since + window)
        share = 100 * (_seconds(pid) - used) / (time.monotonic() - since)
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
    resident, own = (int(status[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon"))
    return took, resident, own, share


def _seconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def _beat_until(dog: object, end: float) -> None:
    while time.monotonic() < end:
        dog.beat("loop")  # type: ignore[attr-defined]
        time.sleep(0.05)

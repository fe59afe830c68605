"""Gathering everything of a process with many threads and children, and what it costs the others meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Line, median_line, worst_line

if TYPE_CHECKING:
    from benchmarks.bench import Effort
    from watchdog_hook.evidence.here import Evidence

CHECKOUT = Path(__file__).resolve().parents[1]
THREADS, CHILDREN = 1000, 200
DEPTH = 40
CHILDREN_LIVE = 120  # seconds, should nobody end them


def measure_gather(effort: Effort) -> Iterator[Line]:
    """Ask a process of its own, in which every second thread waits for one lock."""
    times = effort(10, 4)
    effort.say(f"{times} times with {THREADS} threads and {CHILDREN} children")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gather", str(times)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    what = (
        f"stacks, kernel, process, children and locks of {THREADS} threads and {CHILDREN} children"
    )
    yield median_line(what, found["whole_ms"], "ms", 250)
    yield worst_line("longest pause of another thread meanwhile", found["pause_ms"], "ms", 20)
    yield median_line("the same without us", found["quiet_ms"], "ms")
    yield median_line("gathering beside a thread that computes", found["beside_ms"], "ms", 250)
    missed = ", ".join(f"{name}: {why}" for name, why in found["missed"].items())
    yield Line("could not be read", note=missed or "nothing was missed")


class Ticker:
    """A thread that sleeps half a millisecond at a time, and remembers its longest wait."""

    def __init__(self) -> None:
        self.worst = 0.0
        threading.Thread(target=self._run, daemon=True).start()

    def take(self) -> float:
        """Return the longest wait since the last time, in milliseconds."""
        worst, self.worst = self.worst, 0.0
        return 1000 * worst

    def _run(self) -> None:
        last = time.perf_counter()
        while True:
            time.sleep(0.0005)
            now = time.perf_counter()
            self.worst, last = max(self.worst, now - last), now


class Held:
    """A lock that most of the crowd waits for."""

    def __init__(self) -> None:
        self.lock = threading.RLock()

    def wait(self) -> None:
        """Stand in its `with`."""
        with self.lock:
            pass

    def deep(self, depth: int, leaf: Callable[[], object]) -> object:
        """Call `leaf` from so many frames further in."""
        return self.deep(depth - 1, leaf) if depth else leaf()


def main() -> None:
    """Be the process that is looked at, and look."""
    children = _sleeping_children()
    try:
        _measure(int(sys.argv[1]))
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
    os._exit(0)  # the crowd waits for ever


def _measure(times: int) -> None:
    from watchdog_hook.evidence.here import Evidence

    evidence, held, never = Evidence(), Held(), queue.Queue()  # type: ignore[var-annotated]
    held.lock.acquire()
    for number in range(THREADS):
        leaf = held.wait if number % 2 else never.get
        threading.Thread(target=held.deep, args=(DEPTH, leaf), daemon=True).start()
    ticker, native = Ticker(), threading.get_native_id()
    time.sleep(1)
    whole, pauses, quiet, beside = [], [], [], []
    for _ in range(times):
        ticker.take()
        time.sleep(0.2)
        quiet.append(ticker.take())
        began = time.perf_counter()
        _look(evidence, native)
        whole.append(1000 * (time.perf_counter() - began))
        pauses.append(ticker.take())
    for _ in range(times):
        with _busy():
            began = time.perf_counter()
            _look(evidence, native)
            beside.append(1000 * (time.perf_counter() - began))
    found = {"whole_ms": whole, "pause_ms": pauses, "quiet_ms": quiet, "beside_ms": beside}
    print(json.dumps({**found, "missed": dict(evidence.unavailable())}), flush=True)


def _look(evidence: Evidence, native: int) -> None:
    """Gather as the watchdog does, from a thread that is not the one looked at."""
    looker = threading.Thread(target=lambda: (evidence.stacks(None), evidence.observe(native)))
    looker.start()
    looker.join()


@contextlib.contextmanager
def _busy() -> Iterator[None]:
    """Have a thread compute in Python, as a loop that is stuck in one does."""
    done = False

    def compute() -> None:
        while not done:
            pass

    thread = threading.Thread(target=compute)
    thread.start()
    yield
    done = True
    thread.join()


def _sleeping_children() -> list[int]:
    found = []
    for _ in range(CHILDREN):
        pid = os.fork()
        if not pid:
            signal.alarm(CHILDREN_LIVE)
            signal.pause()
            os._exit(0)
        found.append(pid)
    return found


if __name__ == "__main__":
    main()

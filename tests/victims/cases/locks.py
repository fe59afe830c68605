"""Locks of threads: waited for, waited for in a circle, or only held."""

from __future__ import annotations

import threading
import time
from typing import Any

from tests.victims.cases.processes import held_elsewhere
from tests.victims.stage import HEARTBEAT, Stage, case


class Exporter:
    """Something with a lock, as a library has it."""

    def __init__(self, kind: Any = threading.RLock) -> None:
        self._lock = kind()

    def flush(self) -> None:
        with self._lock:
            time.sleep(3600)

    def export(self) -> None:
        with self._lock:
            pass


def started(target: Any, name: str) -> None:
    """Start a thread, and return once it stands somewhere for good."""
    threading.Thread(target=target, name=name, daemon=True).start()
    time.sleep(0.2)  # not for a result: the dump comes later than this


@case("lock")
def lock(stage: Stage) -> None:
    exporter = Exporter()
    started(exporter.flush, "OtelPeriodicExportingMetricReader")
    with stage.watched(HEARTBEAT):
        exporter.export()


@case("lock--plain")
def plain_lock(stage: Stage) -> None:
    """A lock that does not know its owner: his frames do."""
    exporter = Exporter(threading.Lock)
    started(exporter.flush, "OtelPeriodicExportingMetricReader")
    with stage.watched(HEARTBEAT):
        exporter.export()


@case("lock--handler")
def handler_lock(stage: Stage) -> None:
    """One thread writes a line of the log to a pipe that nobody reads; another wants to log, too."""
    import logging
    import os

    reader, writer = os.pipe()
    handler = logging.StreamHandler(os.fdopen(writer, "w"))
    log = logging.getLogger("victim")
    log.addHandler(handler)
    started(lambda: log.error("x" * 1_000_000), "uploader")
    with stage.watched(HEARTBEAT):
        log.error("one line more")
    os.close(reader)


@case("lock--timed")
def timed_lock(stage: Stage) -> None:
    """A wait that ends by itself, an hour from now."""
    mine = threading.Lock()
    held_elsewhere(mine)
    with stage.watched(HEARTBEAT):
        mine.acquire(timeout=3600)


@case("lock--owner-unknown")
def unknown_owner(stage: Stage) -> None:
    """Whoever took it has gone on without giving it back."""
    exporter = Exporter(threading.Lock)
    exporter._lock.acquire()
    with stage.watched(HEARTBEAT):
        exporter.export()


@case("lock--thread")
def joins(stage: Stage) -> None:
    """The end of a thread is waited for, which is busy."""
    exporter = Exporter()
    thread = threading.Thread(target=exporter.flush, name="uploader", daemon=True)
    thread.start()
    with stage.watched(HEARTBEAT):
        thread.join()


@case("deadlock")
def deadlock(stage: Stage) -> None:
    first, second = Exporter(), Exporter()
    ready = threading.Barrier(2)

    def other() -> None:
        with second._lock:
            ready.wait()
            with first._lock:
                pass

    threading.Thread(target=other, name="listener", daemon=True).start()
    with stage.watched(HEARTBEAT), first._lock:
        ready.wait()
        with second._lock:
            pass


@case("deadlock--itself")
def deadlock_of_one(stage: Stage) -> None:
    """A lock that its own thread asks for again."""
    exporter = Exporter(threading.Lock)
    with stage.watched(HEARTBEAT), exporter._lock:
        exporter.export()


# --- near misses ------------------------------------------------------------------------------------------


@case("not-lock--held-and-asleep")
def holds_and_sleeps(stage: Stage) -> None:
    """It has the lock that others want, and waits for nobody."""
    exporter = Exporter()
    with stage.watched(HEARTBEAT):
        threading.Timer(0.3, exporter.export).start()
        exporter.flush()


@case("not-lock--condition")
def condition(stage: Stage) -> None:
    """For a notify(), with the lock given back meanwhile."""
    changed = threading.Condition()
    with stage.watched(HEARTBEAT), changed:
        changed.wait()


@case("not-deadlock--timed")
def not_for_ever(stage: Stage) -> None:
    """In a circle, but this thread's wait ends by itself."""
    first, second = threading.Lock(), threading.Lock()
    ready = threading.Barrier(2)

    def other() -> None:
        with second:
            ready.wait()
            with first:
                pass

    threading.Thread(target=other, name="listener", daemon=True).start()
    with stage.watched(HEARTBEAT), first:
        ready.wait()
        second.acquire(timeout=3600)


@case("not-deadlock--others")
def deadlock_of_others(stage: Stage) -> None:
    """Two other threads are in a circle, and this one waits for neither."""
    first, second = Exporter(), Exporter()
    ready = threading.Barrier(2)

    def one() -> None:
        with first._lock:
            ready.wait()
            with second._lock:
                pass

    def other() -> None:
        with second._lock:
            ready.wait()
            with first._lock:
                pass

    for work in (one, other):
        threading.Thread(target=work, daemon=True).start()
    with stage.watched(HEARTBEAT):
        threading.Event().wait()

"""
A call's end and the shot at it, nearly simultaneous, again and again: where does the exception come out?

    python tests/victims/race.py --thread worker --guard ours --rounds 20000

`ours` is the real Book, Guard and Interrupter. `naive` is what they replace: a flag that is looked at, and
then a shot. Prints one line of JSON. A leak is a timeout that came out anywhere but in the guarded call.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import signal
import socket
import sys
import threading
import time
from collections import Counter
from typing import Any

from watchdog_hook.actions.interrupt import SIGNAL, Interrupter
from watchdog_hook.book import Book, Guard
from watchdog_hook.core.model import StuckCallTimeout, ThreadReading

SWITCH = 5e-6  # seconds: so that the threads change places everywhere, not every 5 ms


class NaiveGuard:
    """A flag around the call."""

    def __init__(self) -> None:
        self.inside = False

    def __enter__(self) -> NaiveGuard:
        self.inside = True
        return self

    def __exit__(self, *_: object) -> None:
        self.inside = False


class Naive:
    """Looks at the flag, then fires."""

    def __init__(self, victim: int, by_signal: bool) -> None:
        self.guard = NaiveGuard()
        self._victim = victim
        self._by_signal = by_signal
        if by_signal:
            signal.signal(SIGNAL, self._deliver)

    def aim(self) -> bool:
        return self.guard.inside

    def fire(self, descriptor: int) -> bool:
        if self._by_signal:
            signal.pthread_kill(self._victim, SIGNAL)
            return True
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(self._victim), ctypes.py_object(StuckCallTimeout)
        )
        with socket.socket(fileno=socket.dup(descriptor)) as twin:
            twin.shutdown(socket.SHUT_RDWR)
        return True

    def _deliver(self, *_: object) -> None:
        raise StuckCallTimeout


class Ours:
    """The real ones, aimed by where the victim stands."""

    def __init__(self, victim: int, by_signal: bool) -> None:
        self.book = Book(time.monotonic)
        self._victim = victim
        self._lever = "signal" if by_signal else "shutdown"
        self._interrupter = Interrupter(self.book.current)
        self._interrupter.arm()
        self._flight: Any = None
        self._position = (0, 0, 0)

    @property
    def guard(self) -> Guard:
        return Guard(self.book, "race")

    def aim(self) -> bool:
        frame = sys._current_frames().get(self._victim)
        self._flight = self.book.current(self._victim)
        if frame is None or self._flight is None or frame.f_code is not ask.__code__:
            return False
        self._position = (id(frame), id(frame.f_code), frame.f_lasti)
        return True

    def fire(self, descriptor: int) -> bool:
        reading = ThreadReading(self._position, 0, None, descriptor=descriptor)
        return self._interrupter.fire(self._lever, self._flight, reading, None, 1.0) == "fired"


class Line:
    """A connection whose other end answers, or does not."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


class Race:
    """One victim, one shooter."""

    def __init__(self, side: Any, seed: int) -> None:
        self.side = side
        self.random = random.Random(seed)
        self.line = Line()
        self.go, self.over = threading.Lock(), True
        self.go.acquire()
        self.answered = False
        self.stop = False
        self.counts: Counter[str] = Counter()
        self.lock = threading.RLock()

    # --- the victim -------------------------------------------------------------------------------

    def run(self, rounds: int) -> None:
        for _ in range(rounds):
            while True:
                try:
                    self.once()
                    break
                except StuckCallTimeout:  # so late that even the catching was left behind
                    self.counts["leaks"] += 1
                    self.wait_for_shooter()
        self.stop = True
        self.go.release()

    def once(self) -> None:
        line, interrupted = self.line, False
        self.answered, self.over = False, False
        self.go.release()
        try:
            with self.side.guard:
                ask(line.ours)
        except StuckCallTimeout:
            interrupted = True
        self.wait_for_shooter()
        if interrupted:
            self.counts["interrupted"] += 1
            if self.answered and not unread(line.ours):
                self.counts["lost_answers"] += 1
            self.line = Line()
            line.close()
        elif unread(line.ours) is not None:
            # An answer that came after the end of a call would be the next one's.
            self.line = Line()
            line.close()

    def wait_for_shooter(self) -> None:
        while not self.over:
            try:
                innocent(self.lock)
            except StuckCallTimeout:
                self.counts["leaks"] += 1

    # --- the shooter ------------------------------------------------------------------------------

    def shoot(self) -> None:
        while True:
            self.go.acquire()
            if self.stop:
                return
            self.shoot_once()
            self.over = True

    def shoot_once(self) -> None:
        answer_at = self.random.choice(("before", "between", "after"))
        line, side = self.line, self.side
        for _ in range(1000):
            if side.aim():
                break
            time.sleep(0)
        else:
            self.counts["never_aimed"] += 1
            self.answer(line)
            return
        self.jitter()
        if answer_at == "before":
            self.answer(line)
            self.jitter()
        aimed = side.aim()
        if answer_at == "between":
            self.answer(line)
        self.jitter()
        if aimed and side.fire(line.ours.fileno()):
            self.counts["fires"] += 1
        self.jitter()
        if answer_at == "after":
            self.answer(line)

    def answer(self, line: Line) -> None:
        try:
            line.theirs.send(b"!")
            self.answered = True
        except OSError:  # shut down by the shot
            pass

    def jitter(self) -> None:
        kind = self.random.random()
        if kind < 0.3:
            return
        if kind < 0.5:
            time.sleep(0)  # lets go of the interpreter
            return
        for _ in range(int(self.random.random() * self.random.choice((60, 600)))):
            pass


def ask(sock: socket.socket) -> None:
    """The guarded call."""
    sock.recv(1)


class Mortal:
    """Has an end of its own, where an exception would be lost."""

    def __del__(self) -> None:
        sum(range(3))


def innocent(lock: Any) -> None:
    """What any program does between two calls."""
    with lock:
        Mortal()
        sorted(str(number) for number in range(5))


def unread(sock: socket.socket) -> bytes | None:
    """Return what lies in the buffer; None when there is nothing."""
    try:
        return sock.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) or b""
    except OSError:
        return None


def main() -> None:
    """Run the race and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1] if __doc__ else None)
    parser.add_argument("--thread", choices=("main", "worker"), required=True)
    parser.add_argument("--guard", choices=("ours", "naive"), required=True)
    parser.add_argument("--rounds", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    sys.setswitchinterval(SWITCH)
    made: list[Race] = []
    unraisable: list[object] = []
    sys.unraisablehook = lambda args: unraisable.append(args.exc_type)

    def victim() -> None:
        side = Ours if chosen.guard == "ours" else Naive
        race = Race(side(threading.get_ident(), chosen.thread == "main"), chosen.seed)
        made.append(race)
        shooter = threading.Thread(target=race.shoot, daemon=True)
        shooter.start()
        race.run(chosen.rounds)
        shooter.join()

    if chosen.thread == "main":
        victim()
    else:
        thread = threading.Thread(target=victim)
        thread.start()
        thread.join()
    race = made[0]
    race.line.close()
    counts = race.counts
    counts["leaks"] += sum(
        isinstance(kind, type) and issubclass(kind, StuckCallTimeout) for kind in unraisable
    )
    if chosen.guard == "ours":
        counts["left_in_book"] = len(race.side.book.in_flight())
    print(json.dumps({"rounds": chosen.rounds, **vars(chosen), **counts}))


if __name__ == "__main__":
    main()

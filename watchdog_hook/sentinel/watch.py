"""The sentinel's loop: wait, look at the pulse, and speak when the watchdog's ticks stop."""

from __future__ import annotations

import os
import time

from watchdog_hook.sentinel import proc, pulse
from watchdog_hook.sentinel.judge import judge
from watchdog_hook.sentinel.life import Life
from watchdog_hook.sentinel.mouth import Mouth
from watchdog_hook.sentinel.pulse import Pulse
from watchdog_hook.sentinel.record import Files
from watchdog_hook.sentinel.report import Report
from watchdog_hook.sentinel.words import log_line

LOOK_EVERY = 2.0  # seconds; less where the backstop is shorter
LEAST_TOLERANCE = (
    2.0  # seconds our own wait may be late before everything counts as having stood still
)
READINGS = 5
BETWEEN = 0.25  # seconds from one reading to the next
SURE = 3  # looks in a row that find a reason to end it
LAST_WORDS = 5.0  # seconds between SIGABRT and SIGKILL
SIGABRT, SIGKILL = 6, 9


class Sentinel:
    """Watches one watchdog. `look` is one turn of it, `turn` tells whether there is anything left to watch."""

    def __init__(
        self, seen: Pulse, text: int, files: Files, py_spy: str, mouth: Mouth, inode: int = 0
    ) -> None:
        """`inode`: of the pulse; 0: it is not known."""
        self._pulse = seen
        self._inode = inode
        self._life = Life(seen.words[pulse.PID], seen.words[pulse.STARTED])
        self._mouth = mouth
        self._report = Report(seen, self._life, text, files, py_spy, mouth)
        self._since = time.monotonic()  # when we came, or when everything last stood still
        self._slept = _slept()
        self._due = 0.0  # silence at which the next report is due; 0 while the watchdog ticks
        self._sure = 0  # looks in a row that found a reason to end it
        self._helpless = False  # it could not be ended
        self._over = False  # another program runs in that process
        self._watchdog_since = (
            0  # start of the watchdog's thread, in the kernel's ticks; 0: it is not known
        )

    def run(self) -> None:
        """Watch until the process ends, or nobody is watched there any more."""
        self._pulse.words[pulse.SENTINEL] = os.getpid()
        if self._life.is_same():
            while not self._over and self.turn():
                self.look()

    def turn(self) -> bool:
        """Wait for the next look; return False where there is none to come."""
        interval = min(LOOK_EVERY, self._pulse.numbers[pulse.BACKSTOP_AFTER] / 4)
        asleep = time.monotonic()
        if self._life.ends_within(interval) or self._pulse.words[pulse.MARK] != pulse.MAGIC:
            return False
        now = time.monotonic()
        slept, before = _slept(), self._slept
        self._slept = slept
        if now - asleep - interval > LEAST_TOLERANCE or slept - before > LEAST_TOLERANCE:
            self._since = now  # the machine, or the container with us in it, did not run
        return True

    def look(self) -> None:
        """Look once."""
        numbers = self._pulse.numbers
        after, end = numbers[pulse.BACKSTOP_AFTER], numbers[pulse.TERMINATE_AFTER]
        silence = self._silence()
        if silence < after:
            self._sure = 0
            self._watchdog_since = self._watchdog_since or self._watchdog_began()
            if self._due:
                self._due = 0.0
                self._report.ended()
            return
        self._over = self._is_another()
        if self._over:
            return
        if (not self._due or silence >= self._due) and self._examine(after):
            self._due = 2 * max(after, self._due)
        if end and not self._helpless:
            self._sure = self._sure + 1 if self._may_end(end) else 0
            if self._sure >= SURE:
                self._end_process(end)

    def _is_another(self) -> bool:
        """
        Tell whether the process has become another program: it has neither the pulse nor the watchdog's thread.

        One that only closes what it does not know goes on with its threads, all of which an exec ends.
        """
        if pulse.holds(self._life.pid, self._inode):
            return False
        return not self._watchdog_since or self._watchdog_began() != self._watchdog_since

    def _watchdog_began(self) -> int:
        tid = self._pulse.words[pulse.WATCHDOG]
        fields = proc.stat(f"/proc/{self._life.pid}/task/{tid}/stat")
        return int(fields[19]) if fields else 0

    def _silence(self) -> float:
        return time.monotonic() - self._began()

    def _began(self) -> float:
        return max(self._pulse.numbers[pulse.TICK_AT], self._since)

    def _readings(self) -> list[proc.Reading] | None:
        """Return some readings; None where the process or its silence came to an end meanwhile."""
        words, tick = self._pulse.words, self._pulse.numbers[pulse.TICK_AT]
        detailed = (words[pulse.WATCHDOG], words[pulse.LOOP])
        found = []
        for _ in range(READINGS):
            if self._life.ends_within(BETWEEN):
                return None
            found.append(proc.read(self._life.pid, detailed))
        return found if self._pulse.numbers[pulse.TICK_AT] == tick else None

    def _examine(self, silence: float) -> bool:
        """Find the cause and tell it; return whether there was anything to tell. A loop beats within `silence`."""
        readings = self._readings()
        if readings is None:
            return False
        words = self._pulse.words
        beating = time.monotonic() - self._pulse.beat_at < silence
        loop = words[pulse.LOOP]
        verdict = judge(readings, words[pulse.WATCHDOG], loop, beating=beating)
        self._report.make(verdict, self._began())
        return True

    def _may_end(self, after: float) -> bool:
        """Tell whether ticks and beats are silent for so long, of a cause that nothing inside can end."""
        numbers, words = self._pulse.numbers, self._pulse.words
        now, silence = time.monotonic(), self._silence()
        loop = min(now - self._pulse.beat_at - numbers[pulse.EXCUSED], now - self._since)
        if silence < after or loop < max(after, numbers[pulse.GRACE]):
            return False
        readings = self._readings()
        if readings is None:
            return False
        number = words[pulse.SIGNAL]
        caught = proc.catches(self._life.pid, number) if number else None
        if caught is False or self._is_another():
            return False  # it has become another program
        return judge(readings, words[pulse.WATCHDOG], words[pulse.LOOP]).may_end

    def _end_process(self, after: float) -> None:
        seen = self._signs()
        line = log_line(
            "terminate",
            incident=self._report.incident,
            silent_s=self._silence(),
            action="SIGABRT, then SIGKILL",
            pid=self._life.pid,
            cause=self._report.cause,
            terminate_after=after,
        )
        self._mouth.say(line)
        self._report.acted("terminate", "SIGABRT, then SIGKILL")
        for number in (SIGABRT, SIGKILL):
            # It may have come back while we spoke. And process 1 of a container outlives the first signal, which
            # may have ended the call that held it.
            same = self._signs() == seen
            if same and self._life.send(number) and self._life.ends_within(LAST_WORDS):
                return
            if self._signs() != seen:
                self._mouth.say(log_line("terminate", outcome="it goes on", pid=self._life.pid))
                return
        self._helpless = True
        outcome = "it is still there: process 1 of a container cannot be killed from inside of it"
        self._mouth.say(log_line("terminate", outcome=outcome, pid=self._life.pid))

    def _signs(self) -> tuple[float, float]:
        """Return the last signs of life, the watchdog's and the loop's."""
        return self._pulse.numbers[pulse.TICK_AT], self._pulse.beat_at


def _slept() -> float:
    """Return for how long the machine has been suspended since it was started, in seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


def main(arguments: list[str]) -> None:
    """Watch what the arguments name: see `__main__`."""
    memory, text, directory, host, retention, py_spy = arguments
    for fd in (int(memory), int(text)):
        os.set_inheritable(fd, False)
    try:
        seen = Pulse.of_descriptor(int(memory), write=True)
    except ValueError:  # disarmed before we came
        return
    inode = os.fstat(int(memory)).st_ino
    os.close(int(memory))
    files = Files(directory, host, seen.words[pulse.PID], int(retention))
    mouth = Mouth()
    try:
        Sentinel(seen, int(text), files, py_spy, mouth, inode).run()
    except Exception as error:  # noqa: BLE001 - a traceback in the scheduler's log would look like its own
        # The watchdog misses us, and has faulthandler's timer speak for itself.
        what = f"{type(error).__name__}: {error}"
        where = _place(error)
        mouth.say(log_line("part_off", outcome=f"{what} ({where})", part="sentinel"))


def _place(error: BaseException) -> str:
    """Return where an exception was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "?"

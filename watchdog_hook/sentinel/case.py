"""What a few readings of a silent process say in numbers: who wanted what, and what it got."""

from __future__ import annotations

import itertools

TYPE_CHECKING = False  # as typing has it, which takes memory to import
if TYPE_CHECKING:
    from collections.abc import Sequence

    from watchdog_hook.sentinel.proc import Reading, Thread

# A thread that wants the interpreter wakes every 5 ms to ask for it (sys.getswitchinterval; CPython's
# Python/ceval_gil.c, take_gil): 195 times a second, and still 64 where four others want each processor. One that
# waits for anything else sleeps for long; for an errand of ours it wakes five times a second (errand.py, STEP).
# A host that has set an interval of 50 ms or more is not known to ask.
ASKING = 20.0  # times a second
LITTLE = 0.1  # of one processor: with less than that a thread does not compute, and one that wants to is hungry
HALF = 0.5  # of one processor: the same for several that compute in turn
# A thread that computes in turn with others has some milliseconds at a time; one that only asks has microseconds.
TURN = 0.001  # seconds from one reading to the next
ASK = 50e-6  # seconds for waking and going to sleep again
TURNS = 3.0  # times a second that one lets go
STOPPED = 0.5  # of the periods of a CPU limit
SWAPPING = 20.0  # pages a second that came from swap or a disk
A_PAGE = 1.0  # the same: more than chance
MEMORY_WAIT = 0.1  # of the time
# Measured: a page takes 60 us from compressed memory and 135 us from a quick disk, half of it the kernel's work.
FAST = 500.0  # pages a second
OFF = 0.3  # of the time, off the processors
# Pages are read ahead, as the kernel comes 32 at once of a file (read_ahead_kb) and 8 of swap (vm.page-cluster). A
# thread sleeps for each that it touches before that is there, and only the first of them is a major fault.
READ_AHEAD = 32


class Case:
    """The readings, and what follows from them in numbers."""

    def __init__(self, readings: Sequence[Reading], watchdog: int, loop: int) -> None:
        first, last = readings[0], readings[-1]
        self.watchdog, self._loop = watchdog, loop
        self._all = [reading.threads or {} for reading in readings]
        self._seconds = max(last.at - first.at, 1e-3)
        self.faults = (last.faults - first.faults) / self._seconds
        limits = zip(first.stops, last.stops, strict=False)  # it may have changed its cgroup
        shares = [(now[1] - before[1]) / max(now[0] - before[0], 1) for before, now in limits]
        self._stopped = max(shares, default=0.0)
        self._memory = self._share(first.memory_wait, last.memory_wait)
        self._swapped = last.swapped

    def paging(self) -> int | None:
        """
        Return a thread that waits for its pages; None where none does or the silence does not come from that.

        The kernel's pressure figure alone would miss most: it counts a page only if that was in use shortly before
        it went (mm/page_io.c, swap_read_folio), and what has lain in swap for long was not.
        """
        waiting = [tid for tid in self._all[-1] if self._waits_for_pages(tid)]
        # The watchdog may also wait for another thread that wants the interpreter, as it does when it starts one.
        wanted = any(self._sleeps(tid) >= ASKING for tid in self._all[-1] if tid not in waiting)
        if (self.watchdog in waiting or wanted) and self.busiest() in (None, *waiting):
            # It may be one after the other: the interpreter passes from one to the next, and each has to wait.
            asleep = [
                [tid for tid in waiting if self._state(threads, tid) == "D"]
                for threads in self._all
            ]
            if 2 * sum(map(bool, asleep)) > len(asleep):
                return next(tid for tids in reversed(asleep) for tid in tids)
            fast = [tid for tid in waiting if self._pages_fast(tid)]
            if fast:
                return fast[0]
        if self.faults > SWAPPING and self._memory > MEMORY_WAIT:
            return max(self._all[-1], key=self._faults)
        return None

    def brings_pages(self) -> bool:
        """
        Tell whether pages had to come from swap or a disk meanwhile: then it may go on by itself.

        Who keeps the interpreter brings none. On a busy machine a process that swaps looks like one that is held.
        """
        return self.faults >= A_PAGE

    def limit(self) -> str | None:
        """Return what the CPU limit of its cgroup did, in words; None where it did nothing that matters."""
        if self._stopped <= STOPPED:
            return None
        return f"its cgroup's CPU limit stopped it in {100 * self._stopped:.0f} % of the limit's periods"

    def asks(self) -> bool:
        """Tell whether the watchdog's thread wakes again and again for want of the interpreter."""
        return self._sleeps(self.watchdog) >= ASKING

    def hungry(self) -> int | None:
        """
        Return a thread that wants to run and hardly does; None where the process gets what it wants.

        Any thread will do, and it may be one after the other: the rest waits for the one that has the interpreter.
        """
        if sum(map(self.cpu, self._all[-1])) >= (HALF if self.rivals() else LITTLE):
            return None
        steps = list(itertools.pairwise(self._all))
        wanting = [tid for before, now in steps for tid in now if _wants(before.get(tid), now[tid])]
        seen = sum(any(_wants(before.get(tid), now[tid]) for tid in now) for before, now in steps)
        return wanting[-1] if 2 * seen >= len(steps) and wanting else None

    def rivals(self) -> int:
        """Return how many threads take the interpreter from one another; 0 where one may hold it all the time."""
        computing = {
            tid
            for before, now in itertools.pairwise(self._all)
            for tid in now
            if tid != self.watchdog and _computes(before.get(tid), now[tid])
        }
        one = len(computing) < 2 and not any(self._lets_go(tid) > TURNS for tid in computing)
        # Python code of all threads together has one processor at most: what has more computes without the GIL.
        apart = sum(map(self.cpu, computing)) > 1.2 and not any(map(self._sleeps, computing))
        return 0 if one or apart else len(computing)

    def uninterruptible(self) -> int | None:
        """Return the thread that was in that state at every reading; ours and the loop's first."""
        return self._always("D")

    def busiest(self) -> int | None:
        """Return the thread that computes; None where none does."""
        share, tid = max((self.cpu(tid), tid) for tid in self._all[-1])
        return tid if share >= LITTLE else None

    def cpu(self, tid: int) -> float:
        """Return the share of one processor that a thread had."""
        before, now = self._all[0].get(tid), self._all[-1].get(tid)
        return (now.cpu - before.cpu) / self._seconds if before and now else 0.0

    def name(self, tid: int) -> str:
        if tid == self.watchdog:
            return "The watchdog's thread"
        return "The loop's thread" if tid == self._loop else f"Thread {tid}"

    def signs(self, tid: int) -> tuple[str, ...]:
        found = []
        if self.asks():
            found.append("the watchdog's thread asks for the interpreter every few milliseconds")
        now = self._all[-1].get(tid)
        if now is not None:
            where = f", in {now.wchan}" if now.wchan else ""
            found.append(
                f"{self.name(tid)}: state {now.state}, {100 * self.cpu(tid):.0f} % of a processor{where}"
            )
        return tuple(found)

    def swapped(self) -> tuple[str, ...]:
        megabytes = round(self._swapped / 1024)
        return (f"{megabytes} MB of the process are in swap",) if megabytes else ()

    def _sleeps(self, tid: int) -> float:
        """Return how many times a second a thread went to sleep."""
        before, now = self._all[0].get(tid), self._all[-1].get(tid)
        if before is None or now is None or before.sleeps is None or now.sleeps is None:
            return 0.0
        return (now.sleeps - before.sleeps) / self._seconds

    def _waits_for_pages(self, tid: int) -> bool:
        """Tell whether a thread had pages brought, and slept uninterruptibly for hardly anything else."""
        own = [threads[tid] for threads in self._all if tid in threads]
        slept = sum(
            _slept(before, now)
            for before, now in itertools.pairwise(own)
            if before.state == now.state == "D"
        )
        return self._faults(tid) > 0 and slept <= READ_AHEAD * self._faults(tid)

    def _pages_fast(self, tid: int) -> bool:
        """Tell whether a thread has page after page brought, each so soon that its sleep is hardly seen."""
        faults = self._faults(tid) / self._seconds
        return faults > FAST and self._sleeps(tid) < 2 * faults and self.cpu(tid) < 1 - OFF

    def _faults(self, tid: int) -> int:
        """Return how many pages a thread had brought."""
        before, now = self._all[0].get(tid), self._all[-1].get(tid)
        return now.faults - before.faults if before and now else 0

    def _lets_go(self, tid: int) -> float:
        """Return how many times a second a thread slept for another reason than a page of its memory."""
        return self._sleeps(tid) - self._faults(tid) / self._seconds

    def _always(self, state: str) -> int | None:
        for tid in (self.watchdog, self._loop, *self._all[-1]):
            if all(self._state(threads, tid) == state for threads in self._all):
                return tid
        return None

    def _share(self, before: float | None, now: float | None) -> float:
        return (now - before) / self._seconds if before is not None and now is not None else 0.0

    def _state(self, threads: dict[int, Thread], tid: int) -> str:
        thread = threads.get(tid)
        return thread.state if thread else ""


def _computes(before: Thread | None, now: Thread) -> bool:
    """Tell whether a thread got something done between two readings, beyond waking and waiting on."""
    return before is not None and now.cpu - before.cpu - _slept(before, now) * ASK >= TURN


def _wants(before: Thread | None, now: Thread) -> bool:
    """Tell whether a thread wanted to run between two readings. One that sleeps again and again only asks."""
    if before is None or "R" not in (before.state, now.state):
        return False
    return _slept(before, now) <= 2


def _slept(before: Thread, now: Thread) -> int:
    """Return how many times a thread went to sleep between two readings."""
    return now.sleeps - before.sleeps if now.sleeps is not None and before.sleeps is not None else 0

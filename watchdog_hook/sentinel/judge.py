"""
Why the watchdog is silent, told from outside: a decision over a few readings of its process, and no more.

Order matters: what is certain comes first, and what explains the rest.
"""

from __future__ import annotations

import itertools

TYPE_CHECKING = False  # as typing has it, which takes memory to import
if TYPE_CHECKING:
    from collections.abc import Sequence

    from watchdog_hook.sentinel.proc import Reading, Thread

# A thread that wants the interpreter wakes every 5 ms to ask for it (sys.getswitchinterval; CPython's
# Python/ceval_gil.c, take_gil). One that waits for anything else sleeps for long.
ASKING = 20.0  # times a second
LITTLE = 0.1  # of one processor: with less than that a thread does not compute, and one that wants to is hungry
HALF = 0.5  # of one processor: the same for several that compute in turn; also of the periods of a CPU limit
# A thread that computes in turn with others has some milliseconds at a time; one that only asks has microseconds.
TURN = 0.001  # seconds from one reading to the next
ASK = 50e-6  # seconds for waking and going to sleep again
TURNS = 3.0  # times a second that one lets go
THROTTLED = 0.1  # of the time
SWAPPING = 20.0  # pages a second that came from swap or a disk
MEMORY_WAIT = 0.1  # of the time
# Measured: a page takes 60 us from compressed memory and 135 us from a quick disk, half of it the kernel's work.
FAST = 500.0  # pages a second
OFF = 0.3  # of the time, off the processors
# Pages are read ahead, as the kernel comes 32 at once of a file (read_ahead_kb) and 8 of swap (vm.page-cluster). A
# thread sleeps for each that it touches before that is there, and only the first of them is a major fault.
READ_AHEAD = 32

LIMITS = "give it more CPU, or take away what competes for it; see the container's CPU limit"


class Verdict:
    """A cause in a sentence; whether a dump may be asked for; whether the process may be ended for it."""

    __slots__ = ("all_threads", "ask", "id", "incident", "may_end", "remedy", "sentence", "signs")

    def __init__(
        self,
        id: str,
        sentence: str,
        remedy: str = "",
        signs: tuple[str, ...] = (),
        *,
        ask: bool = False,
        all_threads: bool = False,
        incident: bool = False,
        may_end: bool = False,
    ) -> None:
        self.id = id
        self.sentence = sentence
        self.remedy = remedy
        self.signs = signs
        self.ask = ask  # the loop's thread for its stack
        self.all_threads = all_threads  # for the others' too
        self.incident = incident or may_end  # worth files of its own
        self.may_end = may_end


def judge(
    readings: Sequence[Reading], watchdog: int, loop: int, *, beating: bool = False
) -> Verdict:
    """
    Return the cause. `watchdog` and `loop`: ids of the two threads; 0 where none is known.

    `beating`: the loop goes on. A dump is asked for only where the loop's thread runs no Python code: faulthandler
    may crash a process whose frames change while it walks over them.
    """
    last = readings[-1]
    if not last.threads:
        return Verdict(
            "hidden",
            "/proc does not show the process, so it cannot be told why its watchdog is silent.",
            "run the sentinel where /proc shows its own user's processes (hidepid, a user namespace)",
        )
    case = _Case(readings, watchdog, loop)
    still = not beating and case.cpu(loop) < LITTLE
    own = last.threads.get(watchdog) or last.threads.get(loop) or next(iter(last.threads.values()))
    if last.tracer and own.state in "tT":
        return Verdict(
            "traced",
            f"Process {last.tracer} traces it (a debugger, strace) and holds it.",
            "let it go on, or detach",
        )
    if own.state in "tT":
        return Verdict(
            "stopped", "It is stopped (SIGSTOP).", "kill -CONT it, and find who stopped it"
        )
    if last.frozen:
        return Verdict(
            "frozen", "Its cgroup is frozen.", "thaw it: docker unpause, or who froze it"
        )
    paging = case.paging()
    if paging is not None:
        rate = f"{case.faults:.{0 if case.faults >= 10 else 1}f}"
        return Verdict(
            "swapping",
            f"It waits for memory: {rate} pages a second have to come from swap or a disk.",
            "give it more memory; see the container's memory limit, what else runs on the node, and its disk",
            (*case.signs(paging), *case.swapped()),
        )
    if watchdog not in last.threads and watchdog:
        return Verdict(
            "watchdog_gone",
            "The watchdog's thread has ended; what it said last stands in the log (event=part_off).",
            "restart it at an occasion, and report what the log says",
            ask=still,
            may_end=True,
        )
    asleep = case.uninterruptible()
    if asleep is not None and (asleep == watchdog or case.asks()):
        wait = last.threads[asleep].wchan
        return Verdict(
            "uninterruptible",
            f"{case.name(asleep)} is in uninterruptible sleep{f' in {wait}' if wait else ''}: the kernel waits for"
            " a device or a file server.",
            "look for a disk or a network file system that does not answer (dmesg, mount)",
            (*case.signs(asleep), *case.swapped()),
        )
    hungry = case.hungry()
    if hungry is not None:
        why = case.limit() or "others have the processors"
        return Verdict("starved", f"It gets no CPU: {why}.", LIMITS, case.signs(hungry))
    if case.asks():
        rivals = case.rivals()
        return _contended(rivals) if rivals else _held(case)
    wait = own.wchan
    return Verdict(
        "unknown",
        "The watchdog's thread lives, and neither works nor wants the interpreter"
        f"{f'; it waits in {wait}' if wait else ''}.",
        ask=still,
        incident=True,
        # Where others compute in turn it may only be slow.
        may_end=not case.rivals(),
    )


def _contended(rivals: int) -> Verdict:
    return Verdict(
        "gil_contended",
        f"{rivals} threads compute in Python and take the interpreter (the GIL) from one another; the watchdog's"
        " waits for its turn.",
        "find what computes in threads of the scheduler: a plugin, a listener; and give it more CPU",
        incident=True,
    )


def _held(case: _Case) -> Verdict:
    busy = case.busiest()
    if busy is None:
        return Verdict(
            "gil_held",
            "A call into C sleeps and keeps the interpreter (the GIL): no Python code can run.",
            "find the call in the stack below; whoever made it has to release the GIL (ctypes.CDLL, not PyDLL)",
            case.signs(case.watchdog),
            ask=True,
            all_threads=True,
            may_end=True,
        )
    return Verdict(
        "gil_held",
        f"{case.name(busy)} computes in C and keeps the interpreter (the GIL): no other Python code can run.",
        "find it in the stack below: a regular expression that backtracks without end, or a very large number",
        case.signs(busy),
        ask=True,
        all_threads=True,
        may_end=True,
    )


class _Case:
    """The readings, and what follows from them in numbers."""

    def __init__(self, readings: Sequence[Reading], watchdog: int, loop: int) -> None:
        first, last = readings[0], readings[-1]
        self.watchdog, self._loop = watchdog, loop
        self._all = [reading.threads or {} for reading in readings]
        self._seconds = max(last.at - first.at, 1e-3)
        self.faults = (last.faults - first.faults) / self._seconds
        self._throttled = self._share(first.throttled, last.throttled)
        periods, stopped = (
            now - before for before, now in zip(first.stops, last.stops, strict=True)
        )
        self._stopped = stopped / max(periods, 1)
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

    def limit(self) -> str | None:
        """Return what the CPU limit of its cgroup did, in words; None where it did nothing that matters."""
        if self._throttled > THROTTLED:
            share = f"{100 * self._throttled:.0f} % of the time"
            return f"its cgroup's CPU limit kept it off the processors for {share}"
        if self._stopped > HALF:
            return f"its cgroup's CPU limit stopped it in {100 * self._stopped:.0f} % of the limit's periods"
        return None

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

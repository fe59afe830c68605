"""
Why the watchdog is silent, told from outside: a decision over a few readings of its process, and no more.

Order matters: what is certain comes first, and what explains the rest.
"""

from __future__ import annotations

from watchdog_hook.sentinel.case import LITTLE, Case

TYPE_CHECKING = False  # as typing has it, which takes memory to import
if TYPE_CHECKING:
    from collections.abc import Sequence

    from watchdog_hook.sentinel.proc import Reading

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
    case = Case(readings, watchdog, loop)
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
        may_end=not case.rivals() and not case.brings_pages(),
    )


def _contended(rivals: int) -> Verdict:
    return Verdict(
        "gil_contended",
        f"{rivals} threads compute in Python and take the interpreter (the GIL) from one another; the watchdog's"
        " waits for its turn.",
        "find what computes in threads of the scheduler: a plugin, a listener; and give it more CPU",
        incident=True,
    )


def _held(case: Case) -> Verdict:
    busy = case.busiest()
    if busy is None:
        return Verdict(
            "gil_held",
            "A call into C sleeps and keeps the interpreter (the GIL): no Python code can run.",
            "find the call in the stack below; whoever made it has to release the GIL (ctypes.CDLL, not PyDLL)",
            case.signs(case.watchdog),
            ask=True,
            all_threads=True,
            incident=True,
            may_end=not case.brings_pages(),
        )
    return Verdict(
        "gil_held",
        f"{case.name(busy)} computes in C and keeps the interpreter (the GIL): no other Python code can run.",
        "find it in the stack below: a regular expression that backtracks without end, or a very large number",
        case.signs(busy),
        ask=True,
        all_threads=True,
        incident=True,
        may_end=not case.brings_pages(),
    )

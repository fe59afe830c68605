"""The interpreter, the processor and memory: what the loop gets of them, and what it does with it."""

from __future__ import annotations

from watchdog_hook.core.rules.rule import WHOLE, Rule, caller, span
from watchdog_hook.core.signs import Case, both, neither

_BUSY = 0.8  # of the time between two samples on the processor: the thread computes
_ENOUGH = 3  # samples to say so
_THROTTLED = 0.3  # of the silence without the processor, by the cgroup's quota
_HELD = 0.5  # of the silence in which Python could not run
_STARVED = 20.0  # % of ten seconds in which all of the cgroup waited for memory


def busy_share(case: Case) -> float | None:
    """Return which part of the sampled time the thread was on the processor; None where it is not known."""
    read = [
        (sample.at_s, sample.kernel.cpu_s)
        for sample in case.snapshot.samples
        if sample.kernel is not None and sample.kernel.cpu_s is not None
    ]
    if len(read) < 2 or read[-1][0] <= read[0][0]:
        return None
    return (read[-1][1] - read[0][1]) / (read[-1][0] - read[0][0])


def _moves(case: Case) -> bool:
    return case.how == "moving"


def _slow(case: Case) -> str:
    share = busy_share(case)
    busy = "" if share is None else f", {100 * share:.0f} % of the time on the processor"
    return (
        f"it moves{busy}: its stack changes from look to look; at the last it stood in {case.leaf}"
    )


def _holds_interpreter(case: Case) -> bool:
    return _gil_s(case) >= _HELD * case.silence_s > 0


def _gil_s(case: Case) -> float:
    return case.seen.gil_s or 0.0


def _held(case: Case) -> str:
    return (
        f"one thread kept the interpreter (the GIL) to itself for {span(_gil_s(case))} of it, and no other"
        f" could run; at the first moment after, this one stood in {case.leaf}{caller(case)}"
    )


def _throttles(case: Case) -> bool:
    facts = case.seen.process
    return (
        facts is not None
        and facts.throttled_s is not None
        and facts.throttled_s >= _THROTTLED * case.silence_s
    )


def _throttled(case: Case) -> str:
    facts = case.seen.process
    limit = f" of {facts.cpu_limit:g} cores" if facts and facts.cpu_limit else ""
    seconds = facts.throttled_s if facts else 0.0
    return f"the container's processor quota{limit} was used up for {seconds:.0f} s of it"


def _starves(case: Case) -> bool:
    return _memory_pressure(case) >= _STARVED


def _memory_pressure(case: Case) -> float:
    found = dict(case.seen.process.pressure) if case.seen.process else {}
    return found.get("memory full", 0.0)


def _starved(case: Case) -> str:
    facts = case.seen.process
    used = ""
    if facts is not None and facts.memory_used and facts.memory_limit:
        mib = 1 << 20
        used = f"; it uses {facts.memory_used // mib} MiB of the {facts.memory_limit // mib} MiB that it may"
    return (
        f"all of the container waited for memory for {_memory_pressure(case):.0f} % of the last ten seconds:"
        f" the kernel reclaims or swaps{used}"
    )


def _computes(case: Case) -> bool:
    share = busy_share(case)
    return share is not None and (share >= _BUSY or _always_runs(case))


def _always_runs(case: Case) -> bool:
    """In all samples but few the thread had the processor or wanted it: others may have had it meanwhile."""
    states = [sample.kernel.state for sample in case.snapshot.samples if sample.kernel is not None]
    return len(states) >= _ENOUGH and states.count("R") >= _BUSY * len(states)


def _loop(case: Case) -> str:
    share = busy_share(case)
    percent = "" if share is None else f", {100 * share:.0f} % of the time on the processor"
    if share is not None and share < _BUSY:
        percent += ", and waiting for the processor in the rest"
    where = "in one place" if _one_place(case) else "in several places"
    return f"it computes{percent}, {where}: innermost {case.leaf}{caller(case)}"


def _one_place(case: Case) -> bool:
    leaves = {sample.frames[0].file for sample in case.snapshot.samples if sample.frames}
    return len(leaves) == 1


FIRST = (
    Rule(
        "slow",
        _moves,
        _slow,
        "The samples show where the time goes. In the scheduler, fewer pods a loop: [kubernetes_executor]"
        " worker_pods_creation_batch_size; many completed pods: [kubernetes_executor] delete_worker_pods = True;"
        " many DAG runs: [scheduler] max_dagruns_per_loop_to_schedule.",
        raise_helps=False,
        rank=WHOLE,
        known=("apache/airflow#34877", "apache/airflow#22612"),
    ),
    Rule(
        "interpreter-held",
        _holds_interpreter,
        _held,
        "Native code that does not let the interpreter go: a regular expression that backtracks without end, a C"
        " extension, arithmetic with huge numbers. While it lasts no thread of this process can do anything, so"
        " it can only be changed where it is called: below, and in the incident that was written from outside.",
        raise_helps=False,
        rank=WHOLE,
    ),
)

REST = (
    Rule(
        "throttled-processor",
        _throttles,
        _throttled,
        "Raise the container's CPU limit, or take it off.",
        raise_helps=False,
        confidence="medium",
    ),
    Rule(
        "memory-pressure",
        _starves,
        _starved,
        "Raise the container's memory limit; look at what grew.",
        raise_helps=False,
        confidence="medium",
    ),
    Rule(
        "processor-loop",
        both(_computes, neither(_moves)),
        _loop,
        "The samples show where: a loop that does not end, or very much data.",
        raise_helps=False,
        confidence="medium",
    ),
)

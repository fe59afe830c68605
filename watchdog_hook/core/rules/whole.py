"""The process, the loop or the machine as a whole, and the code in which the loop stands."""

from __future__ import annotations

from watchdog_hook.core.observed import ExecutorFacts
from watchdog_hook.core.owner import is_own
from watchdog_hook.core.progress import has_work_and_room
from watchdog_hook.core.rules import event_loop
from watchdog_hook.core.rules.rule import (
    LAST,
    WHOLE,
    WIDE,
    Rule,
    ago,
    asked_to_connect,
    begun,
    call_text,
    span,
    unacknowledged,
)
from watchdog_hook.core.signs import (
    CONNECTING,
    HANDSHAKE,
    Case,
    both,
    either,
    foreign,
    foreign_code,
    innermost,
    neither,
    on,
    on_socket,
    retransmits,
    sleeps,
)
from watchdog_hook.core.text import frame_text

_BUSY = 0.8  # of the time between two samples on the processor: the thread computes
_ENOUGH = 3  # samples to say so
_THROTTLED = 0.3  # of the silence without the processor, by the cgroup's quota
_SENDS = ("write", "writev", "sendto", "sendmsg", "sendfile")
_STARVED = 20.0  # % of ten seconds in which all of the cgroup waited for memory


def _computes(case: Case) -> bool:
    share = busy_share(case)
    return share is not None and (share >= _BUSY or _always_runs(case))


def _always_runs(case: Case) -> bool:
    """In all samples but few the thread had the processor or wanted it: others may have had it meanwhile."""
    states = [sample.kernel.state for sample in case.snapshot.samples if sample.kernel is not None]
    return len(states) >= _ENOUGH and states.count("R") >= _BUSY * len(states)


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


def _one_place(case: Case) -> bool:
    leaves = {sample.frames[0].file for sample in case.snapshot.samples if sample.frames}
    return len(leaves) == 1


def _loop(case: Case) -> str:
    share = busy_share(case)
    percent = "" if share is None else f", {100 * share:.0f} % of the time on the processor"
    if share is not None and share < _BUSY:
        percent += ", and waiting for the processor in the rest"
    where = "in one place" if _one_place(case) else "in several places"
    return f"it computes{percent}, {where}: innermost {case.leaf}{_caller(case)}"


def _ends(case: Case) -> str:
    return (
        f"the loop is over, and the executor is being shut down; that waits in {case.leaf}."
        " The process does not schedule any more"
    )


def _moves(case: Case) -> bool:
    return case.how == "moving"


def _turns(case: Case) -> bool:
    return case.how == "turning"


def _no_progress(case: Case) -> str:
    stuck = [facts for facts in case.seen.executors if has_work_and_room(facts)]
    return "; ".join(_numbers(facts) for facts in stuck) or "an executor has work and starts none"


def _numbers(facts: ExecutorFacts) -> str:
    waits = (facts.task_queue or 0) + (facts.queued or 0)
    room = "" if facts.open_slots is None else f" with {facts.open_slots} slots open"
    return f"{waits} tasks wait in {facts.name}{room}, and none is started"


def _slow(case: Case) -> str:
    share = busy_share(case)
    busy = "" if share is None else f", {100 * share:.0f} % of the time on the processor"
    return (
        f"it moves{busy}: its stack changes from look to look; at the last it stood in {case.leaf}"
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


def _in_the_way(case: Case) -> str:
    guest = foreign(case)
    place = frame_text(guest) if guest else "?"
    found = case.descriptor
    whom = f" and waits for {found.remote}" if found is not None and found.remote else ""
    return f"code that is not Airflow's is in the way: {place}, called by Airflow, stands in {case.leaf}{whom}"


def _resolves(case: Case) -> str:
    found = case.descriptor
    at = f" at {found.remote}" if found is not None and found.remote else ""
    # The server that is waited for is the name server, not whom the call is for.
    what = call_text(case) if case.call is not None else "it"
    return f"{what} waits for the name service{at}, in {case.leaf}{begun(case)}"


def _connects(case: Case) -> str:
    return f"{call_text(case)} is still connecting: {asked_to_connect(case)}{begun(case)}"


def _shakes_hands(case: Case) -> str:
    return f"{call_text(case)} is connected, but the peer has not finished the TLS handshake{begun(case)}"


def _listens(case: Case) -> bool:
    return case.tcp is not None and case.tcp.state == "LISTEN"


def _waits(case: Case) -> str:
    remote: object = case.reading.peer if case.reading else None
    remote = remote or (case.descriptor.remote if case.descriptor else None)
    peer = f" to {remote}" if remote else ""
    if retransmits(case):
        what = f"; {unacknowledged(case.tcp, 'what it sent')}, and nobody has acknowledged it"
    elif case.wait is not None and case.wait.syscall in _SENDS and case.tcp and case.tcp.send_queue:
        what = f"; {case.tcp.send_queue} bytes wait to be taken"
    else:
        what = ago(case.received_s, "the last byte came")
    return f"it waits on a connection{peer} in {case.leaf}{_caller(case)}{what}"


def _sleeps(case: Case) -> str:
    wait = case.wait
    left = "" if wait is None or wait.timeout_s is None else f", for {span(wait.timeout_s)}"
    more = " more" if wait is not None and wait.deadline else ""
    return f"it sleeps{left}{more if left else ''}, in {case.leaf}{_caller(case)}"


def _unknown(case: Case) -> str:
    return f"it stands in {case.leaf}{_caller(case)}, and no rule knows why"


def _caller(case: Case) -> str:
    """Name the first frame of Airflow's or the user's above the innermost one, which is a library's."""
    own = next((frame for frame in case.frames if is_own(frame)), None)
    return "" if own is None or own is case.frames[0] else f", called by {frame_text(own)}"


_OWN_TIMEOUT = (
    "Give the waiting call in that code a timeout of its own. watchdog_hook does not interrupt it: nothing"
    " above it would know what to do.\n"
    "Airflow has no option for the timeouts of secrets backends (backend_kwargs may), OpenTelemetry exporters"
    " (OTEL_EXPORTER_OTLP_TIMEOUT) or remote logs."
)

FIRST = (
    Rule(
        "shutdown",
        lambda case: (case.phase or "").startswith("executor.end"),
        _ends,
        "The log above says by which exception or signal the loop ended. Restart the process; [watchdog_hook]"
        " terminate_after does not reach a process that is leaving.",
        raise_helps=False,
        known=("apache/airflow#28328", "apache/airflow#52284", "apache/airflow#67870"),
    ),
    Rule(
        "no-progress",
        _turns,
        _no_progress,
        "Nothing is blocked: it is the executor's accounting, a quota, or a date until which it"
        " waits. Look at the answers"
        " to the last calls below, at the namespace's quota and at the watchers' last events. A restart of the"
        " scheduler rebuilds the executor's books.",
        confidence="medium",
        raise_helps=False,
        rank=WHOLE,
        known=("apache/airflow#36998", "apache/airflow#56045", "apache/airflow#71380"),
    ),
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
        "foreign-code",
        both(foreign_code, neither(event_loop.blocked)),
        _in_the_way,
        _OWN_TIMEOUT,
        raise_helps=False,
    ),
    Rule(
        "name-service",
        innermost("/socket.py", "getaddrinfo"),
        _resolves,
        "Look at the name servers in /etc/resolv.conf; `options timeout:2 attempts:2` there bounds the wait."
        " Nothing inside a process can end it.",
        raise_helps=False,
    ),
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

REST = (
    Rule(
        "connect",
        CONNECTING,
        _connects,
        "Give the caller a connect timeout; look at the way to the peer.",
        rank=WIDE,
    ),
    Rule(
        "tls-handshake",
        HANDSHAKE,
        _shakes_hands,
        "Give the caller a timeout; look at the peer and at proxies between.",
        rank=WIDE,
    ),
    Rule(
        "sleep",
        sleeps,
        _sleeps,
        "Look who asks for that pause in the stack below: a retry that waits for its next try, or a loop that"
        " polls.",
        rank=WIDE,
        raise_helps=False,
        confidence="medium",
    ),
    Rule(
        "socket",
        both(either(on_socket, on("tcp")), neither(CONNECTING, HANDSHAKE, _listens)),
        _waits,
        "Give the caller a timeout on this connection; look at the peer.",
        confidence="medium",
        rank=WIDE,
    ),
    Rule(
        "unknown",
        lambda case: True,
        _unknown,
        "The stacks below show every thread. If this comes again, please"
        " report it with the incident's folder.",
        confidence="low",
        raise_helps=False,
        rank=LAST,
    ),
)

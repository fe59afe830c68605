"""The process, the loop or the machine as a whole, and the code in which the loop stands."""

from __future__ import annotations

from watchdog_hook.core.observed import Child, ExecutorFacts, Watcher
from watchdog_hook.core.owner import is_own
from watchdog_hook.core.progress import gets_nowhere
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
from watchdog_hook.core.watchers import doing_text, heard_text, is_silent

_BUSY = 0.8  # of the time between two samples on the processor: the thread computes
_ENOUGH = 3  # samples to say so
_THROTTLED = 0.3  # of the silence without the processor, by the cgroup's quota
_HELD = 0.5  # of the silence in which Python could not run
_SENDS = ("write", "writev", "sendto", "sendmsg", "sendfile")
_EXECUTOR_END = "executor.end"
# Phases behind it, as integrations and the watchdog name them.
_AFTER = {
    "shutdown": "what it had started is being shut down",
    "exit": "the process has not ended: its exit hooks run, or what Airflow does last",
}
# What is no fault of the executor's.
_TAKES_TIME = {
    "KubernetesExecutor": " It gives its watchers some 20 s to end; more is not normal.",
    "LocalExecutor": " It waits for the tasks that it still runs, however long they take.",
}
_STARVED = 20.0  # % of ten seconds in which all of the cgroup waited for memory
_JUST_NOW = 5.0  # seconds since a beat in which nobody asks where the next one is


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
    by = f" (ended by {case.seen.ended_by})" if case.seen.ended_by else ""
    phase = case.phase or ""
    what = "the executor is being shut down" if phase.startswith(_EXECUTOR_END) else _AFTER[phase]
    whom = f" for {case.awaited.name}, pid {case.awaited.pid}" if case.awaited else ""
    normal = next((words for name, words in _TAKES_TIME.items() if name in phase), "")
    return (
        f"the loop is over{by}, and {what}; that waits in {case.leaf}{_caller(case)}{whom}.{normal}"
        f" The process does not {'schedule' if case.component is None else 'work'} any more"
    )


def _is_over(case: Case) -> bool:
    phase = case.phase or ""
    return phase.startswith(_EXECUTOR_END) or phase in _AFTER


def _moves(case: Case) -> bool:
    return case.how == "moving"


def _turns(case: Case) -> bool:
    return case.how == "turning"


def _asked(case: Case) -> bool:
    return case.how == "asked"


def _no_stall(case: Case) -> str:
    found = "nothing is wrong" if case.silence_s < _JUST_NOW else "so far this is no stall"
    return (
        f"{found}; the loop's last beat came {span(case.silence_s)} ago{_phase(case)}, and it stands in"
        f" {case.leaf}{_caller(case)}"
    )


def _phase(case: Case) -> str:
    return f" in phase {case.phase}" if case.phase else ""


def _no_progress(case: Case) -> str:
    stuck = [facts for facts in case.seen.executors if gets_nowhere(facts)]
    said = [_numbers(facts) for facts in stuck] or ["an executor has work and starts none"]
    silent = [
        f"the pod watcher of namespace {watcher.namespace} has been silent for {span(watcher.silent_s or 0.0)}"
        for watcher, _ in _silent_watchers(case)
    ]
    return "; ".join([*said, *silent])


def _numbers(facts: ExecutorFacts) -> str:
    waits = (facts.task_queue or 0) + (facts.queued or 0)
    if not waits:
        return (
            f"{facts.running or 0} tasks run by the books of {facts.name}, and none has ended there"
        )
    room = "" if facts.open_slots is None else f" with {facts.open_slots} slots open"
    return f"{waits} tasks wait in {facts.name}{room}, and none is started"


def _silent_watchers(case: Case) -> list[tuple[Watcher, Child | None]]:
    children = {child.pid: child for child in case.children}
    watchers = [watcher for facts in case.seen.executors for watcher in facts.watchers]
    pairs = [(watcher, children.get(watcher.pid or 0)) for watcher in watchers]
    return [(watcher, child) for watcher, child in pairs if is_silent(watcher, child)]


def _watcher_silent(case: Case) -> str:
    found = []
    for watcher, child in _silent_watchers(case):
        waits = f" in {child.waits}" if child is not None and child.waits else ""
        found.append(
            f"the pod watcher of namespace {watcher.namespace} (KubernetesJobWatcher, pid {watcher.pid}) shows no"
            f" sign of life: {doing_text(watcher, child)}{waits}; {heard_text(watcher)}"
        )
    return "; ".join(found) + "; so the executor does not learn which pods have ended"


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
        f" could run; at the first moment after, this one stood in {case.leaf}{_caller(case)}"
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
        "no-stall",
        both(_asked, neither(_is_over)),
        _no_stall,
        "Nothing has to be done: this dump was asked for, by `watchdog-hook dump`.",
        raise_helps=False,
        rank=WHOLE,
    ),
    Rule(
        "shutdown",
        _is_over,
        _ends,
        "Nothing is scheduled any more: restart the process, unless it only waits for the tasks of a"
        " LocalExecutor. [watchdog_hook] terminate_after ends a process that has been silent for so long while it"
        " leaves.",
        raise_helps=False,
        known=("apache/airflow#28328", "apache/airflow#52284", "apache/airflow#67870"),
    ),
    Rule(
        "watcher-silent",
        both(_turns, lambda case: bool(_silent_watchers(case))),
        _watcher_silent,
        "End that child (and only it): kill -9 its pid; the executor's health check starts a new one at its next"
        " turn, and that one begins with a list of all pods. [watchdog_hook] restart_watchers = True does it.\n"
        "A watch without a read timeout may wait on a dead connection for ever: it has one of 30 s from provider"
        " 8.3 on, unless [kubernetes_executor] kube_client_request_args replaces it (from 10.4 on).\n"
        "[kubernetes_executor] enable_tcp_keepalive, tcp_keep_idle: keep the idle time below the load balancer's"
        " (Azure: 240 s).",
        raise_helps=False,
        rank=WHOLE,
        known=("apache/airflow#12644", "apache/airflow#14791", "apache/airflow#10860"),
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
        "interpreter-held",
        _holds_interpreter,
        _held,
        "Native code that does not let the interpreter go: a regular expression that backtracks without end, a C"
        " extension, arithmetic with huge numbers. While it lasts no thread of this process can do anything, so"
        " it can only be changed where it is called: below, and in the incident that was written from outside.",
        raise_helps=False,
        rank=WHOLE,
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

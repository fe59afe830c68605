"""Does a process that watches pods still live? Judged by the signs it leaves, with room for what is normal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watchdog_hook.core.observed import Child, ExecutorFacts, Watcher

READS = 3  # read timeouts without a sign of life: each ends a read, and the next one is a sign
LEAST = 10.0  # seconds; a timeout of one second says more of its owner than of a busy machine
# Outside of a read, or stopped: three times the timeout that the provider itself gives a read.
ELSEWHERE = 90.0
# Without a timeout: kube-apiserver ends each watch within an hour at the latest (min-request-timeout), the
# kernel gives up a request for a connection after some two minutes (tcp_syn_retries), and so does a resolver that
# asks several silent name servers for a name in several domains.
NO_READ_TIMEOUT = 5400.0
NO_CONNECT_TIMEOUT = 400.0
STOPPED = ("stopped", "tracing-stop")
READ, CONNECT, RESOLVE, SLEEP = "read", "connect", "resolve", "sleep"


@dataclass(frozen=True, slots=True)
class Look:
    """One look at one watcher."""

    key: str  # the same for the one that follows it
    process: int  # its pid
    mark: float  # the moment of its last sign of life
    watcher: Watcher
    child: Child | None = None  # as the kernel has it; None: not looked at
    gone: bool = False  # it has ended, and its executor has not noticed yet


@dataclass(frozen=True, slots=True)
class Standing:
    """What is remembered of a watcher between two looks."""

    key: str
    process: int
    mark: float
    told_s: float = 0.0  # its silence when that was told last; 0: it was not


@dataclass(frozen=True, slots=True)
class FellSilent:
    """A watcher has shown no sign of life for too long, or for twice as long as when that was told last."""

    look: Look


@dataclass(frozen=True, slots=True)
class CameBack:
    """A watcher that was told to be silent lives, or another has taken its place."""

    look: Look
    silent_s: float  # as it was told last
    before: int  # pid of the silent one


def judge(
    before: tuple[Standing, ...], looks: tuple[Look, ...]
) -> tuple[tuple[Standing, ...], tuple[FellSilent | CameBack, ...]]:
    """
    Advance by one look at each watcher.

    Nobody is silent at the first look at a sign: after a pause of the machine a watcher needs a moment to notice
    that its time is over, and we may be the first to run. So each silence is seen twice.
    """
    known = {standing.key: standing for standing in before}
    after: list[Standing] = []
    events: list[FellSilent | CameBack] = []
    for look in looks:
        standing = known.get(look.key)
        if look.gone:
            after += [] if standing is None else [standing]
        elif standing is None:
            after.append(Standing(look.key, look.process, look.mark))
        elif (standing.process, standing.mark) != (look.process, look.mark):
            if standing.told_s:
                events.append(CameBack(look, standing.told_s, standing.process))
            after.append(Standing(look.key, look.process, look.mark))
        elif is_silent(look.watcher, look.child) and _is_news(standing, look.watcher):
            events.append(FellSilent(look))
            after.append(replace(standing, told_s=look.watcher.silent_s or 0.0))
        else:
            after.append(standing)
    return tuple(after), tuple(events)


def _is_news(standing: Standing, watcher: Watcher) -> bool:
    return (watcher.silent_s or 0.0) >= 2 * standing.told_s


def is_silent(watcher: Watcher, child: Child | None = None) -> bool:
    """Tell whether a watcher has shown no sign of life for so long that it will not by itself."""
    return watcher.silent_s is not None and watcher.silent_s >= limit(watcher, child)


def limit(watcher: Watcher, child: Child | None = None) -> float:
    """Return the seconds of silence that are normal for what it does."""
    if child is not None and child.never_wakes:
        return LEAST
    timeout = watcher.timeout_s
    bounded = None if timeout is None else max(LEAST, READS * timeout)
    if watcher.doing == SLEEP:
        return ELSEWHERE + (timeout or 0.0)
    if watcher.doing is None:
        # No timer runs here that we know. A handshake with TLS has the one of connecting, and lasts as long.
        return max(ELSEWHERE, bounded or 0.0)
    if bounded is not None:
        return bounded
    if child is not None and child.state in STOPPED:
        return ELSEWHERE
    if watcher.doing == READ and watcher.heard and watcher.missed_s is not None:
        # A pod that was made is an event at once, and before there were some: it need not wait any longer.
        return ELSEWHERE + max(0.0, (watcher.silent_s or 0.0) - watcher.missed_s)
    return NO_READ_TIMEOUT if watcher.doing == READ else NO_CONNECT_TIMEOUT


def silent_ones(facts: ExecutorFacts) -> tuple[Watcher, ...]:
    """Return the watchers of an executor that are silent, by what they themselves have left."""
    return tuple(watcher for watcher in facts.watchers if is_silent(watcher))


def doing_text(watcher: Watcher, child: Child | None = None) -> str:
    """Say what a watcher has been doing since its last sign of life, and what time limit that has."""
    if watcher.silent_s is None:
        return "what it does is not known"
    stopped = child is not None and child.state in STOPPED
    what = f"it is {child.state}; " if child is not None and stopped else ""
    if child is not None and child.never_wakes:
        what += "it waits for a lock that was held at its fork, and can never wake; "
    limited = (
        "no time limit" if watcher.timeout_s is None else f"a timeout of {watcher.timeout_s:.0f} s"
    )
    lasted = f"for {watcher.silent_s:.0f} s"
    if watcher.doing == READ:
        return f"{what}it has been in one read {lasted}, with {limited}"
    if watcher.doing == CONNECT:
        return f"{what}it has been connecting {lasted}, with {limited}"
    if watcher.doing == RESOLVE:
        return f"{what}it has waited for the name service {lasted}"
    if watcher.doing == SLEEP:
        return f"{what}it has slept {lasted}, of {watcher.timeout_s or 0.0:.0f} s"
    return f"{what}it has neither read nor connected {lasted}"


def heard_text(watcher: Watcher) -> str:
    """Say which events the API server has sent it: "4 events came, the last 40 s ago"."""
    if watcher.heard_s is None:
        return "no event has come from the API server"
    events = "1 event" if watcher.heard == 1 else f"{watcher.heard} events"
    missed = (
        ""
        if watcher.missed_s is None
        else f", and none of a pod that was made {watcher.missed_s:.0f} s ago"
    )
    return f"{events} came from the API server, the last {watcher.heard_s:.0f} s ago{missed}"


def facts_of(look: Look) -> dict[str, object]:
    """Return what a log line says of a watcher beside its silence."""
    watcher, child = look.watcher, look.child
    return {
        "namespace": watcher.namespace,
        "pid": look.process,
        "doing": watcher.doing or "neither reads nor connects",
        "timeout_s": "none" if watcher.timeout_s is None else watcher.timeout_s,
        "state": child.state if child else None,
        "waits": child.waits if child else None,
        "never_wakes": True if child and child.never_wakes else None,
        "last_event_s": "none" if watcher.heard_s is None else watcher.heard_s,
        "events": watcher.heard,
        "missed_s": watcher.missed_s,
        "watches": watcher.watches,
    }

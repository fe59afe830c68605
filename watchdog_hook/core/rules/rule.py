"""What a rule is, and the words that several of them use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from watchdog_hook.core.observed import Tcp
from watchdog_hook.core.owner import is_own
from watchdog_hook.core.signs import Case, Sign, requests_connection
from watchdog_hook.core.text import frame_text

Words = Callable[[Case], str]

# How narrow a rule is. Of those that fit only the narrowest are shown, two of them side by side.
WHOLE = 0  # whatever the stack shows is chance
NARROW = 1
WIDE = 2
LAST = 3


@dataclass(frozen=True, slots=True)
class Rule:
    """One cause: how it is recognised, how it is said, and what its owner can change."""

    id: str
    when: Sign
    says: Words
    remedy: str
    confidence: str = "high"
    raise_helps: bool = True
    rank: int = NARROW
    known: tuple[str, ...] = ()  # reports of the same: "apache/airflow#10636"


def caller(case: Case) -> str:
    """Name the first frame of Airflow's or the user's above the innermost one, which is a library's."""
    own = next((frame for frame in case.frames if is_own(frame)), None)
    return "" if own is None or own is case.frames[0] else f", called by {frame_text(own)}"


def begun(case: Case) -> str:
    """Say how old the call is, as the end of a sentence."""
    return "" if case.age_s is None else f"; the call was begun {span(case.age_s)} ago"


def span(seconds: float) -> str:
    """Return a number of seconds, with a decimal where it is less than one."""
    return f"{seconds:.0f} s" if seconds >= 0.95 else f"{seconds:.1f} s"


def call_text(case: Case) -> str:
    """Name the call in flight and its peer."""
    peer: object = case.reading.peer if case.reading is not None else None
    peer = peer or (case.descriptor.remote if case.descriptor else None)
    if case.call is None:
        return "a call" if peer is None else f"a call to {peer}"
    to = case.call.peer or peer
    return f"{case.call.call} to {to}" if to else case.call.call


def ago(seconds: float | None, what: str) -> str:
    """Return "; <what> N s ago", or nothing where that is not known."""
    return "" if seconds is None else f"; {what} {span(seconds)} ago"


def unacknowledged(tcp: Tcp | None, what: str) -> str:
    """Say how often the kernel has sent something again: "the kernel has sent its data 5 times in 4 s"."""
    times = tcp.retransmits + 1 if tcp else 1
    lasted = "" if tcp is None or tcp.unacked_s is None else f" in {span(tcp.unacked_s)}"
    return f"the kernel has sent {what} {times} times{lasted}"


def asked_to_connect(case: Case) -> str:
    """Say what has become of a request for a connection."""
    if not requests_connection(case):
        return "the peer has not accepted the connection"
    return (
        f"{unacknowledged(case.tcp, 'the request for a connection')}, and no answer to it has come"
    )

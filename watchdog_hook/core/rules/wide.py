"""What can still be said of a wait where nothing narrower fits."""

from __future__ import annotations

from watchdog_hook.core.rules.rule import (
    LAST,
    WIDE,
    Rule,
    ago,
    asked_to_connect,
    begun,
    call_text,
    caller,
    span,
    unacknowledged,
)
from watchdog_hook.core.signs import (
    CONNECTING,
    HANDSHAKE,
    Case,
    both,
    either,
    neither,
    on,
    on_socket,
    retransmits,
    sleeps,
)

_SENDS = ("write", "writev", "sendto", "sendmsg", "sendfile")


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
    return f"it waits on a connection{peer} in {case.leaf}{caller(case)}{what}"


def _sleeps(case: Case) -> str:
    wait = case.wait
    left = "" if wait is None or wait.timeout_s is None else f", for {span(wait.timeout_s)}"
    more = " more" if wait is not None and wait.deadline else ""
    return f"it sleeps{left}{more if left else ''}, in {case.leaf}{caller(case)}"


def _unknown(case: Case) -> str:
    return f"it stands in {case.leaf}{caller(case)}, and no rule knows why"


RULES = (
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

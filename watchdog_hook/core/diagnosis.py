"""Why the loop is silent: rules as rows, read from narrow to wide. Each says only what its evidence shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from watchdog_hook.core.model import CallRecord, Finding, Snapshot, ThreadReading
from watchdog_hook.core.signs import (
    Case,
    Sign,
    attempt,
    both,
    either,
    foreign,
    foreign_code,
    innermost,
    on_socket,
    passes,
    trickles,
)
from watchdog_hook.core.text import frame_text

_EARLY_S = 1.0  # bytes that came this long after the start of a call still belong to its connection's set-up

Words = Callable[[Case], str]


@dataclass(frozen=True, slots=True)
class Rule:
    """One cause: how it is recognised, how it is said, and what its owner can change."""

    id: str
    when: Sign
    says: Words
    remedy: str
    confidence: str = "high"
    raise_helps: bool = True


def diagnose(
    snapshot: Snapshot,
    *,
    silence: float,
    phase: str | None = None,
    call: CallRecord | None = None,
    reading: ThreadReading | None = None,
) -> Finding:
    """
    Return the first rule that fits, in a sentence; `unknown`, with the signs, when none does.

    `call` is what the stalled thread has in flight, `reading` where that thread stood. Never raises for any
    stack; says nothing that the evidence does not show.
    """
    case = Case(snapshot, silence, phase, call, reading)
    rule = next(rule for rule in RULES if rule.when(case))
    return Finding(
        id=rule.id,
        confidence=rule.confidence,
        sentence=f"{_lead(case)}: {rule.says(case)}.",
        remedy=rule.remedy,
        signs=tuple(_signs(case)),
        raise_helps=rule.raise_helps,
    )


def _lead(case: Case) -> str:
    where = f" in phase {case.phase}" if case.phase else ""
    return f"{case.thread} has been silent for {case.silence_s:.0f} s{where}"


def _signs(case: Case) -> list[str]:
    signs = [f"innermost frame {case.leaf}"] if case.frames else ["no Python frame could be read"]
    if case.call is not None:
        guarded = "guarded" if case.call.guarded else "not guarded, so never interrupted"
        signs.append(f"{_call(case)} in flight for {case.call.started_ago_s:.1f} s ({guarded})")
    if case.received_s is not None:
        signs.append(f"last byte on its connection {case.received_s:.1f} s ago")
    if (times := attempt(case)) > 1:
        signs.append(f"attempt {times} of urllib3's own retries")
    if (guest := foreign(case)) is not None:
        signs.append(f"called by code that is not Airflow's: {frame_text(guest)}")
    return signs


def _call(case: Case) -> str:
    if case.call is None:
        return (
            "a call"
            if case.reading is None or case.reading.peer is None
            else f"a call to {case.reading.peer}"
        )
    peer = case.call.peer or (case.reading.peer if case.reading is not None else None)
    return f"{case.call.call} to {peer}" if peer else case.call.call


def _no_answer(case: Case) -> str:
    age, received = case.age_s, case.received_s
    if age is None:
        ago = "" if received is None else f"; the last byte came {received:.0f} s ago"
        return f"{_call(case)} sent its request and waits for an answer{ago}"
    if (times := attempt(case)) > 1:
        return (
            f"{_call(case)} has been under way for {age:.0f} s; it sent its request for the"
            f" {_ordinal(times)} time, by urllib3's own retries, and no answer to that has come"
        )
    if received is not None and received < age - _EARLY_S:
        return (
            f"{_call(case)} was begun {age:.0f} s ago and sent its request; the last byte on its connection"
            f" came {received:.0f} s ago, and no answer"
        )
    return f"{_call(case)} sent its request {age:.0f} s ago and no byte of an answer has come"


def _half_answer(case: Case) -> str:
    last = "" if case.received_s is None else f", the last byte {case.received_s:.0f} s ago"
    return f"the answer to {_call(case)} has begun and its rest has not come{last}{_begun(case)}"


def _trickle(case: Case) -> str:
    return (
        f"the answer to {_call(case)} has begun and comes in small pieces,"
        f" the last {case.received_s:.0f} s ago{_begun(case)}"
    )


def _begun(case: Case) -> str:
    return "" if case.age_s is None else f"; the call was begun {case.age_s:.0f} s ago"


def _connects(case: Case) -> str:
    return (
        f"{_call(case)} is still connecting: the peer has not accepted the connection{_begun(case)}"
    )


def _shakes_hands(case: Case) -> str:
    return (
        f"{_call(case)} is connected, but the peer has not finished the TLS handshake{_begun(case)}"
    )


def _sends(case: Case) -> str:
    return f"{_call(case)} is still sending: the peer does not take the request{_begun(case)}"


def _throttled(case: Case) -> str:
    asked = innermost("/urllib3/util/retry.py", "sleep_for_retry")(case)
    why = "as the server's Retry-After asks" if asked else "between two attempts"
    return f"{_call(case)} is not stuck: urllib3 sleeps {why}{_begun(case)}"


def _in_the_way(case: Case) -> str:
    guest = foreign(case)
    place = frame_text(guest) if guest else "?"
    return f"code that is not Airflow's is in the way: {place}, called by Airflow, stands in {case.leaf}"


def _resolves(case: Case) -> str:
    return f"{_call(case)} waits for the name service, in {case.leaf}{_begun(case)}"


def _waits(case: Case) -> str:
    peer = f" to {case.reading.peer}" if case.reading and case.reading.peer else ""
    last = "" if case.received_s is None else f"; the last byte came {case.received_s:.0f} s ago"
    return f"it waits on a connection{peer} in {case.leaf}{last}"


def _unknown(case: Case) -> str:
    return f"it stands in {case.leaf}, and no rule knows why"


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")


# Rules

_READ_TIMEOUT = (
    "Give the executor's calls a read timeout (Airflow 2.11 and 3.x):\n"
    '[kubernetes_executor] kube_client_request_args = {"_request_timeout": [10, 60]}\n'
    "It does not reach PATCH calls (adoption, marking a pod as done); from provider 10.4 on it also replaces"
    " the watcher's 30 s.\n"
    "With it set [kubernetes_executor] task_publish_max_retries to 1 or more: with the default 0 a create"
    " that timed out fails its task.\n"
    'And [kubernetes_executor] api_client_retry_configuration = {"total": 2, "backoff_factor": 0.5}: the'
    " default repeats a silent GET or DELETE ten times.\n"
    "[watchdog_hook] request_timeout = 10,60 reaches the executor's calls that have no timeout, PATCH too."
)
_BLAME_THE_WAY = (
    "Look at the API server, its load balancer and the network policy between.\n"
    '[kubernetes_executor] kube_client_request_args = {"_request_timeout": [10, 60]} bounds connecting and'
    " reading (not of PATCH calls)."
)
_OWN_TIMEOUT = (
    "Give the waiting call in that code a timeout of its own. watchdog_hook does not interrupt it: nothing"
    " above it would know what to do.\n"
    "Airflow has no option for the timeouts of secrets backends (backend_kwargs may), OpenTelemetry exporters"
    " (OTEL_EXPORTER_OTLP_TIMEOUT) or remote logs."
)

_KUBERNETES = either(passes("/kubernetes/client/"), passes("/kubernetes/dynamic/"))
_TLS_OR_PLAIN_READ = either(
    innermost("/ssl.py", "read", "recv", "recv_into"),
    innermost("/socket.py", "readinto"),
    innermost("/urllib3/contrib/pyopenssl.py", "recv", "recv_into"),
    innermost("/OpenSSL/SSL.py", "recv", "recv_into"),
    innermost("/urllib3/util/wait.py"),
)
_READS_STATUS = both(_TLS_OR_PLAIN_READ, passes("/http/client.py", "_read_status"))
_CONNECTING = either(
    innermost("/urllib3/util/connection.py", "create_connection"),
    innermost("/socket.py", "create_connection"),
    innermost("/ssl.py", "connect", "_real_connect"),
)
_HANDSHAKE = either(
    innermost("/ssl.py", "do_handshake"), innermost("/OpenSSL/SSL.py", "do_handshake")
)
_SENDING = either(
    innermost("/ssl.py", "send", "sendall", "write"),
    innermost("/OpenSSL/SSL.py", "send", "sendall", "write"),
    innermost("/urllib3/contrib/pyopenssl.py", "send", "sendall", "_send_until_done"),
    both(innermost("/http/client.py", "send"), on_socket),
)

RULES: tuple[Rule, ...] = (
    Rule(
        "throttled",
        innermost("/urllib3/util/retry.py", "sleep", "_sleep_backoff", "sleep_for_retry"),
        _throttled,
        "The server asked for patience (429 or 503 with Retry-After), or an attempt failed and comes again.\n"
        "Look at the server's load and its API priority and fairness settings; fewer calls a loop:"
        " [kubernetes_executor] worker_pods_creation_batch_size.",
        raise_helps=False,
    ),
    Rule("foreign-code", foreign_code, _in_the_way, _OWN_TIMEOUT, raise_helps=False),
    Rule(
        "name-service",
        innermost("/socket.py", "getaddrinfo"),
        _resolves,
        "Look at the name servers in /etc/resolv.conf; `options timeout:2 attempts:2` there bounds the wait."
        " Nothing inside a process can end it.",
        raise_helps=False,
    ),
    Rule("kubernetes-connect", both(_CONNECTING, _KUBERNETES), _connects, _BLAME_THE_WAY),
    Rule("kubernetes-tls-handshake", both(_HANDSHAKE, _KUBERNETES), _shakes_hands, _BLAME_THE_WAY),
    Rule(
        "kubernetes-send", both(_SENDING, _KUBERNETES), _sends, _BLAME_THE_WAY, confidence="medium"
    ),
    Rule("kubernetes-api-silent", both(_READS_STATUS, _KUBERNETES), _no_answer, _READ_TIMEOUT),
    Rule(
        "kubernetes-trickle",
        both(_TLS_OR_PLAIN_READ, _KUBERNETES, trickles),
        _trickle,
        _BLAME_THE_WAY
        + " A read timeout does not end an answer that trickles: each byte starts it anew.",
        confidence="medium",
    ),
    Rule(
        "kubernetes-half-answer", both(_TLS_OR_PLAIN_READ, _KUBERNETES), _half_answer, _READ_TIMEOUT
    ),
    Rule(
        "connect",
        _CONNECTING,
        _connects,
        "Give the caller a connect timeout; look at the way to the peer.",
    ),
    Rule(
        "tls-handshake",
        _HANDSHAKE,
        _shakes_hands,
        "Give the caller a timeout; look at the peer and at proxies between.",
    ),
    Rule(
        "socket",
        on_socket,
        _waits,
        "Give the caller a timeout on this connection; look at the peer.",
        confidence="medium",
    ),
    Rule(
        "unknown",
        lambda case: True,
        _unknown,
        "The stacks below show every thread. If this comes again, please"
        " report it with the incident's folder.",
        confidence="low",
        raise_helps=False,
    ),
)

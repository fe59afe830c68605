"""Calls of the Kubernetes client."""

from __future__ import annotations

from watchdog_hook.core.rules.rule import (
    Rule,
    asked_to_connect,
    begun,
    call_text,
    span,
    unacknowledged,
)
from watchdog_hook.core.signs import (
    CONNECTING,
    HANDSHAKE,
    READING,
    SENDING,
    Case,
    attempt,
    both,
    either,
    innermost,
    neither,
    passes,
    retransmits,
    trickles,
)

_EARLY_S = 1.0  # bytes that came this long after the start of a call still belong to its connection's set-up


def _no_answer(case: Case) -> str:
    age, received = case.age_s, case.received_s
    if age is None:
        ago = "" if received is None else f"; the last byte came {span(received)} ago"
        return f"{call_text(case)} sent its request and waits for an answer{ago}"
    if (times := attempt(case)) > 1:
        return (
            f"{call_text(case)} has been under way for {span(age)}; it sent its request for the"
            f" {_ordinal(times)} time, by urllib3's own retries, and no answer to that has come"
        )
    if received is not None and received < age - _EARLY_S:
        return (
            f"{call_text(case)} was begun {span(age)} ago and sent its request; the last byte on its connection"
            f" came {span(received)} ago, and no answer"
        )
    return f"{call_text(case)} sent its request {span(age)} ago and no byte of an answer has come"


def _half_answer(case: Case) -> str:
    last = "" if case.received_s is None else f", the last byte {span(case.received_s)} ago"
    return f"the answer to {call_text(case)} has begun and its rest has not come{last}{begun(case)}"


def _trickle(case: Case) -> str:
    last = "" if case.received_s is None else f", the last {span(case.received_s)} ago"
    return f"the answer to {call_text(case)} has begun and comes in small pieces{last}{begun(case)}"


def _connects(case: Case) -> str:
    return f"{call_text(case)} is still connecting: {asked_to_connect(case)}{begun(case)}"


def _shakes_hands(case: Case) -> str:
    return f"{call_text(case)} is connected, but the peer has not finished the TLS handshake{begun(case)}"


def _sends(case: Case) -> str:
    waiting = case.tcp.send_queue if case.tcp else None
    full = f", {waiting} bytes of it wait" if waiting else ""
    return (
        f"{call_text(case)} is still sending: the peer does not take the request{full}{begun(case)}"
    )


def _unreachable(case: Case) -> str:
    tcp = case.tcp
    heard = (
        ""
        if tcp is None or tcp.acked_s is None
        else f", the last sign of it {span(tcp.acked_s)} ago"
    )
    return (
        f"{call_text(case)} gets no acknowledgement: {unacknowledged(tcp, 'its data')} and the peer's"
        f" machine does not confirm it{heard}{begun(case)}"
    )


def _throttled(case: Case) -> str:
    asked = innermost("/urllib3/util/retry.py", "sleep_for_retry")(case)
    why = "as the server's Retry-After asks" if asked else "between two attempts"
    return f"{call_text(case)} is not stuck: urllib3 sleeps {why}{begun(case)}"


def _watches(case: Case) -> str:
    last = "" if case.received_s is None else f", the last byte {span(case.received_s)} ago"
    return f"{call_text(case)} is a watch that waits for its next event{last}; it is long by nature"


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")


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
_DEAD_NETWORK = (
    "Look at the network to the API server: a failed-over load balancer, a NAT gateway or firewall that forgot the"
    " connection, a node that is gone. Left alone the kernel gives up after about 15 minutes (tcp_retries2).\n"
    '[kubernetes_executor] kube_client_request_args = {"_request_timeout": [10, 60]} bounds it (not'
    " of PATCH calls).\n"
    "[kubernetes_executor] enable_tcp_keepalive, tcp_keep_idle: keep the idle time below the load"
    " balancer's (Azure:"
    " 240 s); keepalive does not cover a request in flight."
)

KUBERNETES = either(passes("/kubernetes/client/"), passes("/kubernetes/dynamic/"))
_READS_STATUS = both(READING, passes("/http/client.py", "_read_status"))
_WATCHES = passes("/kubernetes/watch/watch.py", "stream")
_STRAY_S = (
    2.0  # one byte before the answer's first line may be the connection's; one at each look is not
)


def _comes_in_pieces(case: Case) -> bool:
    late = case.received_s is not None and case.received_s > _STRAY_S
    return trickles(case) and not (late and _READS_STATUS(case))


RULES = (
    Rule(
        "throttled",
        innermost("/urllib3/util/retry.py", "sleep", "_sleep_backoff", "sleep_for_retry"),
        _throttled,
        "The server asked for patience (429 or 503 with Retry-After), or an attempt failed and comes again.\n"
        "Look at the server's load and its API priority and fairness settings; fewer calls a loop:"
        " [kubernetes_executor] worker_pods_creation_batch_size.",
        raise_helps=False,
    ),
    Rule(
        "kubernetes-unreachable",
        both(KUBERNETES, retransmits),
        _unreachable,
        _DEAD_NETWORK,
        known=("apache/airflow#10636",),
    ),
    Rule(
        "kubernetes-connect",
        both(CONNECTING, KUBERNETES),
        _connects,
        _BLAME_THE_WAY,
    ),
    Rule(
        "kubernetes-tls-handshake",
        both(HANDSHAKE, KUBERNETES, neither(retransmits)),
        _shakes_hands,
        _BLAME_THE_WAY,
    ),
    Rule(
        "kubernetes-send",
        both(SENDING, KUBERNETES, neither(retransmits)),
        _sends,
        _BLAME_THE_WAY,
        confidence="medium",
    ),
    Rule(
        "watch",
        both(READING, _WATCHES),
        _watches,
        "A silent watch is normal where nothing happens. Where pods change and no event comes:"
        " the watcher's read timeout bounds it (30 s from provider 8.3 on; [kubernetes_executor]"
        " kube_client_request_args replaces it from 10.4 on).",
        confidence="medium",
        known=("apache/airflow#12644", "apache/airflow#14791"),
    ),
    Rule(
        "kubernetes-api-silent",
        both(_READS_STATUS, KUBERNETES, neither(retransmits, _comes_in_pieces)),
        _no_answer,
        _READ_TIMEOUT,
        known=("apache/airflow#10636", "kubernetes-client/python#1402"),
    ),
    Rule(
        "kubernetes-trickle",
        both(READING, KUBERNETES, _comes_in_pieces, neither(_WATCHES)),
        _trickle,
        _BLAME_THE_WAY
        + " A read timeout does not end an answer that trickles: each byte starts it anew.",
        confidence="medium",
    ),
    Rule(
        "kubernetes-half-answer",
        both(
            READING,
            KUBERNETES,
            neither(_READS_STATUS, retransmits, _comes_in_pieces, _WATCHES),
        ),
        _half_answer,
        _READ_TIMEOUT,
    ),
)

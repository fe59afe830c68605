"""The broker of the CeleryExecutor."""

from __future__ import annotations

from watchdog_hook.core.rules.rule import Rule, ago, asked_to_connect, unacknowledged
from watchdog_hook.core.signs import (
    CONNECTING,
    HANDSHAKE,
    READING,
    SENDING,
    Case,
    both,
    calls,
    either,
    innermost,
    neither,
    passes,
    requests_connection,
    retransmits,
    runs,
)

_BROKER = either(passes("/redis/"), passes("/amqp/"), passes("/kombu/"))
_LEAF = either(innermost("/redis/"), innermost("/amqp/"), innermost("/kombu/"))
_SENDS = both(_BROKER, either(SENDING, both(_LEAF, calls("sendto", "sendmsg", "write", "writev"))))
_CONNECTS = both(
    _BROKER, either(CONNECTING, HANDSHAKE, both(_LEAF, calls("connect")))
)  # TCP or TLS
_READS = both(
    _BROKER,
    either(READING, both(_LEAF, calls("recvfrom", "recvmsg", "read", "poll", "ppoll", "select"))),
    neither(_SENDS, _CONNECTS, runs),
)


def _peer(case: Case) -> str:
    remote = case.descriptor.remote if case.descriptor else None
    return f"the broker at {remote}" if remote else "the broker"


def _silent(case: Case) -> str:
    received = case.tcp.received_s if case.tcp else case.received_s
    return f"{_peer(case)} does not answer{ago(received, 'the last byte came')}"


def _unreachable(case: Case) -> str:
    heard = ago(case.tcp.acked_s if case.tcp else None, "the last sign of it came")
    return f"{_peer(case)} does not acknowledge what it is sent: {unacknowledged(case.tcp, 'it')}{heard}"


def _full(case: Case) -> str:
    waiting = case.tcp.send_queue if case.tcp else None
    full = f": {waiting} bytes wait to be taken" if waiting else ""
    return (
        f"{_peer(case)} does not take what it is sent{full};"
        " a broker in flow control does that, and one that hangs"
    )


def _connects(case: Case) -> str:
    if requests_connection(case):
        return f"a connection to {_peer(case)} is being made: {asked_to_connect(case)}"
    return f"{_peer(case)} does not complete the connection"


_TIMEOUTS = (
    "[celery_broker_transport_options] for Redis: socket_timeout = 30, socket_connect_timeout = 5,"
    " socket_keepalive"
    " = True, retry_on_timeout = True, health_check_interval = 30.\n"
    "[celery] operation_timeout and task_publish_max_retries bound a send of the scheduler."
)

_DEAD_NETWORK = (
    "The server, or the network to it, is gone: a failover, a dead node, a firewall that forgot the"
    " connection. The kernel gives up after about 15 minutes.\n" + _TIMEOUTS
)

RULES = (
    Rule(
        "broker-unreachable",
        both(either(_READS, _SENDS, _CONNECTS), retransmits),
        _unreachable,
        _DEAD_NETWORK,
        raise_helps=False,
    ),
    Rule(
        "broker-connect",
        both(_CONNECTS, neither(retransmits)),
        _connects,
        _TIMEOUTS,
        raise_helps=False,
    ),
    Rule(
        "broker-flow-control",
        both(_SENDS, neither(retransmits)),
        _full,
        "RabbitMQ blocks its publishers while memory or disk is short: look at `rabbitmqctl"
        " list_connections` (state"
        " blocked) and at its alarms. Its client, py-amqp, gives up by itself after about a second (its"
        " TCP_USER_TIMEOUT); that of Redis has no limit of its own.\n" + _TIMEOUTS,
        confidence="medium",
        raise_helps=False,
        known=("celery/celery#10386",),
    ),
    Rule(
        "broker-silent",
        both(_READS, neither(retransmits)),
        _silent,
        _TIMEOUTS,
        raise_helps=False,
        known=("apache/airflow#21225",),
    ),
)

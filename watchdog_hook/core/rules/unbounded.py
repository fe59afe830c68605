"""Waits that nothing in the process could end: a guest's that has no time limit, and the resolver's."""

from __future__ import annotations

from watchdog_hook.core.rules import event_loop
from watchdog_hook.core.rules.rule import Rule, begun, call_text
from watchdog_hook.core.signs import Case, both, foreign, foreign_code, innermost, neither
from watchdog_hook.core.text import frame_text


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


_OWN_TIMEOUT = (
    "Give the waiting call in that code a timeout of its own. watchdog_hook does not interrupt it: nothing"
    " above it would know what to do.\n"
    "Airflow has no option for the timeouts of secrets backends (backend_kwargs may), OpenTelemetry exporters"
    " (OTEL_EXPORTER_OTLP_TIMEOUT) or remote logs."
)

RULES = (
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
)

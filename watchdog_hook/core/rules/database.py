"""The metadata database, through SQLAlchemy and its drivers."""

from __future__ import annotations

from watchdog_hook.core.observed import Session
from watchdog_hook.core.rules.rule import WIDE, Rule, ago, asked_to_connect, span, unacknowledged
from watchdog_hook.core.signs import (
    Case,
    both,
    either,
    innermost,
    neither,
    passes,
    requests_connection,
    retransmits,
    runs,
    sleeps,
)

# Functions of SQLAlchemy's dialects that call the driver; of a driver written in C the leaf is one of them.
_DIALECT = (
    "do_execute",
    "do_execute_no_params",
    "do_executemany",
    "do_ping",
    "do_begin",
    "do_commit",
    "do_rollback",
    "do_close",
)
_DRIVERS = either(
    passes("/psycopg/"),
    passes("/psycopg2/"),
    passes("/pymysql/"),
    passes("/MySQLdb/"),
    passes("/asyncpg/"),
    passes("/mysql/connector/"),
)
_EXECUTES = either(
    innermost("/sqlalchemy/engine/default.py", *_DIALECT),
    innermost("/sqlalchemy/dialects/", *_DIALECT),
    both(passes("/sqlalchemy/engine/", *_DIALECT), _DRIVERS),
)
_CONNECTS = either(
    innermost("/psycopg2/__init__.py", "connect"),
    innermost("/MySQLdb/__init__.py", "Connect", "connect"),
    innermost("/MySQLdb/connections.py", "__init__"),
    innermost("/sqlalchemy/engine/default.py", "connect"),
    both(passes("/sqlalchemy/engine/default.py", "connect"), _DRIVERS),
)
_MOST = 0.5  # of the silence: a statement that is younger does not explain it
_POOL = both(
    passes("/sqlalchemy/pool/"),
    either(passes("/sqlalchemy/util/queue.py"), innermost("/sqlalchemy/pool/")),
)


def _peer(case: Case) -> str:
    if case.descriptor is not None and case.descriptor.remote:
        return f"the database at {case.descriptor.remote}"
    if case.reading is not None and case.reading.peer is not None:
        return f"the database at {case.reading.peer}"
    return "the database"


def _unreachable(case: Case) -> str:
    heard = ago(case.tcp.acked_s if case.tcp else None, "the last sign of it came")
    return f"{_peer(case)} does not acknowledge what it is sent: {unacknowledged(case.tcp, 'it')}{heard}"


def _connecting(case: Case) -> str:
    if requests_connection(case):
        return f"a connection to {_peer(case)} is being made: {asked_to_connect(case)}"
    return f"a connection to {_peer(case)} is being made, and the server does not complete it"


def _working(case: Case) -> str:
    received = ago(case.tcp.received_s if case.tcp else None, "the last byte came")
    return (
        f"{_peer(case)} has taken the statement and sends no answer{received}:"
        " it works on it, or the statement waits for a lock that another session holds"
    )


def _has_session(case: Case) -> bool:
    return case.seen.database is not None and case.seen.database.session is not None


def _is_blocked(case: Case) -> bool:
    return case.seen.database is not None and bool(case.seen.database.blockers)


def _is_young(case: Case) -> bool:
    """The statement under way began late in the silence: others came before it."""
    session = case.seen.database.session if case.seen.database else None
    if session is not None:
        return session.since_s is not None and session.since_s < _MOST * case.silence_s
    received = case.tcp.received_s if case.tcp else None
    return received is not None and received < _MOST * case.silence_s


def _many(case: Case) -> str:
    session = case.seen.database.session if case.seen.database else None
    since = session.since_s if session else case.tcp.received_s if case.tcp else None
    query = f": {session.query}" if session and session.query else ""
    return (
        f"{_peer(case)} answers: the statement under way began only {span(since or 0.0)} ago,"
        f" others came before it{query}"
    )


def _server_is_silent(case: Case) -> bool:
    return case.seen.database is not None and not case.seen.database.answered


def _blocked(case: Case) -> str:
    facts = case.seen.database
    mine = facts.session if facts else None
    blockers = "; ".join(_session(one) for one in facts.blockers[:3]) if facts else "?"
    pid = f" (server process {mine.pid}{_since(mine)})" if mine else ""
    return f"its statement{pid} waits for a lock in the database, held by {blockers}"


def _session(session: Session) -> str:
    of = f" of {session.application}" if session.application else ""
    client = f" from {session.client}" if session.client else ""
    query = f", last statement: {session.query}" if session.query else ""
    return (
        f"server process {session.pid}{of}{client}, {session.state or '?'}{_since(session)}{query}"
    )


def _since(session: Session) -> str:
    return "" if session.since_s is None else f" for {span(session.since_s)}"


def _is_idle(case: Case) -> bool:
    """The server's process for this very session waits for a statement, as the server has it."""
    session = case.seen.database.session if case.seen.database else None
    return session is not None and (session.state or "").startswith("idle")


def _not_begun(case: Case) -> str:
    mine = case.seen.database.session if case.seen.database else None
    who = "" if mine is None else f" {mine.pid} is {mine.state}{_since(mine)}"
    return (
        f"{_peer(case)} has not begun its statement: server process{who}, as if nothing had been sent;"
        " what was sent has not arrived there, or that process hangs"
    )


def _slow(case: Case) -> str:
    mine = case.seen.database.session if case.seen.database else None
    if mine is None:
        return "the database works on its statement"
    query = f": {mine.query}" if mine.query else ""
    return (
        f"the database has worked on its statement{_since(mine)} (server process {mine.pid},"
        f" {mine.state or '?'}, waiting for no lock){query}"
    )


def _all_silent(case: Case) -> str:
    why = case.seen.database.why if case.seen.database else None
    return f"{_peer(case)} sends no answer, and a second connection got none either ({why or '?'})"


def _sqlite_locked(case: Case) -> str:
    return "SQLite sleeps and tries again: another process or connection holds the lock of the database file"


def _pool(case: Case) -> str:
    return (
        "every connection of SQLAlchemy's pool is in use, and the thread waits for one to come back"
    )


_KEEPALIVES = (
    "[database] sql_alchemy_connect_args names a dict (an import path): keepalives 1, keepalives_idle 30,"
    " keepalives_interval 5, keepalives_count 5, tcp_user_timeout 30000, connect_timeout 10."
)

RULES = (
    Rule(
        "database-unreachable",
        both(either(_EXECUTES, _CONNECTS), retransmits),
        _unreachable,
        "The server, or the network to it, is gone: a failover, a dead node, a firewall that forgot"
        " the connection."
        " The kernel gives up after about 15 minutes.\n" + _KEEPALIVES,
        raise_helps=False,
        known=("psycopg/psycopg2#944",),
    ),
    Rule(
        "database-connect",
        both(_CONNECTS, neither(retransmits, innermost("/socket.py", "getaddrinfo"), runs)),
        _connecting,
        "Look at the database server and a pooler before it (PgBouncer waits when its pool is full).\n"
        + _KEEPALIVES,
        raise_helps=False,
        known=("apache/airflow#28431",),
    ),
    Rule(
        "database-locked-file",
        both(_EXECUTES, sleeps),
        _sqlite_locked,
        "SQLite is for development: use PostgreSQL or MySQL. `fuser` or `lsof` on the file shows who has it open.",
        raise_helps=False,
    ),
    Rule(
        "database-lock-wait",
        both(_EXECUTES, _is_blocked),
        _blocked,
        "End the session that holds the lock, if nobody needs it: select pg_terminate_backend(<its pid>).\n"
        "idle_in_transaction_session_timeout on the server's role ends such sessions by itself; lock_timeout ends"
        " the waiting. Killing the scheduler frees no lock of another session.",
        raise_helps=False,
        known=("apache/airflow#68101",),
    ),
    Rule(
        "database-slow-query",
        both(_EXECUTES, _has_session, neither(_is_blocked, _is_young, _is_idle)),
        _slow,
        "ANALYZE the tables, clean them with `airflow db clean`, look at the statement's plan;"
        " statement_timeout on"
        " the server's role bounds it.",
        raise_helps=False,
        known=("apache/airflow#32986",),
    ),
    Rule(
        "database-many-statements",
        both(
            _EXECUTES,
            _is_young,
            neither(_is_blocked, _server_is_silent, retransmits, sleeps, runs, _is_idle),
        ),
        _many,
        "Not one statement is slow: the loop sends very many, or the time went elsewhere. The samples show"
        " where. Fewer at a time: [scheduler] max_tis_per_query, max_dagruns_per_loop_to_schedule; clean the"
        " tables with `airflow db clean`.",
        confidence="medium",
        raise_helps=False,
    ),
    Rule(
        "database-not-begun",
        both(_EXECUTES, _is_idle, neither(_is_blocked, retransmits)),
        _not_begun,
        "Look at that process on the server, and at what stands between: a pooler, a proxy, a load balancer.\n"
        + _KEEPALIVES,
        confidence="medium",
        raise_helps=False,
    ),
    Rule(
        "database-silent",
        both(_EXECUTES, _server_is_silent, neither(retransmits)),
        _all_silent,
        "Look at the database server and at a pooler before it.\n" + _KEEPALIVES,
        raise_helps=False,
    ),
    Rule(
        "database-no-answer",
        both(
            _EXECUTES,
            neither(retransmits, sleeps, runs, _has_session, _server_is_silent, _is_young),
        ),
        _working,
        "On PostgreSQL: select pid, state, wait_event_type, pg_blocking_pids(pid), left(query, 60)"
        " from pg_stat_activity"
        " where client_addr is this pod's: who is named as blocking holds the lock; an empty list is"
        " a slow query.\n"
        "Against locks: idle_in_transaction_session_timeout and lock_timeout on the server's role. Against slow"
        " queries: ANALYZE, `airflow db clean`.\n"
        "Killing the scheduler does not free a lock that another session holds.",
        confidence="medium",
        raise_helps=False,
        known=("apache/airflow#32986", "apache/airflow#68101"),
    ),
    Rule(
        "database-pool-exhausted",
        _POOL,
        _pool,
        "[database] sql_alchemy_pool_size and sql_alchemy_max_overflow; the stacks of the other threads show who"
        " holds the connections. A thread that keeps a session open while it waits for something"
        " else is the cause.",
        rank=WIDE,
        confidence="medium",
        raise_helps=False,
    ),
)

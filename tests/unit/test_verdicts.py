"""
Every rule against what was recorded of processes that were really stuck; tests/victims/record.py makes the files.

`tests/stacks/RULE.json` and `RULE--WHAT.json` must get this rule; `not-RULE--WHAT.json` must not, a near miss.
"""

from __future__ import annotations

import dataclasses
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from watchdog_hook.core.diagnosis import RULES, diagnose
from watchdog_hook.core.model import Finding
from watchdog_hook.core.observed import Observed
from watchdog_hook.core.plain import from_plain, to_plain
from watchdog_hook.core.signs import Case

STACKS = Path(__file__).parents[1] / "stacks"
IDS = [rule.id for rule in RULES]
NAMES = sorted(path.stem for path in STACKS.glob("*.json"))
TWINS = [name for name in NAMES if name.startswith("not-")]
VERDICTS = [name for name in NAMES if name not in TWINS]

# What is not there, and why. Nothing else may be missing.
NO_RECORDING: dict[str, str] = {}
NO_TWIN = {"unknown": "it is what is left where no other rule fits: nothing comes near it"}

# What fits as well, and is shown beside the verdict.
BESIDE = {
    "shutdown": ["child-process"],
    "throttled-processor": ["processor-loop"],
    "watcher-silent": ["no-progress"],
}

API = r"GET /api/v1/namespaces/\{namespace\}/pods to 127\.0\.0\.1:6443"
EMPTY: tuple[Any, ...] = (None, [], "")
MACHINE = re.compile(r"(?<!victim)/(?:tmp|root|home|mnt|work)/|victim-\w{8}\b")

# Whom and what the sentence has to name: the peer, the process, the owner, the file. A recording that is not
# listed has to say what the one says whose name it continues.
SAYS = {
    "broker-connect": r"the broker at 127\.0\.0\.1:6379 .* connection \d times, and no answer",
    "broker-connect--amqp": r"the broker at 127\.0\.0\.1:5672 ",
    "broker-flow-control": r"the broker at 127\.0\.0\.1:6379 .* \d{5,} bytes wait to be taken",
    "broker-flow-control--amqp": r"the broker at 127\.0\.0\.1:5672 .* \d{5,} bytes wait",
    "broker-silent": r"the broker at 127\.0\.0\.1:6379 does not answer; the last byte came 2 s ago",
    "broker-silent--amqp": r"the broker at 127\.0\.0\.1:5672 does not answer\.$",
    "broker-unreachable": r"the broker at 127\.0\.0\.1:6379 .* sent it \d times in \d s",
    "child-process": r"to end: KubernetesJobWatcher, pid \d+, sleeping in futex with a timeout",
    "child-process--any": r"there are: python, pid \d+, sleeping",
    "child-process--starts-a-program": r"the new process has not come to run it: python, pid \d+",
    "child-process--stopped": r"python, pid \d+, stopped",
    "child-process--subprocess": r"to end: sleep, pid \d+, sleeping in clock_nanosleep",
    "connect": r"to 127\.0\.0\.1:\d+ is still connecting: .* connection \d times, and no answer",
    "database-connect": r"the database at 127\.0\.0\.1:5432 .* does not complete it",
    "database-connect--gone": r"127\.0\.0\.1:5432 is being made: .* no answer to it has come",
    "database-lock-wait": (
        r"server process \d+ for 2 s\) waits for a lock .*, held by server process \d+"
        r" of airflow-dag-processor .*, idle in transaction"
    ),
    "database-locked-file": r"SQLite sleeps and tries again",
    "database-many-statements": r"127\.0\.0\.1:5432 answers: .* began only 0\.\d s ago",
    "database-no-answer": r"127\.0\.0\.1:5432 has taken the statement and sends no answer",
    "database-not-begun": r"server process \d+ is idle in transaction for \d s",
    "database-pool-exhausted": r"every connection of SQLAlchemy's pool is in use",
    "database-silent": r"127\.0\.0\.1:5432 sends no answer, and a second connection got none",
    "database-slow-query": r"has worked on its statement for \d s \(server process \d+, active",
    "database-unreachable": r"127\.0\.0\.1:5432 does not acknowledge .* sent it \d times in \d s",
    "deadlock": r"MainThread waits for .*, which listener has; listener waits for .*, which MainThread",
    "deadlock--itself": r"MainThread waits for .*, which it has itself",
    "disk-sleep": r"memory of a mapped file .* \(state D, uninterruptible\)",
    "disk-sleep--mapped-file": r"memory of a mapped file .* in request_wait_answer",
    "event-loop-blocked": r"task hasty keeps it in hasty \(/opt/victim/event_loop\.py:31\); held up: 4 tasks",
    "event-loop-blocked--callback": r"a callback keeps it in Handle\._run .*; held up: 1 task",
    "event-loop-blocked--greenback": (
        r"task hasty keeps it in .*portal \(.*event_loop\.py:\d+\), which stands in hasty .*:31\); held up: 2"
    ),
    "event-loop-waits": r"its event loop turns, and the task .* waits for a Future, in .*main",
    "fifo": r"it opens a FIFO whose other end nobody has open",
    "file-lock": r"a lock of /opt/victim/work/airflow-scheduler\.lock that python, pid \d+ holds",
    "file-lock--fcntl": r"a lock of /opt/victim/work/airflow-scheduler\.lock that python, pid \d+ holds",
    "file-system": r"newfstatat on /opt/airflow/dags/dag\.py \(fuse on /opt/airflow/dags\)",
    "file-system--frozen": r"mkdir on /opt/airflow/dags/dag_id=a \(ext4 on /opt/airflow/dags\)",
    "file-system--import": r"on /opt/airflow/dags \(fuse on /opt/airflow/dags\)",
    "file-system--read": r"read on /opt/airflow/dags/data \(fuse on /opt/airflow/dags\)",
    "foreign-code": (
        r"pod_mutation_hook \(/opt/airflow/config/airflow_local_settings\.py:9\), called by Airflow,"
        r" .* and waits for 127\.0\.0\.1:\d+"
    ),
    "inherited-lock": r"can never wake by itself: ForkPoolWorker-1, pid \d+, .* since its fork 6 s ago",
    "inherited-lock--grandchild": r"it waits for python, pid \d+, which waits for one that can never wake",
    "inherited-lock--pool": r"the work of a pool .*: ForkProcess-\d, pid \d+, has one thread",
    "interpreter-held": r"to itself for 4 s of it, .* this one stood in held \(.*whole\.py:\d+\)",
    "interpreter-held--backtracks": r"to itself for \d s of it, .* this one stood in backtracks \(",
    "kubernetes-api-silent": (
        r"POST /api/v1/namespaces/\{namespace\}/pods to 127\.0\.0\.1:6443 sent its request 2 s ago"
    ),
    "kubernetes-api-silent--retried": r"for the third time, by urllib3's own retries",
    "kubernetes-api-silent--reused-connection": rf"{API} sent its request 3 s ago",
    "kubernetes-connect": rf"{API} is still connecting: .* connection \d times, and no answer",
    "kubernetes-half-answer": rf"the answer to {API} has begun and its rest has not come",
    "kubernetes-half-answer--kubernetes-37": r"the answer to a call to 127\.0\.0\.1:6443 has begun",
    "kubernetes-send": r"127\.0\.0\.1:6443 is still sending: .* \d{5,} bytes of it wait",
    "kubernetes-tls-handshake": rf"{API} is connected, but the peer has not finished the TLS",
    "kubernetes-trickle": rf"the answer to {API} has begun and comes in small pieces",
    "kubernetes-trickle--kubernetes-37": r"to a call to 127\.0\.0\.1:6443 has begun and comes in small",
    "kubernetes-unreachable": r"127\.0\.0\.1:6443 gets no acknowledgement: .* \d times in \d s",
    "lock": (
        r"self\._lock of victim\.locks\.Exporter; thread OtelPeriodicExportingMetricReader has it"
        r" \(known by the lock itself\), which stands in (?:Exporter\.)?flush"
    ),
    "lock--handler": r"handler lock of StreamHandler; thread uploader has it .* StreamHandler\.emit",
    "lock--owner-unknown": r"self\._lock of victim\.locks\.Exporter; who has it cannot be seen",
    "lock--plain": r"thread OtelPeriodicExportingMetricReader has it \(known by its frames\)",
    "lock--thread": r"it waits for the end of thread uploader, which stands in Exporter\.flush",
    "lock--timed": r"for 3598 s more at most; thread OpenLineage has it",
    "manager": r"SyncManager-1, pid \d+, stopped",
    "manager--get": r"SyncManager-1, pid \d+, sleeping",
    "memory-pressure": r"for \d\d % of the last ten seconds: .* uses \d+ MiB of the \d+ MiB",
    "name-service": r"kubernetes\.default\.svc:6443 waits for the name service at 127\.0\.0\.53:53",
    "no-progress": r"\d tasks wait in KubernetesExecutor with 29 slots open, and none is started",
    "no-stall": r"A dump was asked for: nothing is wrong; the loop's last beat came 0\.\d s ago",
    "pipe": r"reads from a pipe .* open in DagFileProcessorManager, pid \d+",
    "pipe--full": r"writes into a pipe that is full; its other end is open in sleep, pid \d+",
    "pipe--nobody-of-ours": r"its other end is open in none of our children",
    "processor-loop": r"it computes, \d+ % of the time .* in one place: innermost loop \(.*whole\.py",
    "processor-loop--compresses": r"in one place: innermost compresses",
    "shutdown": r"the loop is over, and the executor is being shut down; that waits in Popen\.poll",
    "shutdown--workers-not-told": r"for Process-1, pid (\d+)\. It runs no task, .* for ever: kill -9 \1 \d+ lets",
    "sleep": r"it sleeps, for (?:3598 s more|3600 s), in pauses",
    "slow": r"its stack changes from look to look; at the last it stood in SSLSocket\.read",
    "slow--computes": r"it moves, \d+ % of the time on the processor: its stack changes",
    "socket": r"a connection to 127\.0\.0\.1:\d+ in reads",
    "socket--http": r"a connection to 127\.0\.0\.1:\d+ in .*readinto .*, called by http",
    "socket--sends": r"a connection to 127\.0\.0\.1:\d+ in sends .*; \d{5,} bytes wait to be taken",
    "throttled": rf"{API} is not stuck: urllib3 sleeps as the server's Retry-After asks",
    "throttled--backoff": rf"{API} is not stuck: urllib3 sleeps between two attempts",
    "throttled-processor": r"quota of 0\.2 cores was used up for [23] s of it",
    "tls-handshake": r"to 127\.0\.0\.1:\d+ is connected, but the peer has not finished the TLS",
    "unknown": r"in (?:Condition\.)?wait \(threading\.py:\d+\), called by unknown .*, and no rule knows why",
    # This client reads the body after the one place through which its calls go, and so outside of the book.
    "watch--kubernetes-37": r"a call to 127\.0\.0\.1:6443 is a watch that waits for its next event",
    "watch": rf"{API} is a watch that waits for its next event",
    "watcher-silent": (
        r"of namespace here \(KubernetesJobWatcher, pid \d+\) shows no sign of life: it is stopped; it has been in"
        r" one read for \d\d s, with a timeout of 4 s.*; 3 events came .*, the last \d\d s ago; so the"
    ),
}


@cache
def recorded(name: str) -> Case:
    """Return what was recorded under this name."""
    case = from_plain(Case, data(name))
    assert case is not None, f"{name} is no Case any more: record it again"
    return case


def data(name: str) -> Any:
    return json.loads((STACKS / f"{name}.json").read_text(encoding="utf-8"))


def diagnosed(name: str) -> Finding:
    case = recorded(name)
    return diagnose(
        case.snapshot,
        silence=case.silence_s,
        phase=case.phase,
        call=case.call,
        reading=case.reading,
        how=case.how,
    )


def rule_of(name: str) -> str:
    return name.removeprefix("not-").partition("--")[0]


def without_empty(value: Any) -> Any:
    """Return a plain value as the recorder leaves it, and without what was left out there."""
    if isinstance(value, dict):
        clean = {key: without_empty(item) for key, item in value.items() if key != "arguments"}
        return {key: item for key, item in clean.items() if item not in EMPTY}
    return [without_empty(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", VERDICTS)
def test_a_recording_gets_its_verdict(name):
    finding = diagnosed(name)

    assert finding.id == rule_of(name), finding.sentence
    assert [other.id for other in finding.also] == BESIDE.get(rule_of(name), [])
    assert finding.signs


@pytest.mark.parametrize("name", VERDICTS)
def test_the_sentence_names_whom_and_what(name):
    listed = name
    while listed not in SAYS:
        listed = listed.rpartition("--")[0]

    assert re.search(SAYS[listed], diagnosed(name).sentence), diagnosed(name).sentence


@pytest.mark.parametrize("name", NAMES)
def test_of_less_evidence_less_is_said_and_nothing_breaks(name):
    """As where the kernel, a privilege or the child itself says no."""
    case = recorded(name)
    bare = dataclasses.replace(case.snapshot, observed=Observed(), samples=())

    found = diagnose(bare, silence=case.silence_s, phase=case.phase, call=case.call, how=case.how)

    assert found.sentence


@pytest.mark.parametrize("name", TWINS)
def test_a_near_miss_does_not_get_the_verdict(name):
    finding = diagnosed(name)

    assert rule_of(name) not in [finding.id, *(other.id for other in finding.also)]


@pytest.mark.parametrize(
    ("running", "waits", "said"),
    [
        (1, "read on a pipe", "waits for the tasks that it still runs"),
        (None, "read on a pipe", "waits for the tasks that it still runs"),
        (0, "poll on tcp 10.0.0.1:8080", "By its books it runs no task any more"),
        (0, None, "By its books it runs no task any more"),
    ],
)
def test_a_worker_that_may_yet_end_is_not_told_as_one_that_waits_for_ever(running, waits, said):
    case = recorded("shutdown--workers-not-told")
    seen = case.snapshot.observed
    (executor,) = seen.executors
    children = [dataclasses.replace(child, waits=waits) for child in seen.process.children]
    seen = dataclasses.replace(
        seen,
        executors=(dataclasses.replace(executor, running=running),),
        process=dataclasses.replace(seen.process, children=tuple(children)),
    )
    snapshot = dataclasses.replace(case.snapshot, observed=seen)

    sentence = diagnose(snapshot, silence=case.silence_s, phase=case.phase, how=case.how).sentence

    assert said in sentence
    assert "for ever" not in sentence


@pytest.mark.parametrize("rule", IDS)
def test_every_rule_has_a_recording(rule):
    if rule in NO_RECORDING:
        pytest.skip(f"{rule} could not be recorded: {NO_RECORDING[rule]}")

    assert rule in VERDICTS
    assert rule in SAYS


@pytest.mark.parametrize("rule", IDS)
def test_every_rule_has_a_twin(rule):
    if rule in NO_TWIN:
        pytest.skip(f"{rule} has no twin: {NO_TWIN[rule]}")

    assert any(rule_of(name) == rule for name in TWINS)


def test_every_recording_is_of_a_rule():
    assert {rule_of(name) for name in NAMES} <= set(IDS)
    assert set(SAYS) <= set(VERDICTS)
    assert set(NO_RECORDING) | set(NO_TWIN) <= set(IDS)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_recorded_is_lost_on_the_way(name):
    # A field that was renamed would be left out in silence, and its rule judge without it.
    assert without_empty(to_plain(recorded(name))) == without_empty(data(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_says_nothing_of_the_machine_it_was_made_on(name):
    text = (STACKS / f"{name}.json").read_text(encoding="utf-8")

    assert not MACHINE.search(text), MACHINE.search(text)

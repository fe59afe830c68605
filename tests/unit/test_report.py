from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from watchdog_hook.core.model import (  # noqa: E402
    CallRecord,
    Deed,
    Finding,
    Frame,
    Incident,
    Sample,
    Snapshot,
    ThreadStack,
)
from watchdog_hook.core.observed import Iteration, Observed, TaskGroup  # noqa: E402
from watchdog_hook.core.report import (  # noqa: E402
    fingerprint,
    from_json,
    json_chunks,
    log_line,
    render,
    render_delta,
    to_json,
)

LONGEST_LINE = 4000

READ = Frame("SSLSocket.read", "/usr/lib/python3.12/ssl.py", 1099)
REQUEST = Frame("request", "/opt/venv/lib/python3.12/site-packages/kubernetes/client/rest.py", 200)
LOOP = Frame("_run_scheduler_loop", "/opt/venv/lib/python3.12/site-packages/airflow/jobs/s.py", 7)
IDLE = Frame("wait", "/usr/lib/python3.12/threading.py", 359)
STUCK = CallRecord(
    "POST /api/v1/namespaces/{namespace}/pods", "10.0.0.1:443", "MainThread", 31.2, guarded=True
)
DONE = CallRecord("GET /version", "10.0.0.1:443", "MainThread", 40.0, 1.25, "200")
GOES_ON = Iteration(31.0, None, (("heartbeat", 0.0, 31.0),))


def incident(**changes: Any) -> Incident:
    given = Incident(
        id="20261122T010101Z-here-1-1",
        host="here",
        pid=1,
        began=1_795_391_631.5,
        first_dump=1_795_391_661.5,
        silence_s=30.06,
        phase="executor.heartbeat (KubernetesExecutor)",
        finding=Finding("a-cause", "high", "It waits.", "Do this.\nAnd [that] x = 1.", ("a sign",)),
        snapshot=Snapshot(
            threads=(
                ThreadStack(1, "MainThread", (READ, REQUEST, LOOP), 11),
                ThreadStack(2, "idle-1", (IDLE,)),
            ),
            samples=(
                Sample(15.0, (READ, LOOP)),
                Sample(16.0, (REQUEST, LOOP)),
                Sample(17.0, (READ, LOOP)),
            ),
            in_flight=(STUCK,),
            recent=(DONE,),
            unavailable=(("system calls of threads", "Permission denied"),),
        ),
        call=STUCK.call,
        peer=STUCK.peer,
        age_s=31.2,
    )
    return given.evolve(**changes)


def with_threads(*threads: ThreadStack) -> Incident:
    return incident(snapshot=Snapshot((ThreadStack(1, "MainThread", (READ, LOOP)), *threads)))


def parsed(line: str) -> dict[str, str]:
    """Read logfmt as another program would."""
    prefix, _, rest = line.partition(": ")
    assert prefix == "watchdog_hook"
    pairs = re.findall(r'([A-Za-z_]+)=(?:"((?:[^"\\]|\\.)*)"|(\S*))(?: |$)', rest)
    assert sum(len(key) + 1 for key, _, _ in pairs) <= len(rest)
    return {key: re.sub(r"\\(.)", r"\1", quoted) if quoted else bare for key, quoted, bare in pairs}


class TestLogLine:
    def test_keys_come_in_the_order_of_the_contract_and_none_is_left_out(self):
        line = log_line(
            "dump", other=1, ti="a.b", age_s=31.26, call="GET /x", phase=None, incident="i"
        )

        assert (
            line == 'watchdog_hook: event=dump incident=i call="GET /x" age_s=31.3 ti=a.b other=1'
        )

    def test_numbers_have_one_decimal_at_most(self):
        assert (
            log_line("slow", a=30.0, b=0.04, c=3, d=True)
            == "watchdog_hook: event=slow a=30 b=0 c=3 d=true"
        )

    def test_a_value_can_neither_break_the_line_nor_end_its_quotes(self):
        line = log_line("dump", phase='a "b"\nevent=interrupt\x1b[31m')

        assert line == 'watchdog_hook: event=dump phase="a \\"b\\" event=interrupt [31m"'

    @given(st.text(max_size=200))
    def test_what_is_written_can_be_read_back(self, text):
        line = log_line("dump", phase=text, call="x")

        assert line.isprintable()
        assert parsed(line) == {
            "event": "dump",
            "phase": "".join(char if char.isprintable() else " " for char in text),
            "call": "x",
        }


class TestRender:
    def test_the_parts_come_in_the_order_of_the_contract(self):
        text = render(incident(), files="/logs/x", plan="interrupt at 60 s")

        parts = [
            "watchdog_hook: event=dump",
            " Silent since 2026-11-22T23:53:51.500Z",
            " It waits.",
            " Sign: a sign",
            " Verdict: ",
            " Next: interrupt at 60 s",
            " What you can change:",
            "   And [that] x = 1.",
            " Where the time went",
            " Stack of MainThread",
            " Other threads (1)",
            " Calls in flight (1):",
            " Last 1 calls",
            " Could not be read: system calls of threads (Permission denied)",
            " Files: /logs/x",
        ]
        places = [text.index(part) for part in parts]
        assert places == sorted(places)

    def test_the_stack_is_innermost_first_with_short_paths(self):
        lines = render(incident()).splitlines()

        at = lines.index(" Stack of MainThread, tid 11, innermost frame first:")
        assert lines[at + 1 : at + 4] == [
            "    SSLSocket.read (ssl.py:1099)",
            "    request (kubernetes/client/rest.py:200)",
            "    _run_scheduler_loop (airflow/jobs/s.py:7)",
        ]

    def test_the_table_shows_own_and_total_share(self):
        lines = render(incident()).splitlines()

        at = lines.index("   %Own   %Total  OwnTime  TotalTime  Function (filename)")
        assert (
            lines[at - 1] == " Where the time went, in 3 samples between 15 s and 17 s of silence:"
        )
        assert lines[at + 1 : at + 4] == [
            "  50.00%  50.00%    1.00s     1.00s   SSLSocket.read (ssl.py)",
            "  50.00%  50.00%    1.00s     1.00s   request (kubernetes/client/rest.py)",
            "   0.00% 100.00%   0.000s     2.00s   _run_scheduler_loop (airflow/jobs/s.py)",
        ]

    def test_what_is_new_since_healthy_days_stands_between_the_table_and_the_stack(self):
        seen = Observed(
            iterations=(Iteration(31.0, 1.0, (("scheduling", 0.0, 0.5),)), GOES_ON),
            normal=(((LOOP,), 34),),
        )
        text = render(incident(snapshot=replace(incident().snapshot, observed=seen)))

        assert (
            " Normally (34 healthy samples): a turn takes 1.00 s (scheduling 0.50);"
            " innermost 100 % _run_scheduler_loop (airflow/jobs/s.py).\n"
            " New since the healthy picture: request (kubernetes/client/rest.py:200);"
            " + marks what was in no healthy sample.\n"
            " Stack of MainThread, tid 11, innermost frame first:\n"
            "  + SSLSocket.read (ssl.py:1099)\n"
            "  + request (kubernetes/client/rest.py:200)\n"
            "    _run_scheduler_loop (airflow/jobs/s.py:7)\n"
        ) in text
        assert text.index(" Where the time went") < text.index(" Normally")

    def test_a_record_has_the_last_calls_and_turns_the_files_have_all(self):
        calls = tuple(CallRecord(f"GET /{n}", None, "x", 9.0, 1.0, "200") for n in range(200))
        ended = tuple(Iteration(99.0 - n, 1.0, ()) for n in range(50))
        seen = Observed(iterations=(*ended, GOES_ON))
        full = incident(snapshot=Snapshot((), recent=calls, observed=seen))

        brief, everything = render(full), render(full, limit=None)
        assert " Last 20 calls of the 200 before, newest last:\n    GET /180 " in brief
        assert brief.count("    GET /") == 20
        assert brief.count("    turn 1.00 s") == 5
        assert " Last 200 calls, newest last:\n    GET /0 " in everything
        assert everything.count("    GET /") == 200
        assert everything.count("    turn 1.00 s") == 50
        for text in (brief, everything):
            assert "    this turn, 31.00 s so far: heartbeat 31.00 so far" in text

    def test_the_size_of_an_answer_is_shown_where_it_is_known(self):
        sized = replace(DONE, bytes=1234)
        text = render(incident(snapshot=Snapshot((), recent=(DONE, sized))))

        assert "200 after 1.25 s [MainThread]\n" in text
        assert "200 after 1.25 s, 1234 bytes [MainThread]" in text

    def test_equal_stacks_are_folded(self):
        text = render(with_threads(*(ThreadStack(n, f"pool-{n}", (IDLE,)) for n in range(30))))

        assert text.count("wait (threading.py:359)") == 1
        assert "30 x pool-0, pool-1" in text
        assert "and 22 more:" in text

    def test_calls_show_their_answer_and_duration(self):
        text = render(incident())

        assert (
            "    POST /api/v1/namespaces/{namespace}/pods to 10.0.0.1:443 for 31.2 s, guarded [MainThread]"
            in text
        )
        assert "    GET /version to 10.0.0.1:443 40.0 s ago: 200 after 1.25 s [MainThread]" in text

    def test_further_lines_begin_with_a_blank(self):
        assert all(line.startswith(" ") for line in render(incident(), files="/x").splitlines()[1:])


class TestLimit:
    def test_other_threads_go_first_and_the_text_says_so(self):
        crowd = with_threads(
            *(
                ThreadStack(n, f"t{n}", tuple(Frame(f"f{n}", "/x.py", m) for m in range(40)))
                for n in range(100)
            )
        )
        text = render(crowd, limit=16_000, files="/logs/x")

        assert len(text.encode()) <= 16_000
        assert " Cut to fit: other threads; the files have all of it." in text
        assert re.search(r"\.\.\. \d+ more lines", text)
        assert "SSLSocket.read (ssl.py:1099)" in text
        assert text.endswith(" Files: /logs/x")

    def test_calls_go_before_samples_and_the_stalled_stack_stays(self):
        calls = tuple(CallRecord(f"GET /{n}", None, "x", n, 1.0, "200") for n in range(500))
        samples = tuple(Sample(n, (Frame(f"f{n}", "/x.py", n), LOOP)) for n in range(30))
        full = incident(
            snapshot=Snapshot(
                (ThreadStack(1, "MainThread", (READ, LOOP)),), samples, (STUCK,), calls
            )
        )
        text = render(full, limit=2_800)

        assert " Cut to fit: calls; the files have all of it." in text
        assert "f29 (/x.py)" in text
        assert "SSLSocket.read (ssl.py:1099)" in text
        assert "Cut to fit: calls, samples;" in render(full, limit=1_500)

    def test_everything_is_there_without_a_limit(self):
        crowd = with_threads(
            *(ThreadStack(n, f"t{n}", (Frame(f"f{n}", "/x.py", n),)) for n in range(5000))
        )

        assert "f4999 (/x.py:4999)" in render(crowd, limit=None)


class TestDelta:
    def test_the_same_stack_is_said_in_a_line(self):
        snapshot = incident().snapshot
        text = render_delta(incident(), snapshot, snapshot, since_s=30)

        assert text.startswith(
            "watchdog_hook: event=dump incident=20261122T010101Z-here-1-1 silent_s=30.1"
        )
        assert "repeated=true" in text
        assert "is the same as before, innermost SSLSocket.read (ssl.py:1099)." in text
        assert " Still in flight: POST" in text
        assert "GET /version" not in text

    def test_a_new_stack_and_new_calls_are_shown(self):
        before = incident().snapshot
        now = Snapshot(
            threads=(ThreadStack(1, "MainThread", (IDLE, LOOP)), ThreadStack(3, "new", (IDLE,))),
            in_flight=(CallRecord("GET /b", None, "MainThread", 3.0),),
            recent=(CallRecord("GET /a", None, "MainThread", 20.0, 2.0, "200"),),
        )
        text = render_delta(incident(), before, now, since_s=30)

        assert " The stack has changed." in text
        assert "    wait (threading.py:359)\n    _run_scheduler_loop" in text
        assert " Threads begun since (1): new" in text
        assert " Threads ended since (1): idle-1" in text
        assert " Begun since: GET /b for 3.0 s" in text
        assert " Ended since: GET /a 20.0 s ago: 200 after 2.00 s" in text

    def test_of_many_calls_that_ended_since_the_last_are_shown(self):
        calls = tuple(CallRecord(f"GET /{n}", None, "x", 9.0, 1.0, "200") for n in range(200))
        text = render_delta(incident(), incident().snapshot, Snapshot((), recent=calls), since_s=30)

        assert " Ended since: 180 calls before these\n Ended since: GET /180 " in text
        assert text.count(" Ended since: GET") == 20


TEXT = st.text(max_size=30)
FLOAT = st.floats(0, 1e7).map(lambda number: round(number, 3))
COUNT = st.integers(0, 2**62)
FRAMES = st.lists(st.builds(Frame, TEXT, TEXT, COUNT), max_size=4).map(tuple)
PHASES = st.lists(st.tuples(TEXT, FLOAT, FLOAT), max_size=3).map(tuple)


def maybe(values: Any) -> Any:
    return st.none() | values


def calls(duration: Any) -> Any:
    record = st.builds(
        CallRecord,
        TEXT,
        maybe(TEXT),
        TEXT,
        FLOAT,
        duration_s=duration,
        answer=maybe(TEXT),
        guarded=st.booleans(),
        bytes=maybe(COUNT),
    )
    return st.lists(record, max_size=3).map(tuple)


INCIDENTS = st.builds(
    Incident,
    id=TEXT,
    host=TEXT,
    pid=COUNT,
    began=FLOAT,
    first_dump=FLOAT,
    silence_s=FLOAT,
    phase=maybe(TEXT),
    finding=st.builds(
        Finding, TEXT, TEXT, TEXT, TEXT, st.lists(TEXT, max_size=3).map(tuple), st.booleans()
    ),
    snapshot=st.builds(
        Snapshot,
        threads=st.lists(st.builds(ThreadStack, COUNT, TEXT, FRAMES, maybe(COUNT)), max_size=3).map(
            tuple
        ),
        samples=st.lists(st.builds(Sample, FLOAT, FRAMES), max_size=3).map(tuple),
        in_flight=calls(st.none()),
        recent=calls(maybe(FLOAT)),
        unavailable=st.lists(st.tuples(TEXT, TEXT), max_size=2).map(tuple),
        observed=st.builds(
            Observed,
            iterations=st.lists(st.builds(Iteration, FLOAT, maybe(FLOAT), PHASES), max_size=3).map(
                tuple
            ),
            normal=st.lists(st.tuples(FRAMES, st.integers(1, 99)), max_size=3).map(tuple),
            tasks=st.lists(
                st.builds(
                    TaskGroup,
                    st.integers(1, 9999),
                    st.sampled_from(["running", "ready", "waits", "not read"]) | TEXT,
                    st.lists(TEXT, max_size=3).map(tuple),
                    FRAMES,
                    maybe(TEXT),
                    maybe(TEXT),
                ),
                max_size=3,
            ).map(tuple),
        ),
    ),
    call=maybe(TEXT),
    peer=maybe(TEXT),
    age_s=maybe(FLOAT),
    ended=maybe(FLOAT),
    job_id=maybe(TEXT),
    process_started=maybe(FLOAT),
    versions=st.dictionaries(TEXT, TEXT, max_size=3),
    settings=st.dictionaries(TEXT, st.none() | st.booleans() | COUNT | TEXT, max_size=3),
    actions=st.lists(st.builds(Deed, FLOAT, TEXT, maybe(TEXT), maybe(TEXT)), max_size=2).map(tuple),
    waiting=maybe(COUNT),
    truncated=st.booleans(),
    component=maybe(TEXT),
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = list(to_json(incident()))


class TestProperties:
    @given(INCIDENTS, maybe(TEXT), maybe(TEXT))
    def test_the_renderer_never_raises_and_its_lines_stay_bounded(self, anything, files, plan):
        text = render(anything, files=files, plan=plan)
        lines = text.split("\n")

        assert len(text.encode()) <= 64 * 1024
        assert all(line.isprintable() and len(line) <= LONGEST_LINE for line in lines)
        assert all(line.startswith(" ") for line in lines[1:])
        assert render_delta(anything, anything.snapshot, Snapshot(()), since_s=1)

    @given(INCIDENTS, st.integers(300, 3000))
    def test_no_limit_is_overstepped(self, anything, limit):
        assert len(render(anything, limit=limit).encode()) <= limit

    @given(INCIDENTS)
    def test_json_keeps_an_incident(self, anything):
        assert from_json(json.loads("".join(json_chunks(to_json(anything))))) == anything

    @given(st.dictionaries(st.sampled_from(KEYS) | TEXT, ANYTHING))
    def test_a_damaged_incident_can_still_be_shown(self, damaged):
        whole = to_json(incident())

        assert render(from_json(damaged))
        assert render(from_json({**whole, **damaged}))


def test_tasks_stand_by_themselves_in_json_and_behind_the_stack_in_a_report():
    waits = TaskGroup(12, "waits", ("step/a", "step/b"), (READ, LOOP), "Future", "MainThread")
    groups = (TaskGroup(1, "running", ("step/c",), (), None, "MainThread"), waits)
    told = incident(component="triggerer")
    told = told.evolve(snapshot=replace(told.snapshot, observed=Observed(tasks=groups)))

    plain = to_json(told)
    text = render(told)

    assert [group["count"] for group in plain["tasks"]] == [1, 12]
    assert "tasks" not in plain["observed"]
    assert plain["component"] == "triggerer"
    assert " component=triggerer" in text.partition("\n")[0]
    assert " Tasks of asyncio (13), those in one place together:" in text
    assert "  step/c: running in MainThread: see the stack of that thread" in text
    assert (
        "  12 x step/a, step/b and 10 more: waits for Future in MainThread\n    SSLSocket.read"
        in text
    )
    assert text.index("innermost frame first") < text.index("Tasks of asyncio")
    assert text.index("Tasks of asyncio") < text.index("Other threads")


def test_of_very_many_places_where_tasks_wait_a_record_has_the_first_and_the_file_all():
    groups = tuple(
        TaskGroup(2, "waits", (f"t{n}",), (Frame(f"f{n}", "/x.py", n),)) for n in range(300)
    )
    told = incident()
    told = told.evolve(snapshot=replace(told.snapshot, observed=Observed(tasks=groups)))

    assert "  ... 560 more\n" in render(told)
    assert "f299 (" in render(told, limit=None)


def test_json_is_valid_whatever_the_numbers_are():
    odd = incident(
        silence_s=float("nan"), began=float("inf"), settings={"a": float("inf"), "b": (1, object)}
    )

    assert (
        json.loads("".join(json_chunks(to_json(odd))), parse_constant=pytest.fail)["silence_s"]
        is None
    )
    assert render(odd)


def test_json_has_the_keys_of_the_contract():
    promised = (
        "schema id fingerprint host pid job_id process_started versions settings began first_dump ended"
        " silence_s phase verdict calls threads samples actions unavailable truncated"
    )

    assert set(promised.split()) <= set(to_json(incident()))
    assert to_json(incident())["schema"] == 1
    assert to_json(incident())["began"] == "2026-11-22T23:53:51.500Z"


SYNC = Frame(
    "KubernetesExecutor.sync", "/opt/venv/lib/python3.12/site-packages/airflow/executors/k.py", 9
)
RETRY = Frame("urlopen", "/opt/venv/lib/python3.12/site-packages/urllib3/connectionpool.py", 5)


def stalled(*frames: Frame, **changes: Any) -> Incident:
    return incident(snapshot=Snapshot((ThreadStack(1, "MainThread", frames),)), **changes)


ONE = fingerprint(stalled(READ, REQUEST, SYNC, LOOP))


@pytest.mark.parametrize(
    "same",
    [
        stalled(READ, REQUEST, SYNC, LOOP, host="there", pid=9, silence_s=400.0),
        stalled(READ, RETRY, RETRY, RETRY, REQUEST, SYNC, LOOP),
        stalled(SYNC, LOOP),
        stalled(
            READ, Frame("sync", "/x/python3.10/site-packages/airflow/executors/k.py", 77), LOOP
        ),
        stalled(READ, SYNC, SYNC, LOOP),
        stalled(
            SYNC, Frame("wrapped", "/x/site-packages/watchdog_hook/integrations/patch.py", 3), LOOP
        ),
        stalled(
            SYNC, LOOP, Frame("scheduler", "/x/site-packages/airflow/cli/commands/s.py", 3), SYNC
        ),
        stalled(SYNC, Frame(LOOP.function, "/src/airflow-core/src/airflow/jobs/s.py", 1)),
    ],
    ids=["host", "retries", "library", "python", "recursion", "hook", "start", "checkout"],
)
def test_stalls_of_one_kind_in_one_place_have_one_fingerprint(same):
    assert fingerprint(same) == ONE


MINE = Frame("pod_mutation_hook", "/opt/airflow/config/airflow_local_settings.py", 12)


@pytest.mark.parametrize(
    "other",
    [
        stalled(READ, REQUEST, LOOP),
        stalled(READ, REQUEST, SYNC, LOOP, phase="scheduling"),
        stalled(READ, REQUEST, SYNC, LOOP, finding=Finding("b-cause", "high", "It waits.")),
        stalled(READ, MINE, SYNC, LOOP),
        stalled(),
    ],
    ids=["place", "phase", "verdict", "user's code", "no stack"],
)
def test_stalls_of_another_kind_or_place_have_another_fingerprint(other):
    assert fingerprint(other) != ONE


def test_a_fingerprint_knows_the_users_code_wherever_it_lies_and_ends_with_eight_frames():
    elsewhere = Frame("pod_mutation_hook", "/home/me/af/config/airflow_local_settings.py", 99)
    deep = [Frame(f"step_{n}", "/dags/repo/mine.py", n) for n in range(9)]

    assert fingerprint(stalled(READ, MINE, LOOP)) == fingerprint(stalled(MINE, LOOP))
    assert fingerprint(stalled(READ, MINE, LOOP)) == fingerprint(stalled(elsewhere, LOOP))
    assert fingerprint(stalled(*deep)) == fingerprint(stalled(*deep[:8], SYNC, LOOP))
    assert fingerprint(stalled(*deep)) != fingerprint(stalled(*deep[1:]))

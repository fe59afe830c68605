from __future__ import annotations

import pytest

from watchdog_hook.core.diagnosis import RULES, diagnose
from watchdog_hook.core.model import (
    CallRecord,
    Finding,
    Frame,
    Snapshot,
    ThreadReading,
    ThreadStack,
)

SITE = "/opt/venv/lib/python3.12/site-packages/"
STDLIB = "/usr/lib/python3.12/"
PLACES = {
    "read": ("SSLSocket.read", STDLIB + "ssl.py"),
    "readinto": ("SocketIO.readinto", STDLIB + "socket.py"),
    "status": ("HTTPResponse._read_status", STDLIB + "http/client.py"),
    "body": ("HTTPResponse.read", STDLIB + "http/client.py"),
    "handshake": ("SSLSocket.do_handshake", STDLIB + "ssl.py"),
    "connect": ("create_connection", SITE + "urllib3/util/connection.py"),
    "resolve": ("getaddrinfo", STDLIB + "socket.py"),
    "write": ("SSLSocket.write", STDLIB + "ssl.py"),
    "send": ("HTTPConnection.send", STDLIB + "http/client.py"),
    "sleep": ("Retry.sleep_for_retry", SITE + "urllib3/util/retry.py"),
    "backoff": ("Retry._sleep_backoff", SITE + "urllib3/util/retry.py"),
    "urlopen": ("HTTPConnectionPool.urlopen", SITE + "urllib3/connectionpool.py"),
    "rest": ("RESTClientObject.request", SITE + "kubernetes/client/rest.py"),
    "requests": ("HTTPAdapter.send", SITE + "requests/adapters.py"),
    "hook": ("pod_mutation_hook", "/opt/airflow/config/airflow_local_settings.py"),
    "vault": ("Client.read", SITE + "hvac/v1/__init__.py"),
    "boundary": ("_around", SITE + "watchdog_hook/integrations/airflow/boundaries.py"),
    "sync": (
        "KubernetesExecutor.sync",
        SITE + "airflow/providers/cncf/kubernetes/executors/kubernetes_executor.py",
    ),
    "loop": (
        "SchedulerJobRunner._run_scheduler_loop",
        SITE + "airflow/jobs/scheduler_job_runner.py",
    ),
    "bin": ("<module>", "/opt/venv/bin/airflow"),
    "lock": ("Condition.wait", STDLIB + "threading.py"),
}
CREATE = CallRecord(
    "POST /api/v1/namespaces/{namespace}/pods", "10.0.0.1:443", "MainThread", 31.2, guarded=True
)
PHASE = "executor.heartbeat (KubernetesExecutor)"


def stalled(
    places: str,
    call: CallRecord | None = CREATE,
    received: float | None = None,
    in_socket: bool = True,
) -> Finding:
    frames = tuple(Frame(*PLACES[place], line=7) for place in places.split())
    reading = ThreadReading((1, 2, 3), 4, frames[0], in_socket=in_socket, received_ago_s=received)
    snapshot = Snapshot((ThreadStack(1, "MainThread", frames),))
    return diagnose(snapshot, silence=31.4, phase=PHASE, call=call, reading=reading)


@pytest.mark.parametrize(
    ("places", "cause"),
    [
        ("read readinto status urlopen rest sync loop bin", "kubernetes-api-silent"),
        ("readinto status urlopen rest sync loop", "kubernetes-api-silent"),
        (
            "read readinto status urlopen rest boundary sync boundary loop bin",
            "kubernetes-api-silent",
        ),
        ("read readinto body urlopen rest sync loop", "kubernetes-half-answer"),
        ("connect urlopen rest sync loop", "kubernetes-connect"),
        ("handshake urlopen rest sync loop", "kubernetes-tls-handshake"),
        ("write urlopen rest sync loop", "kubernetes-send"),
        ("send urlopen rest sync loop", "kubernetes-send"),
        ("sleep urlopen rest sync loop", "throttled"),
        ("backoff urlopen rest sync loop", "throttled"),
        ("resolve connect urlopen rest sync loop", "name-service"),
        ("read readinto status urlopen requests hook sync loop bin", "foreign-code"),
        ("read readinto status urlopen requests vault sync loop bin", "foreign-code"),
        ("connect urlopen requests", "connect"),
        ("handshake urlopen requests", "tls-handshake"),
        ("read readinto status urlopen requests", "socket"),
    ],
)
def test_each_place_has_its_cause(places, cause):
    assert stalled(places).id == cause


def test_the_sentence_says_who_where_what_and_whom():
    assert stalled("read readinto status urlopen rest sync loop", received=31.2).sentence == (
        "MainThread has been silent for 31 s in phase executor.heartbeat (KubernetesExecutor):"
        " POST /api/v1/namespaces/{namespace}/pods to 10.0.0.1:443 sent its request 31 s ago"
        " and no byte of an answer has come."
    )


def test_the_remedy_names_the_options():
    remedy = stalled("read readinto status urlopen rest sync loop").remedy

    assert (
        '[kubernetes_executor] kube_client_request_args = {"_request_timeout": [10, 60]}' in remedy
    )
    assert "not reach PATCH" in remedy
    assert "task_publish_max_retries" in remedy
    assert "api_client_retry_configuration" in remedy


def test_a_byte_that_came_during_the_call_is_not_denied():
    sentence = stalled("read readinto status urlopen rest sync loop", received=5.0).sentence

    assert "no byte" not in sentence
    assert "came 5 s ago" in sentence


def test_urllib3s_own_retries_are_counted():
    sentence = stalled("read readinto status urlopen urlopen urlopen rest sync loop").sentence

    assert "for the third time, by urllib3's own retries" in sentence


def test_an_answer_that_trickles_is_told_from_half_an_answer():
    assert (
        stalled("read readinto body urlopen rest sync loop", received=0.8).id
        == "kubernetes-trickle"
    )
    assert (
        stalled("read readinto body urlopen rest sync loop", received=30.0).id
        == "kubernetes-half-answer"
    )


def test_foreign_code_is_named_by_its_outermost_frame():
    sentence = stalled(
        "read readinto status urlopen requests hook sync loop bin", call=None
    ).sentence

    assert (
        "pod_mutation_hook (/opt/airflow/config/airflow_local_settings.py:7), called by Airflow"
        in sentence
    )


def test_the_program_that_started_airflow_is_not_foreign_code():
    assert stalled("lock loop bin", in_socket=False).id == "unknown"


def test_unknown_shows_the_signs_and_claims_nothing():
    finding = stalled("lock sync loop", in_socket=False)

    assert finding.confidence == "low"
    assert "no rule knows why" in finding.sentence
    assert "innermost frame Condition.wait (threading.py:7)" in finding.signs


def test_an_unguarded_call_is_said_to_be_never_interrupted():
    unguarded = CallRecord("GET /x", None, "MainThread", 40.0)

    assert any(
        "never interrupted" in sign for sign in stalled("read status rest", call=unguarded).signs
    )


def test_nothing_to_look_at_is_no_error():
    assert diagnose(Snapshot(()), silence=1.0).id == "unknown"


def test_every_rule_has_a_name_of_its_own_and_a_remedy():
    assert len({rule.id for rule in RULES}) == len(RULES)
    assert all(rule.remedy for rule in RULES)
    assert RULES[-1].id == "unknown"

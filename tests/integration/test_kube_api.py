"""The tests' Kubernetes API, as the real clients see it."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.kube_api import Fault, KubeApi

if TYPE_CHECKING:
    from collections.abc import Iterator

client = pytest.importorskip("kubernetes.client", reason="needs the kubernetes client")
urllib3 = pytest.importorskip("urllib3")

SOON = 0.5
METADATA = {"Accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}


@pytest.fixture
def api() -> Iterator[KubeApi]:
    with KubeApi() as api:
        yield api


@pytest.fixture
def pods(api: KubeApi) -> Iterator[Any]:
    from kubernetes import config

    settings = client.Configuration()
    config.load_kube_config(str(api.kubeconfig), client_configuration=settings)
    settings.retries = urllib3.util.Retry(0)
    with client.ApiClient(settings) as api_client:
        yield client.CoreV1Api(api_client)


def pod(name: str, labels: dict[str, str] | None = None, argument: str = "x") -> dict[str, Any]:
    container = {"name": "base", "image": "none", "args": [argument]}
    metadata = {"name": name, "labels": labels or {}}
    return {"metadata": metadata, "spec": {"containers": [container]}}


def names(answer: Any) -> list[str]:
    return [item.metadata.name for item in answer.items]


def create(pods: Any, name: str, timeout: float | None = 20) -> Any:
    return pods.create_namespaced_pod("here", pod(name), _request_timeout=timeout)


def workload(expires_in: float) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + expires_in}).encode())
    return json.dumps({"token": f"head.{claims.decode().rstrip('=')}.signature"})


def test_a_name_exists_only_once(api, pods):
    create(pods, "one")

    with pytest.raises(client.ApiException) as refused:
        create(pods, "one")

    assert refused.value.status == 409
    assert json.loads(refused.value.body)["reason"] == "AlreadyExists"
    assert [seen.status for seen in api.requests] == [201, 409]


def test_a_pod_whose_token_has_expired_is_refused(pods):
    pods.create_namespaced_pod("here", pod("young", argument=workload(+60)))

    with pytest.raises(client.ApiException, match="expired"):
        pods.create_namespaced_pod("here", pod("old", argument=workload(-60)))


def test_only_the_planted_token_opens(api, pods):
    settings = pods.api_client.configuration
    settings.refresh_api_key_hook = None
    settings.api_key = dict.fromkeys(settings.api_key, "Bearer other")

    with pytest.raises(client.ApiException) as refused:
        pods.list_namespaced_pod("here")

    assert refused.value.status == 401


@pytest.mark.parametrize(
    ("labels", "fields", "expected"),
    [
        ("a=1", "", ["p", "q"]),
        ("a=1,b!=2", "", ["p"]),
        ("c", "", ["r"]),
        ("!c", "", ["p", "q"]),
        ("a in (1, 3),b notin (2)", "", ["p"]),
        ("d!=x", "", ["p", "q", "r"]),
        ("", "status.phase=Succeeded", ["q"]),
        ("", "status.phase!=Succeeded,metadata.name!=p", ["r"]),
    ],
)
def test_selectors_mean_what_they_mean(api, pods, labels, fields, expected):
    for name, with_labels in {"p": {"a": "1"}, "q": {"a": "1", "b": "2"}, "r": {"c": ""}}.items():
        pods.create_namespaced_pod("here", pod(name, with_labels))
    api.set_phase(api.pods.get("here", "q"), "Succeeded")

    found = pods.list_namespaced_pod("here", label_selector=labels, field_selector=fields)

    assert names(found) == expected
    assert names(pods.list_namespaced_pod("elsewhere")) == []


def test_the_dynamic_client_lists_metadata(pods, tmp_path):
    from kubernetes.dynamic import DynamicClient

    create(pods, "one")
    dynamic = DynamicClient(pods.api_client, cache_file=str(tmp_path / "discovery.json"))
    resource = dynamic.resources.get(api_version="v1", kind="Pod")

    (found,) = dynamic.get(resource=resource, namespace="here", header_params=METADATA).items

    assert found.kind == "PartialObjectMetadata"
    assert found.metadata.name == "one"
    assert found.spec is None


def test_a_watch_sees_a_pod_come_change_and_go(api, pods):
    from kubernetes import watch

    create(pods, "one")
    pods.patch_namespaced_pod("one", "here", {"metadata": {"labels": {"new": "1"}}})
    api.set_phase(api.pods.get("here", "one"), "Succeeded")
    pods.delete_namespaced_pod("one", "here")
    stream = watch.Watch().stream(
        pods.list_namespaced_pod, "here", resource_version="1000", timeout_seconds=1
    )
    events = [(event["type"], event["object"]) for event in stream]

    assert [word for word, _ in events] == ["ADDED", "MODIFIED", "MODIFIED", "MODIFIED", "DELETED"]
    assert events[1][1].metadata.labels == {"new": "1"}
    assert events[2][1].status.phase == "Succeeded"
    assert events[4][1].metadata.deletion_timestamp is not None


def test_a_pod_that_leaves_the_selector_is_deleted_for_that_watch(api, pods):
    from kubernetes import watch

    pods.create_namespaced_pod("here", pod("one", {"owner": "1"}))
    pods.patch_namespaced_pod("one", "here", {"metadata": {"labels": {"owner": "2"}}})
    events = watch.Watch().stream(
        pods.list_namespaced_pod,
        "here",
        label_selector="owner=1",
        resource_version="1000",
        timeout_seconds=1,
    )

    assert [event["type"] for event in events] == ["ADDED", "DELETED"]
    assert api.pods.get("here", "one")["metadata"]["labels"] == {"owner": "2"}


@pytest.mark.parametrize(
    ("fault", "applied"),
    [
        (Fault.ACCEPT, False),
        (Fault.HANDSHAKE, False),
        (Fault.REQUEST, False),
        (Fault.APPLIED, True),
        (Fault.HALF, True),
    ],
)
def test_silence_lasts_until_it_is_cleared(api, pods, fault, applied):
    pods.list_namespaced_pod("here")  # leaves a connection open, which the silence has to reach
    trap = api.set_fault(fault)

    with pytest.raises(urllib3.exceptions.HTTPError, match="timed out"):
        create(pods, "one", SOON)
    trap.wait()

    assert bool(api.created()) is applied
    api.clear()
    assert names(pods.list_namespaced_pod("here")) == (["one"] if applied else [])


def test_a_late_request_is_applied_when_the_silence_ends(api, pods):
    pods.list_namespaced_pod("here")  # the connection is open: it is the answer that does not come
    trap = api.set_fault(Fault.LATE, on="create")

    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        create(pods, "one", SOON)
    trap.wait()

    assert api.created() == []
    api.clear()
    api.wait_for_pods(1)


@pytest.mark.parametrize("fault", [Fault.SLOW, Fault.TRICKLE])
def test_a_late_answer_is_complete(api, pods, fault):
    api.set_fault(fault, on="create", seconds=0.001 if fault is Fault.TRICKLE else 0.1)

    assert create(pods, "one").metadata.name == "one"


def test_too_many_says_when_to_come_back(api, pods):
    api.set_fault(Fault.TOO_MANY, on="create", seconds=7)

    with pytest.raises(client.ApiException) as refused:
        create(pods, "one")

    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "7")


def test_a_refusal_is_in_the_words_of_the_test(api, pods):
    api.set_fault(Fault.STATUS, on="create", times=1, status=403, message="exceeded quota")

    with pytest.raises(client.ApiException, match="exceeded quota") as refused:
        create(pods, "one")

    assert refused.value.status == 403
    assert not api.created()


def test_a_list_that_is_cut_off_is_no_answer(api, pods):
    create(pods, "one")
    api.set_fault(Fault.CUT, on="list")
    streamed = pods.list_namespaced_pod("here", _preload_content=False)

    assert streamed.status == 200
    with pytest.raises(urllib3.exceptions.ProtocolError):
        streamed.read()


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.CLOSE])
@pytest.mark.parametrize("applied", [False, True])
def test_a_broken_connection_may_have_done_its_work(api, pods, fault, applied):
    api.set_fault(fault, on="create", applied=applied)

    with pytest.raises(urllib3.exceptions.ProtocolError):
        create(pods, "one")

    assert bool(api.created()) is applied


def test_a_fault_meets_only_what_it_was_set_for(api, pods):
    api.set_fault(Fault.TOO_MANY, on="delete", times=1)
    api.set_fault(Fault.TOO_MANY, on="list", namespace="elsewhere")
    create(pods, "one")
    pods.list_namespaced_pod("here")

    with pytest.raises(client.ApiException):
        pods.list_namespaced_pod("elsewhere")
    with pytest.raises(client.ApiException):
        pods.delete_namespaced_pod("one", "here")
    pods.delete_namespaced_pod("one", "here")

    assert [seen.status for seen in api.requests] == [201, 200, 429, 429, 200]


def test_pods_are_counted_by_the_try_they_were_for(api, pods):
    notes = {"dag_id": "d", "task_id": "t", "run_id": "r", "try_number": "1"}
    for name in ("one", "two"):
        body = pod(name)
        body["metadata"]["annotations"] = notes
        pods.create_namespaced_pod("here", body)
        pods.delete_namespaced_pod(name, "here")

    assert api.per_try() == {("d", "t", "r", "1", "-1"): 2}


def test_the_asynchronous_client_creates_pods(api):
    asynchronous = pytest.importorskip("kubernetes_asyncio", reason="needs kubernetes_asyncio")

    async def create_two() -> None:
        settings = asynchronous.client.Configuration()
        await asynchronous.config.load_kube_config(
            str(api.kubeconfig), client_configuration=settings
        )
        async with asynchronous.client.ApiClient(settings) as api_client:
            core = asynchronous.client.CoreV1Api(api_client)
            calls = (core.create_namespaced_pod("here", pod(name)) for name in ("one", "two"))
            await asyncio.gather(*calls)

    asyncio.run(create_two())

    assert len(api.created()) == 2

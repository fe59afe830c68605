"""Calls of the Kubernetes client, of the executor itself and by hand, against an API that fails in every way."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.victims.peers import Remote
from tests.victims.stage import HEARTBEAT, QUICK, Stage, case
from watchdog_hook.watchdog import Watchdog


class Far:
    """The API in its process, as tests/e2e/in_process.py wants it."""

    def __init__(self, remote: Remote) -> None:
        self.kubeconfig = remote.info["kubeconfig"]

    def clear(self) -> None:
        """Nothing: the process ends with the dump."""


@contextlib.contextmanager
def executor(stage: Stage, api: Remote, **settings: object) -> Iterator[Any]:
    """Give a real KubernetesExecutor of the installed provider, which this process saves at its first dump."""
    import pytest

    from tests.e2e.in_process import Bench

    stage.save_dump()
    given = {
        **{f"watchdog_hook.{name}": value for name, value in QUICK.items()},
        # As in a scheduler: the calls are guarded, and none of them gets old enough here.
        "watchdog_hook.interrupt": "api_calls",
        "watchdog_hook.interrupt_after": 60,
        "kubernetes_executor.api_client_retry_configuration": json.dumps({"total": 2}),
    }
    patch = pytest.MonkeyPatch()
    yield Bench(Far(api), stage.folder, patch, {**given, **settings})  # type: ignore[arg-type]
    raise AssertionError("this case came back before it was dumped")


@contextlib.contextmanager
def api(stage: Stage, remote: Remote, **settings: object) -> Iterator[Any]:
    """Give a client of the API, its calls in the book, while this thread is watched."""
    with stage.watched(HEARTBEAT, **settings) as dog:
        core = client(remote, dog)
        dog.beat()  # all is imported
        yield core


def client(remote: Remote, dog: Watchdog, retries: object = None) -> Any:
    """Return a client as an executor has it: its calls in the book, one connection, no time limit."""
    from kubernetes import client, config
    from kubernetes.client.rest import RESTClientObject

    from watchdog_hook.integrations.kubernetes import ApiCalls
    from watchdog_hook.integrations.patch import Patches

    settings = client.Configuration()
    settings.retries = retries
    config.load_kube_config(remote.info["kubeconfig"], client_configuration=settings)
    Patches(dog.fail).wrap(RESTClientObject, "request", ApiCalls(dog).request)
    return client.CoreV1Api(client.ApiClient(settings))


def pods(core: Any) -> Any:
    """List pods, as adoption does."""
    return core.list_namespaced_pod("here")


def create(core: Any, size: int = 0) -> Any:
    """Create a pod, of about so many bytes."""
    body = {"metadata": {"name": "a", "annotations": {"large": "x" * size}}}
    return core.create_namespaced_pod("here", body)


@case("kubernetes-api-silent")
def silent(stage: Stage) -> None:
    remote = stage.peer("kube")
    with executor(stage, remote) as bench:
        remote.do("fault", "REQUEST", "create")
        bench.queue("t")
        bench.turn()


@case("kubernetes-api-silent--reused-connection")
def silent_later(stage: Stage) -> None:
    remote = stage.peer("kube")
    with api(stage, remote, dump_after=3) as core:
        pods(core)
        remote.do("fault", "REQUEST", "list")
        pods(core)


@case("kubernetes-api-silent--retried")
def silent_again(stage: Stage) -> None:
    remote = stage.peer("kube")
    remote.do("fault", "CLOSE", "list", {"times": 2})
    remote.do("fault", "REQUEST", "list")
    with api(stage, remote) as core:
        pods(core)


@case("kubernetes-half-answer")
def half(stage: Stage) -> None:
    remote = stage.peer("kube")
    for number in range(20):
        remote.do("orphan", f"t{number}")
    remote.do("fault", "HALF", "list")
    with api(stage, remote) as core:
        pods(core)


@case("kubernetes-trickle")
def trickle(stage: Stage) -> None:
    remote = stage.peer("kube")
    for number in range(20):
        remote.do("orphan", f"t{number}")
    # Slower than the samples, or it would be seen to move.
    remote.do("fault", "TRICKLE", "list", {"seconds": 0.05})
    with api(stage, remote, dump_after=6) as core:
        pods(core)


@case("kubernetes-connect")
def connect(stage: Stage) -> None:
    remote = stage.peer("kube")
    remote.do("lose")
    with api(stage, remote, dump_after=4) as core:
        pods(core)


@case("kubernetes-tls-handshake")
def handshake(stage: Stage) -> None:
    remote = stage.peer("kube")
    remote.do("fault", "ACCEPT", "any")
    with api(stage, remote) as core:
        pods(core)


@case("kubernetes-send")
def send(stage: Stage) -> None:
    remote = stage.peer("kube")
    remote.do("fault", "HANDSHAKE", "any")
    with api(stage, remote) as core:
        create(core, 20_000_000)


@case("kubernetes-unreachable")
def unreachable(stage: Stage) -> None:
    remote = stage.peer("kube")
    with executor(stage, remote, **{"watchdog_hook.dump_after": 4}) as bench:
        remote.do("lose")
        bench.queue("t")
        bench.turn()


@case("kubernetes-unreachable--handshake")
def unreachable_in_handshake(stage: Stage) -> None:
    """The machine goes away between the connection and the first flight of TLS."""
    remote = stage.peer("kube")
    remote.do("fault", "ACCEPT", "any")
    with api(stage, remote, dump_after=4) as core:
        import ssl

        handshake = ssl.SSLSocket.do_handshake

        def lost(self: ssl.SSLSocket, *args: Any) -> None:
            remote.do("lose")
            handshake(self, *args)

        ssl.SSLSocket.do_handshake = lost  # type: ignore[method-assign]
        pods(core)


@case("throttled")
def throttled(stage: Stage) -> None:
    remote = stage.peer("kube")
    remote.do("fault", "TOO_MANY", "list", {"seconds": 30})
    with api(stage, remote) as core:
        pods(core)


@case("throttled--backoff")
def backs_off(stage: Stage) -> None:
    import urllib3

    remote = stage.peer("kube")
    remote.do("fault", "CLOSE", "list")
    with stage.watched(HEARTBEAT) as dog:
        retries = urllib3.Retry(total=8, backoff_factor=4)
        pods(client(remote, dog, retries))


@case("watch")
def watch(stage: Stage) -> None:
    from kubernetes.watch import Watch

    remote = stage.peer("kube")
    with api(stage, remote) as core:
        for _ in Watch().stream(core.list_namespaced_pod, "here"):
            pass


@case("slow")
def slow(stage: Stage) -> None:
    """Many calls, each of which is answered: apache/airflow#34877."""
    remote = stage.peer("kube")
    remote.do("fault", "SLOW", "get", {"seconds": 0.15})
    remote.do("orphan", "t")
    with api(stage, remote, dump_after=0.6) as core:
        while True:
            core.read_namespaced_pod("pod-t", "here")


@case("no-progress")
def no_progress(stage: Stage) -> None:
    from watchdog_hook import watchdog
    from watchdog_hook.core import progress

    progress.NO_PROGRESS_AFTER = 3.0
    watchdog.METRICS_EVERY = 0.2
    remote = stage.peer("kube")
    retries = {"kubernetes_executor.task_publish_max_retries": -1}
    with executor(stage, remote, **retries) as bench:
        remote.do("fault", "STATUS", "create", {"status": 403, "message": "exceeded quota: pods"})
        bench.queue("a", "b", "c")
        while True:
            bench.turn()
            threading.Event().wait(0.05)


@contextlib.contextmanager
def watched_pods(stage: Stage, **settings: object) -> Iterator[tuple[Any, Any, Remote]]:
    """Give an executor whose pods a real watcher watches, with a read timeout of 4 s; and that watcher."""
    from watchdog_hook import watchdog
    from watchdog_hook.core import progress

    progress.NO_PROGRESS_AFTER = 15.0
    watchdog.METRICS_EVERY = 0.2
    remote = stage.peer("kube")
    limited = {"kubernetes_executor.kube_client_request_args": json.dumps({"_request_timeout": 4})}
    with executor(stage, remote, **{**limited, **settings}) as bench:
        scheduler = bench.executor.kube_scheduler
        scheduler.kube_watchers["here"] = watcher = scheduler._make_kube_watcher("here")
        yield bench, watcher, remote


def turn_on(bench: Any) -> None:
    """Turn the loop, for ever."""
    while True:
        bench.turn()
        threading.Event().wait(0.05)


@case("watcher-silent")
def watcher_silent(stage: Stage) -> None:
    """Three pods run, and who would tell of their end does not: apache/airflow#12644."""
    with watched_pods(stage) as (bench, watcher, _):
        bench.queue("a", "b", "c")
        bench.turn(2)
        os.kill(watcher.pid, signal.SIGSTOP)
        turn_on(bench)


# --- near misses ------------------------------------------------------------------------------------------


@case("not-watcher-silent--idle")
def watcher_idle(stage: Stage) -> None:
    """Nothing comes of it, and the watcher has heard nothing either; but it begins its read anew each time."""
    import time

    from watchdog_hook.core import progress

    retries = {"kubernetes_executor.task_publish_max_retries": -1}
    with watched_pods(stage, **retries) as (bench, _, remote):
        end = time.monotonic() + 13  # more than three read timeouts
        while time.monotonic() < end:
            bench.turn()
            time.sleep(0.05)
        progress.NO_PROGRESS_AFTER = 3.0
        remote.do("fault", "STATUS", "create", {"status": 403, "message": "exceeded quota: pods"})
        bench.queue("a", "b", "c")
        turn_on(bench)


@case("not-watcher-silent--loop-stands")
def watcher_and_loop_silent(stage: Stage) -> None:
    """The watcher is silent for long, but what holds up the loop is a call."""
    with watched_pods(stage, **{"watchdog_hook.dump_after": 14}) as (bench, watcher, remote):
        remote.do("fault", "REQUEST", "create")
        os.kill(watcher.pid, signal.SIGSTOP)
        bench.executor.kube_config.kube_client_request_args = {}
        bench.queue("a", "b", "c")
        bench.turn()


@case("not-no-progress--silent")
def waits_silently(stage: Stage) -> None:
    """Tasks wait and there is room for them; but the loop does not turn."""
    remote = stage.peer("kube")
    with executor(stage, remote) as bench:
        remote.do("fault", "REQUEST", "create")
        bench.queue("a", "b", "c")
        bench.turn()


@case("not-throttled--own-pause")
def pauses(stage: Stage) -> None:
    """It sleeps between two calls, by itself."""
    import time

    remote = stage.peer("kube")
    with api(stage, remote) as core:
        pods(core)
        time.sleep(3600)


@case("not-kubernetes-unreachable--acknowledged")
@case("not-kubernetes-send--sent")
def acknowledged(stage: Stage) -> None:
    """A large request has been taken to its last byte; then nothing comes."""
    remote = stage.peer("kube")
    remote.do("fault", "REQUEST", "create")
    with api(stage, remote, dump_after=4) as core:
        create(core, 20_000_000)


@case("not-kubernetes-connect--accepted")
def accepted(stage: Stage) -> None:
    """It is connected, and TLS does not get on."""
    handshake(stage)


@case("not-kubernetes-tls-handshake--done")
def shaken(stage: Stage) -> None:
    """TLS is set up; the request lies in a buffer that nobody reads."""
    remote = stage.peer("kube")
    remote.do("fault", "HANDSHAKE", "any")
    with api(stage, remote) as core:
        pods(core)


@case("not-watch--between-events")
def between_events(stage: Stage) -> None:
    """An event came; the thread is busy with it for long."""
    import time

    from kubernetes.watch import Watch

    remote = stage.peer("kube")
    remote.do("orphan", "t")
    with api(stage, remote) as core:
        for _ in Watch().stream(core.list_namespaced_pod, "here"):
            time.sleep(3600)


@case("not-kubernetes-api-silent--slow-answers")
def slow_answers(stage: Stage) -> None:
    """Each call is answered, late and completely."""
    slow(stage)


@case("not-kubernetes-api-silent--half-an-answer")
@case("not-kubernetes-trickle--half-an-answer")
def half_for_long(stage: Stage) -> None:
    """The answer has begun, and no further byte has come for long."""
    remote = stage.peer("kube")
    for number in range(20):
        remote.do("orphan", f"t{number}")
    remote.do("fault", "HALF", "list")
    with api(stage, remote, dump_after=6) as core:
        pods(core)


@case("not-kubernetes-half-answer--read-to-its-end")
def answered(stage: Stage) -> None:
    """The whole answer has come; then the thread waits for something else."""
    remote = stage.peer("kube")
    with api(stage, remote) as core:
        pods(core)
        threading.Event().wait()


@case("not-foreign-code--of-airflow-itself")
def own_call(stage: Stage) -> None:
    """A list of the executor's own, with the user's program above it."""
    remote = stage.peer("kube")
    with executor(stage, remote) as bench:
        remote.do("fault", "REQUEST", "delete")
        bench.executor.kube_scheduler.delete_pod("a", "here")


def local_settings(url: str) -> str:
    """Return an airflow_local_settings.py whose hook asks somebody."""
    return f"""\
import requests


def owner_of(team):
    return requests.get("{url}/teams/" + team).json()["owner"]


def pod_mutation_hook(pod):
    pod.metadata.labels["owner"] = owner_of("data")
"""


@case("foreign-code")
def foreign(stage: Stage) -> None:
    remote = stage.peer("kube")
    asked = stage.peer("tcp", part="mute")
    home = Path(stage.folder, "airflow", "config")
    home.mkdir(parents=True)
    url = f"http://{asked.info['host']}:{asked.info['port']}"
    (home / "airflow_local_settings.py").write_text(local_settings(url), encoding="utf-8")
    with executor(stage, remote) as bench:
        bench.queue("t")
        bench.turn()

"""What the watched loop pays itself: a beat, and the book around a call."""

from __future__ import annotations

import contextlib
import gc
import itertools
import statistics
import subprocess
import sys
import time
import timeit
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Line, NotMeasured, interleaved, median_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.bench import Effort

CHECKOUT = Path(__file__).resolve().parents[1]
UNROLLED = 10  # calls in one turn of the loop, so that the loop itself does not count
BEST_OF = 5


class Plain:
    """Nothing, with a method."""

    def empty(self, phase: str | None = None) -> None:
        """Do nothing."""

    def _do_scheduling(self) -> None:
        """Stand in for the scheduler's own."""


def per_call(statement: str, number: int, **names: Any) -> Callable[[], float]:
    """Return what measures nanoseconds per statement: the best of several short runs."""
    # With the collector on, as it is in a scheduler: what is allocated may cost a collection.
    timer = timeit.Timer(";".join([statement] * UNROLLED), gc.enable, globals=names)
    turns = max(1, number // UNROLLED)

    def measure() -> float:
        return min(timer.repeat(BEST_OF, turns)) / (turns * UNROLLED) * 1e9

    return measure


def measure_beat(effort: Effort) -> Iterator[Line]:
    """Compare a beat with an empty method, turn about."""
    from watchdog_hook import Watchdog

    dog, plain = Watchdog(), Plain()
    rounds, number = effort(41, 11), effort(50_000, 10_000)
    names = {"dog": dog, "plain": plain}
    for beat, empty in (
        ("dog.beat()", "plain.empty()"),
        ("dog.beat('scheduling')", "plain.empty('scheduling')"),
    ):
        pairs = interleaved(
            per_call(beat, number, **names), per_call(empty, number, **names), rounds
        )
        yield median_line(beat, [one for one, _ in pairs], "ns", 150)
        yield median_line(f"{beat} against {empty}", [one / other for one, other in pairs], "x", 5)
    with contextlib.suppress(ImportError):
        yield _beat_of_the_loop(dog, rounds, number // 10)


def _beat_of_the_loop(dog: Any, rounds: int, number: int) -> Line:
    from watchdog_hook.integrations.airflow.loop import Loop
    from watchdog_hook.integrations.patch import Patches

    wrapped, bare = type("Wrapped", (Plain,), dict(vars(Plain)))(), Plain()
    patches = Patches(dog.fail)
    Loop(dog, None).patch(patches, wrapped, [])
    one = per_call("runner._do_scheduling()", number, runner=wrapped)
    other = per_call("runner._do_scheduling()", number, runner=bare)
    added = [(first - second) / 1000 for first, second in interleaved(one, other, rounds)]
    patches.remove()
    return median_line("added to _do_scheduling, with wrapper and phase", added, "µs")


def measure_book(effort: Effort) -> Iterator[Line]:
    """Measure everything that stands around one call, then hold it against a real one."""
    try:
        from watchdog_hook.integrations.kubernetes import ApiCalls
    except ImportError as missing:
        raise NotMeasured(f"{missing.name} is not installed here") from None
    from watchdog_hook import Watchdog
    from watchdog_hook.core.model import Call
    from watchdog_hook.integrations.patch import Patches

    class Rest:
        """Answers at once, with the signature of the client's own."""

        answer = SimpleNamespace(status=201)

        def request(
            self,
            method: str,
            url: str,
            query_params: Any = None,
            headers: Any = None,
            body: Any = None,
            post_params: Any = None,
            _preload_content: bool = True,
            _request_timeout: Any = None,
        ) -> Any:
            """Return a response."""
            return self.answer

    dog = Watchdog()
    wrapped, bare = Rest(), type("Bare", (), {"request": Rest.request, "answer": Rest.answer})()
    patches, calls = Patches(dog.fail), ApiCalls(dog)
    patches.wrap(Rest, "request", calls.request)
    url = "https://127.0.0.1:6443/api/v1/namespaces/here/pods"
    calls.own(SimpleNamespace(rest_client=wrapped, configuration=SimpleNamespace(host=url)))
    calls.depth = 1  # as inside a boundary: a guarded call takes the longest way
    rounds, number = effort(31, 11), effort(5_000, 1_000)
    statement = (
        "rest.request('POST', url, query_params=[], headers={}, post_params={}, body=body,"
        " _preload_content=True, _request_timeout=None)"
    )
    names = {"url": url, "body": {}}
    pairs = interleaved(
        per_call(statement, number, rest=wrapped, **names),
        per_call(statement, number, rest=bare, **names),
        rounds,
    )
    patches.remove()
    cost = [(one - other) / 1000 for one, other in pairs]
    yield median_line("added to one guarded call, with wrapper and description", cost, "µs", 20)
    alone = per_call("dog.leave(dog.enter(call), '201')", number, dog=dog, call=Call("POST /"))
    yield median_line(
        "of it Watchdog.enter and leave", [alone() / 1000 for _ in range(rounds)], "µs"
    )
    yield from _share(effort, statistics.median(cost))


def _share(effort: Effort, cost: float) -> Iterator[Line]:
    """Hold the cost of one call against `create_namespaced_pod` on the API server of the tests."""
    what = "share of create_namespaced_pod on the tests' API server"
    try:
        from kubernetes import client, config
        from kubernetes.client.rest import RESTClientObject
    except ImportError:
        yield Line(what, note="not measured: kubernetes is not installed here")
        return
    from watchdog_hook import Watchdog
    from watchdog_hook.integrations.kubernetes import ApiCalls
    from watchdog_hook.integrations.patch import Patches

    with api_server() as kubeconfig:
        api_client = config.new_client_from_config(kubeconfig)
        core, numbers = client.CoreV1Api(api_client), itertools.count()
        dog = Watchdog()
        calls = ApiCalls(dog)
        calls.own(api_client)
        calls.depth = 1
        each = effort(20, 10)

        def create() -> float:
            """Return microseconds per creation."""
            took = []
            for _ in range(each):
                body = pod(f"pod-{next(numbers)}")
                began = time.perf_counter_ns()
                core.create_namespaced_pod("here", body)
                took.append((time.perf_counter_ns() - began) / 1000)
            return statistics.median(took)

        def create_with_hook() -> float:
            patches = Patches(dog.fail)
            patches.wrap(RESTClientObject, "request", calls.request)
            try:
                return create()
            finally:
                patches.remove()

        create()
        pairs = interleaved(create_with_hook, create, effort(31, 11))
        api_client.close()
    bare = [other for _, other in pairs]
    yield median_line(what, [100 * cost / other for other in bare], "%", 1)
    yield median_line(
        "create_namespaced_pod without the hook", [each / 1000 for each in bare], "ms"
    )
    ratios = [100 * (one / other - 1) for one, other in pairs]
    yield median_line("create_namespaced_pod with the hook: measured outright", ratios, "%")


@contextlib.contextmanager
def api_server(*arguments: str) -> Iterator[str]:
    """Serve the tests' Kubernetes API from a process of its own; give the path of its kubeconfig."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.kube_api", *arguments],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        if not said.startswith("export KUBECONFIG="):
            raise NotMeasured("the tests' API server needs trustme")
        yield said.split()[1].partition("=")[2]
    finally:
        process.terminate()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


def pod(name: str) -> dict[str, Any]:
    """Return a pod about as large as the KubernetesExecutor's."""
    variables = [{"name": f"AIRFLOW__SECTION__OPTION_{n}", "value": "some value"} for n in range(8)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "here",
            "labels": {"dag_id": "dag", "task_id": "task", "try_number": "1", "run_id": "run"},
            "annotations": {"dag_id": "dag", "task_id": "task", "try_number": "1"},
        },
        "spec": {
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "base",
                    "image": "nowhere.invalid/worker:none",
                    "args": ["airflow", "tasks", "run", "dag", "task", "run"],
                    "env": variables,
                }
            ],
        },
    }

"""The flight recorder beside a real loop, real calls and real files."""

from __future__ import annotations

import gzip
import json
import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

from watchdog_hook import Config, Watchdog
from watchdog_hook.actions.record import Recorder
from watchdog_hook.core import report
from watchdog_hook.core.model import (
    CallRecord,
    Finding,
    Frame,
    Incident,
    Sample,
    Snapshot,
    ThreadStack,
)
from watchdog_hook.core.observed import Iteration, Observed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WALL = 1_795_391_631.0


def turn_of_the_loop(dog: Watchdog, until: threading.Event) -> None:
    dog.turn("loop")
    with dog.phase("scheduling"):
        until.wait(0.001)
    with dog.phase("heartbeat"):
        until.wait(0.001)


def get_stuck(until: Any) -> None:
    while not until():
        threading.Event().wait(0.01)


def stuck_in_here(folder: Path) -> list[Path]:
    """Return the incidents of that phase; a busy machine may have made the loop late before."""
    return [
        path.parent
        for path in folder.glob("*/incident.json")
        if (path.parent / "speedscope.json").exists()
        and json.loads(path.read_text())["phase"] == "stuck in here"
    ]


def test_an_incident_tells_of_the_turns_before_it_and_of_healthy_days(tmp_path):
    config = Config(
        poll_interval=0.02,
        sample_after=0.2,
        dump_after=0.4,
        startup_grace=0,
        interrupt="off",
        incident_dir=str(tmp_path),
    )
    with Watchdog(config) as dog:
        while not any(
            frame.function == "turn_of_the_loop"
            for stack, _ in dog.recorder.normal(threading.get_ident())
            for frame in stack
        ):
            turn_of_the_loop(dog, threading.Event())
        dog.turn("loop")
        with dog.phase("heartbeat"), dog.phase("stuck in here"):
            get_stuck(lambda: stuck_in_here(tmp_path))
    (folder,) = stuck_in_here(tmp_path)
    found = json.loads((folder / "incident.json").read_text())
    observed, text = found["observed"], (folder / "dump.txt").read_text()

    *ended, now = observed["iterations"]
    assert ended
    assert all(
        [name for name, _, _ in each["phases"]] == ["scheduling", "heartbeat"] for each in ended
    )
    assert now["duration_s"] is None
    assert [name for name, _, _ in now["phases"]] == ["heartbeat", "stuck in here"]
    assert observed["normal"]
    assert " New since the healthy picture: get_stuck (" in text
    assert "  + get_stuck (" in text
    assert "    test_an_incident_tells" in text
    stall, normal = json.loads((folder / "speedscope.json").read_text())["profiles"]
    assert len(stall["samples"]) == len(found["samples"])
    assert len(normal["samples"]) == len(observed["normal"])


def test_the_flame_graphs_file_is_among_those_that_show_names(tmp_path, capsys):
    from watchdog_hook.cli import main

    one = big_incident()
    assert Recorder(tmp_path, host="here").write(one, "the dump")

    assert main(["show", "latest", "--incident-dir", str(tmp_path)]) == 0
    assert "faulthandler.txt, speedscope.json" in capsys.readouterr().out


class TestBytesOfAnswers:
    """Against the tests' Kubernetes API, through the real client."""

    @pytest.fixture
    def client(self) -> Any:
        return pytest.importorskip("kubernetes.client", reason="needs the kubernetes client")

    @pytest.fixture
    def dog(self) -> Watchdog:
        return Watchdog()

    @pytest.fixture
    def pods(self, client: Any, dog: Watchdog) -> Iterator[Any]:
        from kubernetes import config
        from kubernetes.client.rest import RESTClientObject

        from tests.fakes.kube_api import KubeApi
        from watchdog_hook.integrations.kubernetes import ApiCalls
        from watchdog_hook.integrations.patch import Patches

        patches = Patches(dog.fail)
        patches.wrap(RESTClientObject, "request", ApiCalls(dog).request)
        settings = client.Configuration()
        with KubeApi() as api:
            config.load_kube_config(str(api.kubeconfig), client_configuration=settings)
            with client.ApiClient(settings) as api_client:
                yield client.CoreV1Api(api_client)
        patches.remove()

    def last(self, dog: Watchdog) -> CallRecord:
        return dog.book.records()[1][-1]

    def test_of_an_answer_that_was_read_they_are_its_length(self, dog, pods):
        answer = pods.list_namespaced_pod("here", _preload_content=False)
        body = answer.read()
        pods.list_namespaced_pod("here")

        assert (self.last(dog).answer, self.last(dog).bytes) == ("200", len(body))

    def test_of_one_that_is_read_later_they_are_what_its_head_says(self, dog, pods):
        answer = pods.list_namespaced_pod("here", _preload_content=False)
        (flight,) = dog.book.in_flight()
        known = flight.bytes
        assert known

        assert len(answer.read()) == known == self.last(dog).bytes

    def test_of_a_refusal_they_are_known_too(self, client, dog, pods):
        with pytest.raises(client.ApiException) as refused:
            pods.read_namespaced_pod("none", "here")

        assert (self.last(dog).answer, self.last(dog).bytes) == ("404", len(refused.value.body))

    def test_of_a_stream_without_a_length_they_are_not_known(self, dog, pods):
        answer = pods.list_namespaced_pod(
            "here", watch=True, timeout_seconds=1, _preload_content=False
        )
        answer.close()

        assert (self.last(dog).answer, self.last(dog).bytes) == ("200", None)
        assert dog.fail.off == set()


def big_incident() -> Incident:
    """Return about the biggest there is: a thousand threads, every list at its bound."""
    chance = random.Random(1)
    places = [
        Frame(f"Class{n % 90}.method_{n}", f"/opt/airflow/lib/package_{n % 200}/module.py", n)
        for n in range(3000)
    ]

    def stack() -> tuple[Frame, ...]:
        return tuple(chance.sample(places, 40))

    phases = tuple((f"phase {n}", n / 10, chance.random()) for n in range(12))
    calls = tuple(
        CallRecord(
            f"GET /api/v1/namespaces/{{namespace}}/pods/{n}",
            "10.0.0.1:443",
            "MainThread",
            chance.random() * 999,
            chance.random(),
            "200",
            bytes=chance.randrange(99_999),
        )
        for n in range(200)
    )
    snapshot = Snapshot(
        threads=tuple(ThreadStack(n, f"pool-{n}", stack(), n) for n in range(1000)),
        samples=tuple(Sample(15.0 + n, stack()) for n in range(240)),
        recent=calls,
        observed=Observed(
            iterations=tuple(Iteration(99.0 - n, chance.random(), phases) for n in range(50)),
            normal=tuple((stack(), n + 1) for n in range(200)),
        ),
    )
    return Incident(
        id="20261122T235351Z-here-1-1",
        host="here",
        pid=1,
        began=WALL,
        first_dump=WALL,
        silence_s=255.0,
        phase="a phase",
        finding=Finding("unknown", "low", "It waits."),
        snapshot=snapshot,
    )


def test_the_files_of_a_big_incident_are_less_than_a_mebibyte_compressed(tmp_path: Path):
    big = big_incident()
    folder = Recorder(tmp_path, host="here").write(big, report.render(big, limit=None))
    assert folder is not None
    sizes = {
        name: len(gzip.compress((folder / name).read_bytes()))
        for name in ("dump.txt", "incident.json", "speedscope.json")
    }

    assert sum(sizes.values()) < 1 << 20, sizes


def test_no_piece_of_a_big_incidents_json_holds_up_others_for_long():
    """One json.dumps is C from end to end: a piece is one thread, one sample, one stack."""
    pieces = list(report.json_chunks(report.to_json(big_incident())))

    assert max(map(len, pieces)) < 8192

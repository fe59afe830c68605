"""Evidence against real threads, sockets and the real Kubernetes client."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from watchdog_hook.core.diagnosis import diagnose
from watchdog_hook.core.model import CallRecord, Peer, Snapshot, ThreadReading
from watchdog_hook.evidence import kernel, process, sockets
from watchdog_hook.evidence.here import Evidence
from watchdog_hook.evidence.process import Pressure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.linux
evidence = Evidence()


def stuck(ident: int | None, until: Callable[[ThreadReading], bool]) -> ThreadReading:
    """Look until the thread stands where it should. It was seen to get there, so it will."""
    while True:
        reading = evidence.thread(ident or 0)
        if reading is not None and until(reading):
            return reading


def run(target: Callable[[], object]) -> threading.Thread:
    def quietly() -> None:
        with contextlib.suppress(Exception):
            target()

    thread = threading.Thread(target=quietly, daemon=True)
    thread.start()
    return thread


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection whose both ends are here."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        ours.settimeout(None)
        theirs, _ = server.accept()
    yield ours, theirs
    for end in (theirs, ours):
        end.close()


class TestPlainSockets:
    def test_a_bare_recv_is_found_by_its_system_call(self, pair):
        ours, theirs = pair
        thread = run(lambda: ours.recv(1))
        reading = stuck(thread.ident, lambda reading: reading.in_socket)

        assert reading.descriptor == ours.fileno()
        assert reading.peer == Peer(*theirs.getsockname())
        assert reading.received_ago_s is None  # nothing ever came
        assert not reading.in_library
        theirs.close()
        thread.join(20)

    def test_a_recv_with_a_timeout_polls_and_is_found_too(self, pair):
        ours, theirs = pair
        ours.settimeout(60)
        thread = run(lambda: ours.recv(1))

        assert stuck(thread.ident, lambda reading: reading.in_socket).descriptor == ours.fileno()
        theirs.close()
        thread.join(20)

    def test_a_file_object_is_found_by_its_frame(self, pair, monkeypatch):
        monkeypatch.setattr(kernel, "descriptor_waited_for", lambda *_: None)
        ours, theirs = pair
        thread = run(lambda: ours.makefile("rb").readline())

        assert stuck(thread.ident, lambda reading: reading.in_socket).descriptor == ours.fileno()
        theirs.close()
        thread.join(20)

    def test_a_thread_that_stands_still_reads_the_same(self, pair):
        ours, theirs = pair
        thread = run(lambda: ours.recv(1))
        first = stuck(thread.ident, lambda reading: reading.in_socket)
        again = evidence.thread(thread.ident)

        assert (first.position, first.stack) == (again.position, again.stack)
        assert first.switches == again.switches
        theirs.close()
        thread.join(20)

    def test_a_thread_that_wakes_up_is_seen_to(self):
        turns = [threading.Semaphore(0), threading.Semaphore(0)]
        done = threading.Event()

        def play() -> None:
            while not done.is_set():
                turns[0].acquire()
                turns[1].release()

        thread = run(play)
        before = evidence.thread(thread.ident).switches
        while evidence.thread(thread.ident).switches == before:
            turns[0].release()
            turns[1].acquire()
        done.set()
        turns[0].release()

    def test_waiting_for_a_lock_is_no_socket(self):
        free = threading.Event()
        thread = run(free.wait)
        reading = stuck(thread.ident, lambda reading: reading.leaf.function.endswith("wait"))

        assert not reading.in_socket
        assert reading.descriptor is None
        free.set()

    def test_a_datagram_socket_is_no_calls_socket(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            thread = run(lambda: sock.recv(1))
            stuck(thread.ident, lambda reading: _syscall(thread) not in ("running", "?"))

            assert not evidence.thread(thread.ident).in_socket
            sock.sendto(b"x", sock.getsockname())
            thread.join(20)

    def test_an_event_loop_is_no_calls_socket(self):
        import asyncio

        loop = asyncio.new_event_loop()
        thread = run(loop.run_forever)
        reading = stuck(thread.ident, lambda reading: reading.leaf.function.endswith("select"))

        assert not reading.in_socket
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()

    def test_a_pipe_is_no_socket(self):
        read, write = os.pipe()
        thread = run(lambda: os.read(read, 1))
        stuck(thread.ident, lambda reading: _syscall(thread) not in ("running", "?"))

        assert not evidence.thread(thread.ident).in_socket
        os.close(write)
        thread.join(20)
        os.close(read)


def _syscall(thread: threading.Thread) -> str:
    try:
        with open(f"/proc/self/task/{thread.native_id}/syscall") as file:
            return file.read().split()[0]
    except OSError:
        return "?"


class TestSockets:
    def test_the_original_stays_blocking_beside_a_default_timeout(self, pair):
        ours, theirs = pair
        socket.setdefaulttimeout(5)
        try:
            assert sockets.peer_of(ours.fileno()) == Peer(*theirs.getsockname())
            assert sockets.received_ago(ours.fileno()) is None
            theirs.send(b"x")
            ours.recv(1)
            assert sockets.received_ago(ours.fileno()) is not None
        finally:
            socket.setdefaulttimeout(None)

        assert os.get_blocking(ours.fileno())

    def test_no_descriptor_is_left_open(self, pair):
        ours, _ = pair
        gc.collect()  # what others have left open
        before = {*os.listdir("/proc/self/fd")}
        for fd in (ours.fileno(), 0, -1, 10**6, 2**70):
            sockets.peer_of(fd)
            sockets.received_ago(fd)
            sockets.is_stream(fd)

        assert {*os.listdir("/proc/self/fd")} <= before

    def test_the_connection_survives_being_looked_at(self, pair):
        ours, theirs = pair
        sockets.received_ago(ours.fileno())
        theirs.sendall(b"x")

        assert ours.recv(1) == b"x"

    def test_an_ipv6_peer_is_readable(self):
        try:
            server = socket.create_server(("::1", 0), family=socket.AF_INET6)
        except OSError:
            pytest.skip("no IPv6 here")
        with server, socket.create_connection(server.getsockname()[:2]) as ours:
            assert str(sockets.peer_of(ours.fileno())) == f"[::1]:{server.getsockname()[1]}"

    def test_what_is_no_connection_has_no_peer(self):
        read, write = os.pipe()
        one, two = socket.socketpair()

        assert sockets.peer_of(read) is None
        assert sockets.peer_of(one.fileno()) is None
        assert sockets.received_ago(one.fileno()) is None
        assert sockets.is_stream(one.fileno())
        assert not sockets.is_stream(read)
        for end in (one, two):
            end.close()
        for fd in (read, write):
            os.close(fd)


class TestKubernetes:
    """The real client against the tests' API, one fault after the other."""

    @pytest.fixture
    def api(self) -> Iterator[Any]:
        pytest.importorskip("kubernetes.client", reason="needs the kubernetes client")
        from tests.fakes.kube_api import KubeApi

        with KubeApi() as api:
            yield api

    @pytest.fixture
    def pods(self, api: Any) -> Iterator[Any]:
        from kubernetes import client, config
        from urllib3.util import Retry

        settings = client.Configuration()
        config.load_kube_config(str(api.kubeconfig), client_configuration=settings)
        settings.retries = Retry(1)
        with client.ApiClient(settings) as api_client:
            yield client.CoreV1Api(api_client)
            api_client.rest_client.pool_manager.clear()

    @pytest.mark.parametrize(
        ("fault", "leaf", "cause"),
        [
            ("ACCEPT", "do_handshake", "kubernetes-tls-handshake"),
            ("REQUEST", "read", "kubernetes-api-silent"),
            ("APPLIED", "read", "kubernetes-api-silent"),
            ("HALF", "read", "kubernetes-half-answer"),
        ],
    )
    @pytest.mark.parametrize("timeout", [None, 60])
    def test_a_stuck_call_is_read_and_diagnosed(self, api, pods, fault, leaf, cause, timeout):
        from tests.fakes.kube_api import Fault

        trap = api.set_fault(Fault[fault])
        thread = run(lambda: pods.list_namespaced_pod("here", _request_timeout=timeout))
        trap.wait()
        begun = "_read_status" if cause == "kubernetes-api-silent" else leaf

        def settled(reading: ThreadReading) -> bool:
            names = [frame.function.rpartition(".")[2] for frame in evidence.frames(thread.ident)]
            half = fault != "HALF" or "_read_status" not in names
            waits = _syscall(thread) not in ("running",)
            return reading.in_socket and names[0] == leaf and begun in names and half and waits

        reading = stuck(thread.ident, settled)
        call = CallRecord("GET /api/v1/namespaces/{namespace}/pods", None, "x", 1.0)
        stacks = evidence.stacks(thread.ident)
        finding = diagnose(Snapshot(stacks), silence=1, call=call, reading=reading)

        assert reading.in_library
        assert reading.peer is not None
        assert reading.peer.host == "127.0.0.1"
        assert (reading.received_ago_s is None) == (fault == "ACCEPT")
        assert finding.id == cause
        assert str(reading.peer) in finding.sentence
        api.clear()
        thread.join(20)

    def test_a_retry_sleep_is_throttled_not_stuck(self, api, pods):
        from tests.fakes.kube_api import Fault

        api.set_fault(Fault.TOO_MANY, seconds=1)
        thread = run(lambda: pods.list_namespaced_pod("here"))
        reading = stuck(thread.ident, lambda reading: reading.in_retry_sleep)

        finding = diagnose(Snapshot(evidence.stacks(thread.ident)), silence=31)
        api.clear()
        thread.join(20)

        assert not reading.in_socket
        assert reading.was_asked
        assert finding.id == "throttled"


class TestProcess:
    def test_a_debugger_is_seen_by_its_frames(self):
        code = """
            import io, pdb, sys, threading
            from watchdog_hook.evidence.process import debugger_attached
            class Prompt(io.StringIO):
                def readline(self, *_):
                    print(ask())
                    return "c"
            def ask():
                answer = []
                thread = threading.Thread(target=lambda: answer.append(debugger_attached()))
                thread.start()
                thread.join()
                return answer[0]
            print(ask())
            pdb.Pdb(stdin=Prompt(), stdout=io.StringIO()).set_trace()
            pass
        """
        assert _python(code).split() == ["False", "True"]

    def test_a_tracer_from_outside_is_seen(self, tmp_path):
        status = tmp_path / "status"
        status.write_text("Name:\tx\nTracerPid:\t17\n")

        assert process._traced_by_another(str(status))
        assert not process._traced_by_another()

    def test_a_pause_has_the_cause_that_grew(self):
        zero = Pressure(0.0, 0.0, 0.0)

        def cause(seconds: float, before: Pressure, after: Pressure) -> str:
            return evidence.pause_cause(before, after, seconds)

        assert cause(61, zero, Pressure(60.0, 0.1, 0.0)) == "suspended for 60.0 s"
        assert cause(10, zero, Pressure(0.0, 9.0, 0.1)).startswith("cpu throttled")
        assert cause(5, zero, Pressure(0.0, 0.0, 3.0)).startswith("waiting for memory")
        assert cause(5, zero, zero) == "stopped"
        assert cause(20, zero, Pressure(0.0, 3.0, 0.0)) == "stopped", "too little to explain it"
        assert cause(5, Pressure(), Pressure()) == "stopped"

    def test_the_readers_work_here(self):
        assert isinstance(evidence.pressure(), Pressure)
        assert evidence.cpu_seconds() > 0
        assert 0 < evidence.process_started() <= time.time()
        assert set(evidence.versions()) == {"python", "watchdog_hook", "platform"}
        assert all(what and why for what, why in evidence.unavailable())

    def test_without_psutil_the_start_is_unavailable_and_says_why(self):
        code = """
            import sys
            sys.modules["psutil"] = None
            from watchdog_hook.evidence.here import Evidence
            evidence = Evidence()
            print(evidence.process_started(), evidence.debugger(), len(evidence.stacks(None)))
            print(evidence.unavailable())
        """
        out = _python(code)

        assert out.startswith("None False 0")
        assert "('process start', 'psutil is not installed')" in out

    def test_reading_evidence_imports_no_host(self):
        code = """
            import sys
            from watchdog_hook.evidence.here import Evidence
            print(sorted({"airflow", "kubernetes", "urllib3", "wrapt", "psutil", "rich"} & set(sys.modules)))
        """
        assert _python(code).strip() == "[]"


class TestStopped:
    def test_a_process_that_was_stopped_says_so(self):
        """Nothing but the stop explains the pause, so `stopped` is what is left."""
        code = """
            from watchdog_hook.evidence.here import Evidence
            evidence = Evidence()
            before = evidence.pressure()
            print("ready", flush=True)
            input()
            print(evidence.pause_cause(before, evidence.pressure(), 5.0))
        """
        with _process(code) as child:
            assert child.stdout.readline() == "ready\n"
            child.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, child.pid, os.WSTOPPED)
            child.send_signal(signal.SIGCONT)
            out, _ = child.communicate("\n", timeout=20)

        assert out.strip() == "stopped"


def _process(code: str) -> subprocess.Popen[str]:
    import textwrap

    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )


def _python(code: str) -> str:
    with _process(code) as child:
        out, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    return out

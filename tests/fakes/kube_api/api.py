"""The face of the fake: what a test says to it and asks it."""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trustme

from tests.fakes.kube_api.faults import Fault, Trap, operations
from tests.fakes.kube_api.server import Server

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Collection
    from types import TracebackType

    from tests.fakes.kube_api.pods import Pod, Pods, TaskTry
    from tests.fakes.kube_api.requests import Request


class KubeApi:
    """
    A Kubernetes API on a free port of 127.0.0.1, for as long as the `with` lasts.

    `kubeconfig` is the file that lets a client in. Its bearer `token` is random, so that a test can
    look for it where it must not be. With the `pods` of another it is one more API server of the same
    cluster, with faults of its own.
    """

    def __init__(self, *, port: int = 0, pods: Pods | None = None) -> None:
        self._port = port
        self._of_another = pods

    def __enter__(self) -> KubeApi:
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
        self.token = "planted-" + secrets.token_hex(16)
        self._server = Server(self._port, context, self.token, self._of_another)
        self.pods = self._server.pods
        self.port: int = self._server.server_address[1]
        self.url = f"https://127.0.0.1:{self.port}"
        self._folder = tempfile.TemporaryDirectory(prefix="kube-api-")
        self.kubeconfig = Path(self._folder.name, "kubeconfig")
        self.kubeconfig.write_text(self._config(authority.cert_pem.bytes()), encoding="utf-8")
        self.kubeconfig.chmod(0o644)
        Path(self._folder.name).chmod(0o755)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._folder.cleanup()
        if self._server.errors and error is None:
            raise AssertionError("the fake itself failed:\n" + "\n".join(self._server.errors))

    def set_fault(
        self,
        fault: Fault,
        on: str | Collection[str] = "any",
        *,
        times: int | None = None,
        seconds: float = 1.0,
        applied: bool = False,
        namespace: str | None = None,
        pod: str | None = None,
        status: int = 500,
        message: str = "of the test",
    ) -> Trap:
        """
        Do this to the requests meant, `times` often or until `clear`.

        `seconds` is how late SLOW is, the pause between two bytes of TRICKLE, and what Retry-After
        says. `applied` lets RESET and CLOSE do what was asked before they end the connection.
        `status` and `message` are what STATUS answers.
        ACCEPT and HANDSHAKE come before a request can be told from another: they are for all, until
        they are cleared; idle connections are cut, so that the next request meets them, and open
        watches are left alone. The other silent ones silence an open watch as well when they are
        set on "any" or "watch" without `times`.
        """
        if fault.is_of_connection and (times is not None or on != "any"):
            raise ValueError(f"{fault.name} is for all connections, until it is cleared")
        trap = Trap(fault, operations(on), times, seconds, applied, namespace, pod, status, message)
        self._server.traps.set(trap)
        if fault.is_of_connection:
            self._server.cut_idle()
        return trap

    def clear(self) -> None:
        """End every fault. Who hangs in one loses the connection; LATE is applied now."""
        self._server.traps.clear()

    @property
    def requests(self) -> list[Request]:
        """Every request that was read, oldest first."""
        return list(self._server.requests)

    def set_phase(self, pod: Pod, phase: str) -> Pod:
        """Move a pod to "Running", "Succeeded" or "Failed", and let the watchers know."""
        metadata = pod["metadata"]
        return self.pods.patch(
            metadata["namespace"], metadata["name"], {"status": {"phase": phase}}
        )

    def created(self, namespace: str | None = None) -> list[Pod]:
        """Return every pod that ever came to be, as it was then, the deleted too."""
        pods = self.pods.created()
        return [pod for pod in pods if namespace in (None, pod["metadata"]["namespace"])]

    def per_try(self) -> Counter[TaskTry]:
        """Count the pods that ever came to be by (dag, task, run, try number, map index)."""
        return self.pods.per_try()

    def wait_for(self, condition: Callable[[], Any], timeout: float = 60, what: str = "") -> None:
        """Return once a condition on the pods holds; AssertionError after `timeout` seconds."""
        if not self.pods.wait_for(condition, timeout):
            count = len(self.created())
            raise AssertionError(
                f"not in {timeout:.0f} s: {what or condition}; {count} pods were made"
            )

    def wait_for_pods(self, count: int, timeout: float = 60) -> list[Pod]:
        """Return every pod ever made, once there are that many."""
        self.wait_for(lambda: len(self.created()) >= count, timeout, f"{count} pods")
        return self.created()

    def _config(self, certificate: bytes) -> str:
        cluster = {
            "server": self.url,
            "certificate-authority-data": base64.b64encode(certificate).decode(),
        }
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "fake", "cluster": cluster}],
                "users": [{"name": "tester", "user": {"token": self.token}}],
                "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "tester"}}],
                "current-context": "fake",
            },
            indent=2,
        )

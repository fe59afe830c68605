"""One connection of one client, from the handshake to the end: where the faults happen."""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, NoReturn

from tests.fakes.kube_api.faults import Fault, Trap
from tests.fakes.kube_api.pods import Refused
from tests.fakes.kube_api.requests import Request, read_request
from tests.fakes.kube_api.selectors import BadSelector, Selector, selector

if TYPE_CHECKING:
    from tests.fakes.kube_api.server import Server

WATCH_POLL = 0.25


class HangUp(Exception):
    """End this connection without another byte."""


class Connection(BaseHTTPRequestHandler):
    """Read requests, fall into the faults that are set for them, answer the others."""

    protocol_version = "HTTP/1.1"
    server: Server
    connection: Any
    request_now: Request

    def handle(self) -> None:
        """Serve until the client has enough."""
        try:
            if trap := self.server.traps.of_connection():
                if trap.fault is Fault.HANDSHAKE:
                    self.connection.do_handshake()
                self._hang(trap)
            self.connection.do_handshake()
            super().handle()
        except (HangUp, OSError, ValueError):
            # ValueError is what select says of a socket that was closed meanwhile.
            self.close_connection = True

    def handle_one_request(self) -> None:
        """Wait for a request, and take it unless the connection has fallen silent meanwhile."""
        select.select([self.connection], [], [])
        with self.server.working(self):
            if trap := self.server.traps.of_connection():
                self._hang(trap)
            super().handle_one_request()

    def do_GET(self) -> None:
        """Take one request, whatever its method."""
        seen = read_request(
            time.monotonic(), self.command, self.path, self.headers.get("Accept", "")
        )
        self.request_now = seen
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = _json(raw)
        if seen.operation == "create" and isinstance(body, dict):
            metadata = body.get("metadata") or {}
            seen.pod, seen.labels = metadata.get("name"), dict(metadata.get("labels") or {})
        self.server.requests.append(seen)
        trap = self.server.traps.take(seen.operation, seen.namespace, seen.pod)
        if trap is None:
            self._answer(*self._applied(body))
        else:
            self._fall_into(trap, body)

    do_POST = do_PATCH = do_DELETE = do_PUT = do_GET  # noqa: N815

    def _fall_into(self, trap: Trap, body: Any) -> None:
        fault = trap.fault
        if fault is Fault.REQUEST:
            self._hang(trap)
        if fault is Fault.TOO_MANY:
            trap.hit()
            self._answer(429, _too_many(trap.seconds), {"Retry-After": f"{trap.seconds:.0f}"})
            return
        if fault is Fault.STATUS:
            trap.hit()
            reason = self.responses[trap.status][0].replace(" ", "")
            self._answer(trap.status, Refused(trap.status, reason, trap.message).status)
            return
        if fault in (Fault.RESET, Fault.CLOSE):
            if trap.applied:
                self._applied(body)
            trap.hit()
            self._end(reset=fault is Fault.RESET)
        if fault is Fault.LATE:
            trap.hit()
            trap.over.wait()
        if fault is Fault.SLOW:
            trap.hit()
            trap.over.wait(trap.seconds)
        status, answer = self._applied(body)
        if fault is Fault.APPLIED:
            self._hang(trap)
        if fault is Fault.CUT:
            trap.hit()
            self._cut_off(status, answer)
        if fault in (Fault.HALF, Fault.TRICKLE):
            raw = self._head_and_body(status, answer)
            self.request_now.status = None  # until all of it has gone
            if fault is Fault.HALF:
                self.wfile.write(raw[: len(raw) - len(json.dumps(answer)) // 2])
                self._hang(trap)
            trap.hit()
            for byte in raw:
                self.wfile.write(bytes([byte]))
                if trap.over.wait(trap.seconds):
                    self._end()
            self.request_now.status = status
            return
        left = self._client_left()
        self._answer(status, answer)
        if left:
            self.request_now.status = None

    def _cut_off(self, status: int, answer: Any) -> NoReturn:
        # In chunks: a body that is shorter than it said is no error to every urllib3.
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        raw = json.dumps(answer).encode()
        self.wfile.write(f"{len(raw):x}\r\n".encode() + raw[: len(raw) // 2])
        self._end()

    def _hang(self, trap: Trap) -> NoReturn:
        trap.hit()
        trap.over.wait()
        self._end()

    def _end(self, *, reset: bool = False) -> NoReturn:
        if reset:
            linger_on_for_no_time = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_on_for_no_time)
        raise HangUp

    def _applied(self, body: Any) -> tuple[int, Any]:
        """Do what is asked and return status and body, or (200, selector) for a watch."""
        seen, pods = self.request_now, self.server.pods
        try:
            if self.headers.get("Authorization") != f"Bearer {self.server.token}":
                raise Refused(401, "Unauthorized", "Unauthorized")
            if seen.operation in ("version", "discovery"):
                return 200, DISCOVERY[seen.path.rstrip("/")]
            if seen.operation in ("list", "watch"):
                query = seen.query
                matches = selector(query.get("labelSelector", ""), query.get("fieldSelector", ""))
                if seen.operation == "watch":
                    return 200, matches
                return 200, _pod_list(*pods.list(seen.namespace, matches), seen.is_metadata_only)
            if seen.operation == "create":
                return 201, pods.create(seen.namespace or "default", body)
            if seen.operation == "other" or seen.namespace is None or seen.pod is None:
                message = "the server could not find the requested resource"
                raise Refused(404, "NotFound", message)
            if seen.operation == "patch":
                if not isinstance(body, dict):
                    raise Refused(415, "UnsupportedMediaType", "only merge patches are known here")
                return 200, pods.patch(seen.namespace, seen.pod, body)
            act = pods.delete if seen.operation == "delete" else pods.get
            return 200, act(seen.namespace, seen.pod)
        except BadSelector as error:
            return 400, Refused(400, "BadRequest", str(error)).status
        except Refused as refused:
            return refused.code, refused.status

    def _answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        if callable(body):
            self._stream(body)
            return
        self.wfile.write(self._head_and_body(status, body, headers))

    def _head_and_body(
        self, status: int, body: Any, headers: dict[str, str] | None = None
    ) -> bytes:
        self.request_now.status = status
        raw = json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status} {self.responses[status][0]}", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        lines += [f"Content-Length: {len(raw)}", "", ""]
        return "\r\n".join(lines).encode() + raw

    def _stream(self, matches: Selector) -> None:
        """Send events until the client's timeout, its end, or ours."""
        seen, pods = self.request_now, self.server.pods
        seen.status = 200
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        end = time.monotonic() + float(seen.query.get("timeoutSeconds") or 1800)
        version = int(seen.query.get("resourceVersion") or 0)
        if not version:
            version, now = pods.list(seen.namespace, matches)
            for pod in now:
                self._chunk({"type": "ADDED", "object": pod})
        while time.monotonic() < end and not self.server.ending.is_set():
            wait = min(WATCH_POLL, max(0.0, end - time.monotonic()))
            version, events = pods.events_after(version, wait)
            if trap := self.server.traps.of_stream(seen.namespace):
                while not trap.over.wait(WATCH_POLL) and not self._client_left():
                    pass
            for event in events:
                if seen.namespace not in (None, event.pod["metadata"]["namespace"]):
                    continue
                if (line := event.seen_through(matches)) is not None:
                    self._chunk(line)
            if self._client_left():
                self._end()
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, value: Any) -> None:
        raw = json.dumps(value).encode() + b"\n"
        self.wfile.write(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")

    def _client_left(self) -> bool:
        # A client that waits for us has nothing more to say: whatever can be read is its end.
        return bool(select.select([self.connection], [], [], 0)[0])

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the record is `requests`."""


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return None


def _too_many(seconds: float) -> dict[str, Any]:
    message = "Too many requests, please try again later."
    return Refused(429, "TooManyRequests", message, retryAfterSeconds=round(seconds)).status


def _pod_list(version: int, pods: list[dict[str, Any]], metadata_only: bool) -> dict[str, Any]:
    head = {"metadata": {"resourceVersion": str(version)}}
    if not metadata_only:
        return {"kind": "PodList", "apiVersion": "v1", **head, "items": pods}
    kind = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
    items = [{**kind, "metadata": pod["metadata"]} for pod in pods]
    return {"kind": kind["kind"] + "List", "apiVersion": kind["apiVersion"], **head, "items": items}


_VERBS = ["create", "delete", "get", "list", "patch", "watch"]
DISCOVERY: dict[str, Any] = {
    "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.0", "platform": "linux/amd64"},
    "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [
            {
                "name": "pods",
                "singularName": "pod",
                "namespaced": True,
                "kind": "Pod",
                "verbs": _VERBS,
                "shortNames": ["po"],
            }
        ],
    },
}

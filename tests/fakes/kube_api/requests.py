"""Requests: what a path means, and the record of each."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

_PODS = re.compile(r"^/api/v1(?:/namespaces/(?P<namespace>[^/]+))?/pods(?:/(?P<name>[^/]+))?$")


@dataclass
class Request:
    """One request as it was read. `status` is None for one that was not answered, or not wholly."""

    at: float
    method: str
    path: str
    operation: str
    template: str
    namespace: str | None = None
    pod: str | None = None
    query: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    accept: str = ""
    status: int | None = None

    @property
    def is_metadata_only(self) -> bool:
        """The client asked for metadata without spec and status."""
        return "PartialObjectMetadata" in self.accept


def read_request(at: float, method: str, target: str, accept: str) -> Request:
    """Say what a request line means."""
    parts = urlsplit(target)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    operation, template, namespace, pod = "other", parts.path, None, None
    if match := _PODS.match(parts.path):
        namespace, pod = match["namespace"], match["name"]
        template = "/api/v1" + ("/namespaces/{namespace}" if namespace else "") + "/pods"
        template += "/{name}" if pod else ""
        watching = query.get("watch", "").lower() in ("true", "1")
        on_all = {"POST": "create", "GET": "watch" if watching else "list"}
        on_one = {"GET": "get", "PATCH": "patch", "DELETE": "delete"}
        operation = (on_one if pod else on_all).get(method, "other")
    elif parts.path.rstrip("/") == "/version":  # with a slash as the client's own VersionApi asks
        operation = "version"
    elif parts.path in ("/api", "/apis", "/api/v1"):
        operation = "discovery"
    return Request(
        at, method, parts.path, operation, template, namespace, pod, query, accept=accept
    )

"""What a request to a Kubernetes API is called in reports: method and path template, server, kind."""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from watchdog_hook.core.model import Call, Peer


def describe(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """Return method, server and path template of a request: no names, no query, no body."""
    query = dict(kwargs.get("query_params") or ())
    stream = any(str(query.get(word)).lower() == "true" for word in ("watch", "follow"))
    return _described(str(args[0]), str(args[1]), "stream" if stream else "api")


@lru_cache(maxsize=256)
def _described(method: str, url: str, kind: str) -> Call:
    # Kept, because reading a URL is most of what the book costs, and pods are created at one and the same.
    return Call(f"{method} {_template(urlsplit(url).path)}", peer_of(url), kind)


def _template(path: str) -> str:
    """Return a path of the Kubernetes API with its names replaced: /api/v1/namespaces/{namespace}/pods/{name}."""
    parts = path.split("/")
    shown = []
    # What follows a collection's name is a name: /api/v1/<collection>/<name>, /apis/<group>/<v>/<collection>/…
    start = (
        parts.index("api") + 2
        if "api" in parts
        else parts.index("apis") + 3
        if "apis" in parts
        else None
    )
    for index, part in enumerate(parts):
        if start is None or index <= start or not part:
            shown.append(part)
        elif index == start + 1:
            shown.append("{namespace}" if parts[start] == "namespaces" else "{name}")
        elif index == start + 3 and parts[start] == "namespaces":
            shown.append("{name}")
        else:
            shown.append(part)
    return "/".join(shown)


def peer_of(url: str) -> Peer:
    """Return host and port of a URL, the scheme's own port where it names none."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    return Peer(parts.hostname or "?", port or {"https": 443, "http": 80}.get(parts.scheme))

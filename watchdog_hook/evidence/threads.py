"""Where one thread stands: its position, and the socket that it waits on."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

from watchdog_hook.core.model import ThreadReading
from watchdog_hook.evidence import kernel, sockets, stacks

if TYPE_CHECKING:
    from types import FrameType

# Functions that wait on a socket while they are the leaf, by the module that defines them. Known modules
# only: their locals can be looked at without running anybody's property.
_SOCKET_LEAVES: dict[str, frozenset[str]] = {
    "ssl": frozenset(
        {
            "read",
            "write",
            "recv",
            "recv_into",
            "recvfrom",
            "recvfrom_into",
            "send",
            "sendall",
            "do_handshake",
            "connect",
            "connect_ex",
            "_real_connect",
        }
    ),
    "socket": frozenset({"readinto", "write", "create_connection"}),
    "http.client": frozenset({"send"}),
    "urllib3.util.connection": frozenset({"create_connection"}),
    "urllib3.util.wait": frozenset(
        {"wait_for_socket", "poll_wait_for_socket", "select_wait_for_socket", "do_poll"}
    ),
    "urllib3.contrib.pyopenssl": frozenset(
        {"recv", "recv_into", "send", "sendall", "_send_until_done"}
    ),
    "OpenSSL.SSL": frozenset(
        {"recv", "recv_into", "send", "sendall", "read", "write", "do_handshake", "connect"}
    ),
}
# A leaf here waits for many descriptors at once, or for a name server: never "the call's socket".
_NEVER = ("asyncio", "selectors", "multiprocessing.connection", "concurrent.futures")
_RETRY_SLEEPS = frozenset({"sleep", "_sleep_backoff", "sleep_for_retry"})
_LIBRARIES = ("urllib3", "kubernetes")
_FRAMES_SEARCHED = 4  # from the leaf on, for the socket


def read_thread(
    ident: int, native_id: int | None = None, missed: dict[str, str] | None = None
) -> ThreadReading | None:
    """Read where a thread stands now; None when there is no such thread. Never raises."""
    missed = {} if missed is None else missed
    if native_id is None:
        native_id = stacks.known_threads().get(ident, ("?", None))[1]
    top = stacks.top_frame(ident)
    if top is None:
        return None
    try:
        # First where it stands, last whether it still stands there: what lies between is about one place.
        position = (id(top), id(top.f_code), top.f_lasti)
        leaf, stack = stacks.frame_of(top), _hash(top)
        in_socket, descriptor = _socket_of(top, native_id, missed)
        if stacks.top_frame(ident) is not top or top.f_lasti != position[2]:
            in_socket, descriptor = False, None
        return ThreadReading(
            position=position,
            stack=stack,
            leaf=leaf,
            switches=None if native_id is None else kernel.voluntary_switches(native_id, missed),
            in_socket=in_socket,
            in_library=in_socket and _passes(top, _LIBRARIES),
            in_retry_sleep=_module(top) == "urllib3.util.retry"
            and top.f_code.co_name in _RETRY_SLEEPS,
            descriptor=descriptor,
            peer=None if descriptor is None else sockets.peer_of(descriptor),
            received_ago_s=None if descriptor is None else sockets.received_ago(descriptor),
        )
    finally:
        del top


def _socket_of(
    top: FrameType, native_id: int | None, missed: dict[str, str]
) -> tuple[bool, int | None]:
    """Say whether the leaf waits on one stream socket, and on which as far as that can be told."""
    if _never(top):
        return False, None
    known = _waits_on_socket(top)
    descriptor = _descriptor(top) if known else None
    if descriptor is None and native_id is not None:
        descriptor = kernel.descriptor_waited_for(native_id, missed)
    # A datagram socket belongs to a resolver or a logger, never to a call.
    if descriptor is not None and not sockets.is_stream(descriptor):
        return False, None
    return known or descriptor is not None, descriptor


def _module(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__")
    return name if isinstance(name, str) else ""


def _waits_on_socket(leaf: FrameType) -> bool:
    return leaf.f_code.co_name in _SOCKET_LEAVES.get(_module(leaf), ())


def _never(leaf: FrameType) -> bool:
    module = _module(leaf)
    return module.startswith(_NEVER) or (
        module == "socket" and leaf.f_code.co_name == "getaddrinfo"
    )


def _passes(top: FrameType, packages: tuple[str, ...]) -> bool:
    frame: FrameType | None = top
    while frame is not None:
        if _module(frame).partition(".")[0] in packages:
            return True
        frame = frame.f_back
    return False


def _hash(top: FrameType) -> int:
    places: list[tuple[int, int]] = []
    frame: FrameType | None = top
    while frame is not None:
        places.append((id(frame.f_code), frame.f_lasti))
        frame = frame.f_back
    return hash(tuple(places))


def _descriptor(leaf: FrameType) -> int | None:
    """Return the descriptor of the socket in the innermost frames, as far as those are of known modules."""
    frame: FrameType | None = leaf
    for _ in range(_FRAMES_SEARCHED):
        if frame is None or _module(frame) not in _SOCKET_LEAVES:
            return None
        values = frame.f_locals
        holder = values.get("self")
        for candidate in (
            holder,
            _part(holder, "_sock"),
            values.get("sock"),
            _part(holder, "sock"),
        ):
            descriptor = _fileno(candidate)
            if descriptor is not None:
                return descriptor
        frame = frame.f_back
    return None


def _part(holder: Any, name: str) -> Any:
    with contextlib.suppress(Exception):
        return getattr(holder, name, None)
    return None


def _fileno(candidate: Any) -> int | None:
    """Return the descriptor of a socket, or of what a TLS library puts around one."""
    with contextlib.suppress(Exception):
        if isinstance(candidate, socket.socket) or _part(candidate, "do_handshake") is not None:
            descriptor = candidate.fileno()
            return descriptor if isinstance(descriptor, int) and descriptor >= 0 else None
    return None

"""The listening side: threads, TLS, and the list of connections that a fault has to cut."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import traceback
from typing import TYPE_CHECKING, Any

from tests.fakes.kube_api.connection import Connection
from tests.fakes.kube_api.faults import Traps
from tests.fakes.kube_api.pods import Pods

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from tests.fakes.kube_api.requests import Request


class Server(socketserver.ThreadingTCPServer):
    """Accepts, and gives each connection a thread; the handshake is done in there."""

    allow_reuse_address = True
    daemon_threads = False  # so that server_close() joins them
    request_queue_size = 128

    def __init__(
        self, port: int, context: ssl.SSLContext, token: str, pods: Pods | None = None
    ) -> None:
        self.token = token
        self.pods = pods or Pods()
        self.traps = Traps()
        self.requests: list[Request] = []
        self.errors: list[str] = []
        self.ending = threading.Event()
        self._context = context
        self._lock = threading.Lock()
        self._open: dict[Any, bool] = {}
        super().__init__(("127.0.0.1", port), Connection)

    def get_request(self) -> tuple[Any, Any]:
        """Accept one client; not a byte is exchanged yet."""
        plain, address = super().get_request()
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wrapped = self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        with self._lock:
            self._open[wrapped] = False
        return wrapped, address

    @contextlib.contextmanager
    def working(self, connection: Connection) -> Iterator[None]:
        """Mark a connection as one with a request in it, which no fault cuts."""
        with self._lock:
            self._open[connection.connection] = True
        try:
            yield
        finally:
            with self._lock:
                self._open[connection.connection] = False

    def cut_idle(self) -> None:
        """
        End the connections that no request is in, so that their clients connect anew.

        One with bytes that nobody has read yet is left alone: its request falls into the silence.
        """
        with self._lock:
            for connection, works in self._open.items():
                if not works and not _has_bytes(connection):
                    _shut(connection)

    def shutdown_request(self, request: Any) -> None:
        """Close one connection. Not through shutdown(), which would turn a reset into an end."""
        with self._lock:
            self._open.pop(request, None)
        request.close()

    def server_close(self) -> None:
        """Let everyone go and join their threads."""
        self.ending.set()
        self.traps.clear()
        with self._lock:
            for connection in self._open:
                _shut(connection)
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep it for the end: a bug of the fake must not pass for a fault of the API."""
        self.errors.append(traceback.format_exc())


def _has_bytes(connection: Any) -> bool:
    # SSLSocket refuses flags, so the peek goes to the file descriptor beneath it.
    with contextlib.suppress(OSError), socket.socket(fileno=connection.fileno()) as beneath:
        try:
            return bool(beneath.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        finally:
            beneath.detach()
    return False


def _shut(connection: Any) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)

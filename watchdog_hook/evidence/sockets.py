"""What the kernel knows about a socket of this process. Always through a duplicate, closed at once."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import TYPE_CHECKING

from watchdog_hook.core.model import Peer

if TYPE_CHECKING:
    from collections.abc import Iterator

# struct tcp_info: eight bytes, then 32-bit fields, of which tcpi_last_data_recv is the twelfth.
_LAST_DATA_RECV = 52
_BYTES_RECEIVED = 128  # since Linux 4.1
_TCP_INFO = getattr(socket, "TCP_INFO", None)
_CONNECTED = (1, 4, 5, 8)  # ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT


def is_socket(fd: int) -> bool:
    """Say whether a descriptor is a socket."""
    with _borrowed(fd) as sock:
        return sock is not None


def is_stream(fd: int) -> bool:
    """Say whether a descriptor is a stream socket (TCP or Unix); False for anything else."""
    with _borrowed(fd) as sock:
        return sock is not None and _is_stream(sock)


def peer_of(fd: int) -> Peer | None:
    """Return the other end of a TCP connection; None while there is none, or for anything else."""
    with _borrowed(fd) as sock:
        if sock is None:
            return None
        try:
            address = sock.getpeername()
        except OSError:  # not connected (yet)
            return None
        if not isinstance(address, tuple) or len(address) not in (2, 4):
            return None
        host, port = str(address[0]), int(address[1])
        return Peer(f"[{host}]" if ":" in host else host, port)


def received_ago(fd: int) -> float | None:
    """
    Return the seconds since the last byte came in on a TCP connection.

    None where the kernel does not say, and where none ever came: there it would count from the connect.
    """
    with _borrowed(fd) as sock:
        if sock is None or _TCP_INFO is None or not _is_stream(sock):
            return None
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _BYTES_RECEIVED + 8)
            (milliseconds,) = struct.unpack_from("=I", info, _LAST_DATA_RECV)
            if len(info) >= _BYTES_RECEIVED + 8 and not any(info[_BYTES_RECEIVED:]):
                return None
        except (OSError, struct.error):
            return None
        # Before it is connected the number is meaningless.
        return milliseconds / 1000 if info[0] in _CONNECTED else None


@contextlib.contextmanager
def _borrowed(fd: int) -> Iterator[socket.socket | None]:
    """Give a socket object over a duplicate of the descriptor, or None if it is no socket."""
    # Not socket.socket(fileno=os.dup(fd)): where somebody has called socket.setdefaulttimeout() that makes
    # the duplicate non-blocking, and with it the original, in the middle of its call. So the duplicate
    # takes the place of an idle socket instead. A Unix one: its addresses have room for any other kind.
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError:  # no descriptor left
        yield None
        return
    try:
        yield sock if _take_place(fd, sock) else None
    finally:
        # Closes the duplicate only; without a shutdown the original is not touched.
        sock.close()


def _take_place(fd: int, sock: socket.socket) -> bool:
    try:
        os.dup2(fd, sock.fileno(), inheritable=False)
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
    except (OSError, ValueError, OverflowError, TypeError):
        return False
    return True


def _is_stream(sock: socket.socket) -> bool:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM

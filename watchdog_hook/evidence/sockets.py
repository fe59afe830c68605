"""What the kernel knows about a socket of this process. Always through a duplicate, closed at once."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import TYPE_CHECKING

from watchdog_hook.core.model import Peer
from watchdog_hook.core.observed import Descriptor
from watchdog_hook.evidence import tcp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SO_DOMAIN = getattr(socket, "SO_DOMAIN", 39)
_SO_PROTOCOL = getattr(socket, "SO_PROTOCOL", 38)
_MPTCP = 262
_KINDS = {int(socket.AF_UNIX): "unix", int(getattr(socket, "AF_NETLINK", 16)): "netlink"}
_INTERNET_KINDS = {socket.IPPROTO_TCP: "tcp", _MPTCP: "tcp", socket.IPPROTO_UDP: "udp"}


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
        if sock is None or not _is_stream(sock):
            return None
        try:
            return tcp.received_ago(sock)
        except (OSError, IndexError):
            return None


def describe(fd: int, missed: dict[str, str]) -> Descriptor | None:
    """Return what a socket is: its ends, and of TCP its state and queues. None for anything else. Never raises."""
    with _borrowed(fd) as sock:
        if sock is None:
            return None
        try:
            family = sock.getsockopt(socket.SOL_SOCKET, _SO_DOMAIN)
            protocol = sock.getsockopt(socket.SOL_SOCKET, _SO_PROTOCOL)
        except OSError as error:
            missed["sockets"] = error.strerror or type(error).__name__
            return Descriptor(fd, "other")
        internet = family in (socket.AF_INET, socket.AF_INET6)
        kind = (_INTERNET_KINDS.get(protocol) if internet else _KINDS.get(family)) or "other"
        local, remote = _address(sock.getsockname), _address(sock.getpeername)
        if kind != "tcp":
            return Descriptor(fd, kind, local, remote)
        seen = tcp.read(sock, missed)
        if remote is None and seen is not None and seen.state == "SYN_SENT":
            remote = tcp.connecting_to(_inode(fd), family == socket.AF_INET6, missed)
        return Descriptor(fd, kind, local, remote, tcp=seen)


def link_of(fd: int) -> str | None:
    """
    Return what a descriptor of this process is: `socket:[123]`, `pipe:[123]`, a path; None if it is closed.

    Reads the kernel's memory only: unlike fstat() it never asks the server of a network file system.
    """
    try:
        return read_link(f"/proc/self/fd/{fd}")
    except OSError:
        return None


def read_link(path: str) -> str:
    """Return where a link under /proc leads to, as text of any encoding. Raises OSError."""
    return os.readlink(path.encode()).decode("utf-8", "replace")


def _inode(fd: int) -> str:
    return (link_of(fd) or "").removeprefix("socket:[").removesuffix("]")


def _address(ask: Callable[[], object]) -> str | None:
    try:
        address = ask()
    except (OSError, ValueError):  # not connected, or of a family that Python has no words for
        return None
    if isinstance(address, bytes) and address:  # the abstract name of a Unix socket
        return "@" + address[1:].decode("utf-8", "replace")
    if isinstance(address, str):
        return address or None
    if isinstance(address, tuple) and len(address) in (2, 4) and isinstance(address[0], str):
        return tcp.end(address[0], int(address[1]))
    return None


@contextlib.contextmanager
def _borrowed(fd: int) -> Iterator[socket.socket | None]:
    """Give a socket object over a duplicate of the descriptor, or None if it is no socket."""
    # Sockets only: closing the duplicate of a file would drop every fcntl lock this process has on it, and
    # may wait for the server of a network file system.
    if not _looks_like_socket(fd):
        yield None
        return
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


def _looks_like_socket(fd: int) -> bool:
    link = link_of(fd)
    if link is not None:
        return link.startswith("socket:")
    try:  # closed, or there is no /proc here
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except (OSError, OverflowError, TypeError):
        return False


def _take_place(fd: int, sock: socket.socket) -> bool:
    try:
        os.dup2(fd, sock.fileno(), inheritable=False)
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
    except (OSError, ValueError, OverflowError, TypeError):
        return False
    return True


def _is_stream(sock: socket.socket) -> bool:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM

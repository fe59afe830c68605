"""What the kernel knows about one TCP connection: state, queues, and how long each side has been silent."""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios

from watchdog_hook.core.observed import Tcp

# struct tcp_info (include/uapi/linux/tcp.h): eight bytes, 32-bit fields, and from 104 on 64-bit ones too.
_RETRANSMITS, _BACKOFF = 2, 4
_RTO = 8  # microseconds
_UNACKED = 24
_LAST_DATA_SENT, _LAST_DATA_RECV, _LAST_ACK_RECV = 44, 52, 56  # milliseconds ago
_TOTAL_RETRANS = 100
_BYTES_RECEIVED = 128  # since Linux 4.1
_DATA_SEGS_OUT = 156  # since Linux 4.6
_SIZE = _DATA_SEGS_OUT + 4
_TCP_INFO = getattr(socket, "TCP_INFO", None)
# include/net/tcp_states.h
_STATES = (
    *("?", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT"),
    *("CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV"),
)
_CONNECTED = ("ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "CLOSE_WAIT")
_FIRST_WAIT = 0.2  # seconds: TCP_RTO_MIN, the least that the retransmission timer waits
_SIOCINQ, _SIOCOUTQ = termios.FIONREAD, termios.TIOCOUTQ  # the same numbers
_TABLE_ROWS = 10_000  # of /proc/self/net/tcp that are searched


def read(sock: socket.socket, missed: dict[str, str]) -> Tcp | None:
    """Return what TCP_INFO, SIOCOUTQ and SIOCINQ say; None where the first is refused. Never raises."""
    try:
        return _tcp(_info(sock), _bytes(sock, _SIOCOUTQ), _bytes(sock, _SIOCINQ))
    except (OSError, struct.error, IndexError) as error:
        missed["TCP_INFO"] = getattr(error, "strerror", None) or type(error).__name__
        return None


def received_ago(sock: socket.socket) -> float | None:
    """Return the seconds since data came in; None where none ever did. Raises OSError or IndexError."""
    return _received(_info(sock))


def connecting_to(inode: str, six: bool, missed: dict[str, str]) -> str | None:
    """Return where a socket that still connects goes: getpeername() does not say so before it is there."""
    table = "/proc/self/net/tcp6" if six else "/proc/self/net/tcp"
    wanted = inode.encode()
    try:
        with open(table, "rb") as file:
            for _, row in zip(range(_TABLE_ROWS), file, strict=False):
                if wanted in row and (words := row.split())[9] == wanted:
                    return _end_of(words[2].decode())
    except (OSError, ValueError, IndexError, struct.error) as error:
        missed["where sockets connect to"] = (
            getattr(error, "strerror", None) or type(error).__name__
        )
    return None


def end(host: str, port: int) -> str:
    """Return one end of a connection as host:port."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _info(sock: socket.socket) -> bytes:
    if _TCP_INFO is None:
        raise OSError(0, "not known to this Python")
    return sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _SIZE)


def _tcp(info: bytes, send_queue: int | None, receive_queue: int | None) -> Tcp:
    state = _state(info)
    connected = state in _CONNECTED
    sent = _ago(info, _LAST_DATA_SENT) if connected else None
    unacked_s = None
    if info[_RETRANSMITS] and sent is not None:
        # The last retransmission, too, was data that went out. Before it lie the waits of the timer, each
        # twice the one before, up to a limit.
        wait = _number(info, _RTO) / 1e6
        first = max(wait / 2 ** info[_BACKOFF], _FIRST_WAIT)
        unacked_s = sent + sum(min(first * 2**turn, wait) for turn in range(info[_BACKOFF]))
    if len(info) >= _SIZE and not _number(info, _DATA_SEGS_OUT):
        sent = None  # it counts from the connect
    return Tcp(
        state=state,
        # Of a listening socket it is how many wait to be accepted.
        unacked=0 if state == "LISTEN" else _number(info, _UNACKED),
        retransmits=info[_RETRANSMITS],
        retransmitted=_number(info, _TOTAL_RETRANS),
        sent_s=sent,
        received_s=_received(info),
        acked_s=_ago(info, _LAST_ACK_RECV) if connected else None,
        send_queue=send_queue,
        receive_queue=receive_queue,
        unacked_s=unacked_s,
    )


def _received(info: bytes) -> float | None:
    if len(info) >= _BYTES_RECEIVED + 8 and not any(info[_BYTES_RECEIVED : _BYTES_RECEIVED + 8]):
        return None
    # Before it is connected the number is meaningless.
    return _ago(info, _LAST_DATA_RECV) if _state(info) in _CONNECTED else None


def _state(info: bytes) -> str:
    return _STATES[info[0]] if info[0] < len(_STATES) else str(info[0])


def _number(info: bytes, at: int) -> int:
    return int.from_bytes(info[at : at + 4], sys.byteorder)


def _ago(info: bytes, at: int) -> float:
    return _number(info, at) / 1000


def _bytes(sock: socket.socket, request: int) -> int | None:
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), request, bytes(4)), sys.byteorder)
    except OSError:  # a listening socket has no such queue
        return None


def _end_of(word: str) -> str:
    # Each 32-bit word of the address is printed as this machine's number (net/ipv4/tcp_ipv4.c).
    host, _, port = word.partition(":")
    packed = b"".join(
        struct.pack("=I", int(host[at : at + 8], 16)) for at in range(0, len(host), 8)
    )
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    return end(socket.inet_ntop(family, packed), int(port, 16))

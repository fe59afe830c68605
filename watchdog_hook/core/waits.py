"""What a thread waits for, in one line for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchdog_hook.core.text import clean, plain_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watchdog_hook.core.observed import Descriptor, Tcp, Wait

_SHOWN = 4  # descriptors of a set, and holders of a pipe
_PATH_SHOWN = 120  # characters; a longer one keeps its end
_CHILD_CALLS = ("wait4", "waitid")
_CONNECTED = ("ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "CLOSE_WAIT")
_UNKNOWN_CALL = "restart_syscall"


def wait_text(wait: Wait | None) -> str:
    """
    Return a wait in one line: the call, its timeout, and what it waits on; nothing for no wait.

    `recvfrom on tcp 127.0.0.1:40112 -> 10.0.0.1:443 (ESTABLISHED, 0 bytes unread, last byte 31 s ago)`.
    """
    if wait is None:
        return ""
    if wait.child is not None:
        return f"waits for child {wait.child}"
    if wait.syscall in _CHILD_CALLS and not wait.descriptors:
        return "waits for any child"
    if wait.syscall == _UNKNOWN_CALL:
        return f"{_UNKNOWN_CALL}: goes on with a call that a signal interrupted, not known which"
    return clean(wait.syscall + _time(wait) + _things(wait))


def descriptor_text(descriptor: Descriptor) -> str:
    """Return a descriptor in words: `pipe (other end: KubernetesJobWatcher, pid 812)`."""
    if descriptor.kind == "gone":
        return clean(f"descriptor {descriptor.number} (closed)")
    words = [] if descriptor.number < 0 else [descriptor.kind]
    if descriptor.kind == "other":
        words = [f"descriptor {descriptor.number}"]
    if descriptor.local or descriptor.remote:
        words.append(_ends(descriptor))
    if descriptor.path:
        words.append(_path(descriptor.path))
    text = " ".join(words) + (f", {descriptor.peer}" if descriptor.peer else "")
    details = [descriptor.mount] if descriptor.mount else []
    if descriptor.holders:
        what = "lock held by" if descriptor.kind == "file" else "other end:"
        details.append(f"{what} {_listed(descriptor.holders, '; ')}")
    if descriptor.tcp is not None:
        details += _tcp(descriptor.tcp)
    return clean(text + (f" ({', '.join(details)})" if details else ""))


def _time(wait: Wait) -> str:
    if wait.timeout_s is None:
        return ""
    return (
        f", {_seconds(wait.timeout_s)} left"
        if wait.deadline
        else f" for {_seconds(wait.timeout_s)}"
    )


def _things(wait: Wait) -> str:
    if not wait.descriptors:
        return ""
    separator = ", on " if wait.deadline else " on "
    count = len(wait.descriptors) + wait.more
    texts = [descriptor_text(descriptor) for descriptor in wait.descriptors]
    if count == 1:
        return separator + texts[0]
    return f"{separator}{count} descriptors: {_listed(texts, ', ', wait.more)}"


def _listed(texts: Sequence[str], separator: str, more: int = 0) -> str:
    left_out = len(texts[_SHOWN:]) + more
    return separator.join(texts[:_SHOWN]) + (f"{separator}{left_out} more" if left_out else "")


def _ends(descriptor: Descriptor) -> str:
    if descriptor.remote is None:
        return descriptor.local or ""
    return (
        f"{descriptor.local} -> {descriptor.remote}"
        if descriptor.local
        else f"-> {descriptor.remote}"
    )


def _tcp(tcp: Tcp) -> list[str]:
    details = [tcp.state]
    if tcp.retransmits:
        how_long = "" if tcp.unacked_s is None else f", {_seconds(tcp.unacked_s)} unacknowledged"
        times = "once" if tcp.retransmits == 1 else f"{tcp.retransmits} times"
        details.append(f"retransmitting ({times}{how_long})")
    if tcp.send_queue:
        details.append(f"{tcp.send_queue} bytes in the send queue")
    if tcp.state in _CONNECTED:
        if tcp.receive_queue is not None:
            details.append(f"{tcp.receive_queue} bytes unread")
        if tcp.received_s is not None:
            details.append(f"last byte {_seconds(tcp.received_s)} ago")
        else:
            details.append("nothing received yet")
    return details


def _path(path: str) -> str:
    return path if len(path) <= _PATH_SHOWN else "..." + path[3 - _PATH_SHOWN :]


def _seconds(seconds: float) -> str:
    return f"{plain_number(seconds)} s" if seconds < 10 else f"{seconds:.0f} s"

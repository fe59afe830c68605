"""What a thread waits for, as a line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog_hook.core.observed import Descriptor, Tcp, Wait
from watchdog_hook.core.waits import descriptor_text, wait_text

SOCKET = Descriptor(
    7,
    "tcp",
    "127.0.0.1:40112",
    "10.0.0.1:443",
    tcp=Tcp("ESTABLISHED", received_s=31.2, receive_queue=0, send_queue=0),
)
PIPE = Descriptor(5, "pipe", holders=("KubernetesJobWatcher, pid 812",))
EVENT = Descriptor(6, "eventfd")


@pytest.mark.parametrize(
    ("wait", "text"),
    [
        (None, ""),
        (
            Wait("recvfrom", descriptors=(SOCKET,)),
            "recvfrom on tcp 127.0.0.1:40112 -> 10.0.0.1:443"
            " (ESTABLISHED, 0 bytes unread, last byte 31 s ago)",
        ),
        (
            Wait("poll", timeout_s=30.0, descriptors=(EVENT, PIPE)),
            "poll for 30 s on 2 descriptors:"
            " eventfd, pipe (other end: KubernetesJobWatcher, pid 812)",
        ),
        (
            Wait("epoll_wait", timeout_s=0.05, descriptors=(EVENT,) * 5, more=3),
            "epoll_wait for 0.1 s on 8 descriptors: eventfd, eventfd, eventfd, eventfd, 4 more",
        ),
        (Wait("futex"), "futex"),
        (Wait("futex", timeout_s=2.54, deadline=True), "futex, 2.5 s left"),
        (Wait("clock_nanosleep", timeout_s=25.0, deadline=True), "clock_nanosleep, 25 s left"),
        (
            Wait("mq_timedreceive", descriptors=(EVENT,), timeout_s=25.0, deadline=True),
            "mq_timedreceive, 25 s left, on eventfd",
        ),
        (
            Wait("read", descriptors=(PIPE,)),
            "read on pipe (other end: KubernetesJobWatcher, pid 812)",
        ),
        (Wait("wait4", child=812), "waits for child 812"),
        (Wait("waitid", child=812, descriptors=(Descriptor(4, "pidfd"),)), "waits for child 812"),
        (Wait("wait4"), "waits for any child"),
        (Wait("waitid", descriptors=(Descriptor(4, "pidfd"),)), "waitid on pidfd"),
        (
            Wait(
                "fsync", descriptors=(Descriptor(9, "file", path="/opt/x", mount="nfs4 on /opt"),)
            ),
            "fsync on file /opt/x (nfs4 on /opt)",
        ),
        (
            Wait("openat", descriptors=(Descriptor(-1, "file", path="/opt/x"),)),
            "openat on /opt/x",
        ),
        (
            Wait("recvfrom", descriptors=(Descriptor(9, "gone"),)),
            "recvfrom on descriptor 9 (closed)",
        ),
        (
            Wait("restart_syscall"),
            "restart_syscall: goes on with a call that a signal interrupted, not known which",
        ),
        (Wait("page fault"), "page fault"),
    ],
)
def test_a_wait_is_one_line(wait, text):
    assert wait_text(wait) == text


@pytest.mark.parametrize(
    ("descriptor", "text"),
    [
        (
            Descriptor(3, "tcp", "[::1]:1", "[::1]:2", tcp=Tcp("SYN_SENT", 1, 3, 3)),
            "tcp [::1]:1 -> [::1]:2 (SYN_SENT, retransmitting (3 times))",
        ),
        (
            Descriptor(
                3,
                "tcp",
                "10.0.0.2:1",
                "10.0.0.1:443",
                "Kubernetes API",
                tcp=Tcp("ESTABLISHED", 2, 3, 9, 0.2, None, 99.0, 512, 0, unacked_s=24.1),
            ),
            "tcp 10.0.0.2:1 -> 10.0.0.1:443, Kubernetes API (ESTABLISHED, retransmitting (3 times,"
            " 24 s unacknowledged), 512 bytes in the send queue, 0 bytes unread, nothing received yet)",
        ),
        (Descriptor(3, "tcp", "127.0.0.1:1", tcp=Tcp("LISTEN")), "tcp 127.0.0.1:1 (LISTEN)"),
        (Descriptor(3, "tcp", "127.0.0.1:1", "127.0.0.1:2"), "tcp 127.0.0.1:1 -> 127.0.0.1:2"),
        (Descriptor(3, "unix", remote="/run/x.sock"), "unix -> /run/x.sock"),
        (Descriptor(3, "unix"), "unix"),
        (Descriptor(3, "device", path="/dev/pts/0"), "device /dev/pts/0"),
        (Descriptor(3, "pidfd", peer="watcher, pid 12"), "pidfd, watcher, pid 12"),
        (
            Descriptor(3, "other", path="anon_inode:[io_uring]"),
            "descriptor 3 anon_inode:[io_uring]",
        ),
        (Descriptor(3, "file", path="/" + "x" * 200), "file ..." + "x" * 117),
        (Descriptor(3, "file", path="/a\nb\x1b"), "file /a b "),
        (
            Descriptor(3, "pipe", holders=tuple("abcdef")),
            "pipe (other end: a; b; c; d; 2 more)",
        ),
    ],
)
def test_a_descriptor_is_said_in_words(descriptor, text):
    assert descriptor_text(descriptor) == text


TEXTS = st.none() | st.text()
NUMBERS = st.none() | st.integers() | st.floats()
ANY_TCP = st.builds(
    Tcp, st.text(), *(st.integers(),) * 3, *(st.none() | st.floats(),) * 3, NUMBERS, NUMBERS
)
ANY_DESCRIPTOR = st.builds(
    Descriptor,
    st.integers(),
    st.sampled_from(["tcp", "pipe", "file", "gone", "other"]) | st.text(),
    *(TEXTS,) * 3,
    st.none() | ANY_TCP,
    *(TEXTS,) * 2,
    st.lists(st.text(), max_size=6).map(tuple),
)
ANY_WAIT = st.builds(
    Wait,
    st.sampled_from(["poll", "wait4", "restart_syscall"]) | st.text(),
    descriptors=st.lists(ANY_DESCRIPTOR, max_size=6).map(tuple),
    more=st.integers(0, 99),
    timeout_s=st.none() | st.floats(),
    deadline=st.booleans(),
    child=st.none() | st.integers(1),
)


@given(ANY_WAIT)
def test_any_wait_is_one_short_line(wait):
    text = wait_text(wait)

    assert len(text) <= 300
    assert text.isprintable()


def test_a_wait_on_many_stays_short():
    text = wait_text(Wait("poll", descriptors=(SOCKET,) * 32, more=900))

    assert text.startswith("poll on 932 descriptors: tcp 127.0.0.1:40112 -> 10.0.0.1:443 (")
    assert len(text) <= 300

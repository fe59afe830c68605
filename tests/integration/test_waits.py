"""What a thread waits on, read of real threads that really wait."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import json
import os
import re
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from watchdog_hook.core.observed import Descriptor, ThreadInKernel, Wait
from watchdog_hook.core.waits import wait_text
from watchdog_hook.evidence import descriptors, kernel, sockets, syscalls, tcp

pytestmark = pytest.mark.linux

VICTIM = Path(__file__).parents[1] / "victims" / "waits.py"
HOUR = 3600
POLL_CALLS, SELECT_CALLS = ("poll", "ppoll"), ("select", "pselect6")
EPOLL_CALLS = ("epoll_wait", "epoll_pwait")


class Waiting:
    """A thread of this process, and a reading of it once it is in one of these system calls."""

    def __init__(
        self,
        target: Callable[[], object],
        *calls: str,
        children: dict[int, str] | None = None,
        until: Callable[[Wait], bool] = lambda _: True,
    ) -> None:
        self.missed: dict[str, str] = {}
        self.thread = threading.Thread(target=self._run, args=(target,), daemon=True)
        self.thread.start()
        while True:
            assert self.thread.is_alive(), "it ended instead of waiting"
            seen = self.look(children or {})
            if seen is None or seen.wait is None or seen.state != "S":
                continue
            if seen.wait.syscall in calls and until(seen.wait):
                break
        self.seen: ThreadInKernel = seen
        self.wait: Wait = seen.wait

    def look(self, children: dict[int, str]) -> ThreadInKernel | None:
        self.missed.clear()
        return kernel.thread_in_kernel(self.thread.native_id or 0, self.missed, children=children)

    @property
    def only(self) -> Descriptor:
        """The one descriptor it waits on."""
        (found,) = self.wait.descriptors
        return found

    def end(self) -> None:
        self.thread.join(20)
        assert not self.thread.is_alive()

    @staticmethod
    def _run(target: Callable[[], object]) -> None:
        with contextlib.suppress(Exception):
            target()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection whose both ends are here."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        ours.settimeout(None)
        theirs, _ = server.accept()
    yield ours, theirs
    for end in (theirs, ours):
        end.close()


@pytest.fixture
def full() -> Iterator[tuple[str, int]]:
    """An address that answers no more connects: its queue of connections to accept is full."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        while True:
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0.2)
            try:
                filler.connect(server.getsockname())
            except TimeoutError:
                break
        yield server.getsockname()


@pytest.fixture
def lossy() -> Iterator[socket.socket]:
    """A connection whose peer drops whatever it is sent."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        # A connection is made only when data comes, and then there is no room for it: the data is dropped.
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, HOUR)
        server.listen(3)
        deferred = stack.enter_context(socket.create_connection(server.getsockname()))
        deferred.settimeout(None)
        for _ in range(4):
            filler = stack.enter_context(socket.create_connection(server.getsockname()))
            filler.sendall(b"x")
            while descriptors.describe(filler.fileno()).tcp.unacked:
                pass
        yield deferred


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for end in (read, write):
        with contextlib.suppress(OSError):
            os.close(end)


@contextlib.contextmanager
def child(
    code: str, *arguments: str, keep: tuple[int, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    """A process that has said that it is there; it ends with its standard input."""
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}\nprint('there', flush=True)\ninput()", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        pass_fds=keep,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        yield process
        process.kill()


def address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"{host}:{port}"


class TestSockets:
    def test_a_recv_on_a_silent_server(self, pair):
        ours, theirs = pair
        waiting = Waiting(lambda: ours.recv(1), "recvfrom")
        found = waiting.only

        assert (found.number, found.kind) == (ours.fileno(), "tcp")
        assert (found.local, found.remote) == (address(ours), address(theirs))
        assert found.tcp.state == "ESTABLISHED"
        assert (found.tcp.received_s, found.tcp.sent_s) == (None, None)
        assert (found.tcp.receive_queue, found.tcp.send_queue) == (0, 0)
        assert (found.tcp.retransmits, found.tcp.unacked_s) == (0, None)
        assert waiting.wait.arguments[0] == ours.fileno()
        assert len(waiting.wait.arguments) == 6
        assert waiting.wait.timeout_s is None
        assert waiting.missed == {}
        assert wait_text(waiting.wait) == (
            f"recvfrom on tcp {address(ours)} -> {address(theirs)}"
            " (ESTABLISHED, 0 bytes unread, nothing received yet)"
        )
        theirs.close()
        waiting.end()

    def test_what_came_and_went_has_an_age(self, pair):
        ours, theirs = pair
        began = time.monotonic()
        theirs.sendall(b"x")
        ours.recv(1)
        ours.sendall(b"y")
        waiting = Waiting(lambda: ours.recv(1), "recvfrom", until=aged)
        age = time.monotonic() - began + 0.1  # the kernel counts in jiffies

        assert 0 < waiting.only.tcp.received_s <= age
        assert 0 < waiting.only.tcp.sent_s <= age
        assert 0 < waiting.only.tcp.acked_s <= age
        theirs.close()
        waiting.end()

    def test_a_recv_with_a_timeout_is_a_poll(self, pair):
        ours, theirs = pair
        ours.settimeout(HOUR)
        waiting = Waiting(lambda: ours.recv(1), *POLL_CALLS)

        assert waiting.only.remote == address(theirs)
        assert waiting.wait.timeout_s == HOUR
        assert not waiting.wait.deadline
        theirs.close()
        waiting.end()

    def test_a_tls_read(self, pair):
        trustme = pytest.importorskip("trustme")
        authority = trustme.CA()
        serving, asking = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
        authority.issue_cert("localhost").configure_cert(serving)
        authority.configure_trust(asking)
        ours, theirs = pair
        shaking = threading.Thread(
            target=lambda: serving.wrap_socket(theirs.dup(), server_side=True).detach()
        )
        shaking.start()
        with asking.wrap_socket(ours, server_hostname="localhost") as secure:
            shaking.join(20)
            waiting = Waiting(lambda: secure.recv(1), "read", "recvfrom")

            assert waiting.only.number == secure.fileno()
            assert waiting.only.remote == address(theirs)
            assert waiting.only.tcp.received_s is not None
            secure.shutdown(socket.SHUT_RDWR)
            waiting.end()

    @pytest.mark.parametrize(
        ("timeout", "calls"), [(None, ("connect",)), (float(HOUR), POLL_CALLS)]
    )
    def test_a_connect_that_nobody_answers(self, full, timeout, calls):
        with socket.socket() as sock:
            sock.settimeout(timeout)
            waiting = Waiting(lambda: sock.connect(full), *calls)
            found = waiting.only

            assert found.tcp.state == "SYN_SENT"
            assert found.remote == f"127.0.0.1:{full[1]}"
            assert (found.tcp.received_s, found.tcp.sent_s, found.tcp.acked_s) == (None,) * 3
            assert f"-> 127.0.0.1:{full[1]} (SYN_SENT" in wait_text(waiting.wait)
            sock.shutdown(socket.SHUT_RDWR)
            waiting.end()

    def test_a_connect_over_ipv6_says_where_to(self):
        with contextlib.ExitStack() as stack:
            try:
                server = socket.create_server(("::1", 0), family=socket.AF_INET6, backlog=0)
            except OSError:
                pytest.skip("no IPv6 here")
            stack.enter_context(server)
            port = server.getsockname()[1]
            for _ in range(8):
                sock = stack.enter_context(socket.socket(socket.AF_INET6))
                sock.setblocking(False)
                sock.connect_ex(("::1", port))
                found = descriptors.describe(sock.fileno())

                assert found.remote == f"[::1]:{port}"
                if found.tcp.state == "SYN_SENT":
                    break
            assert found.tcp.state == "SYN_SENT"

    def test_unread_bytes_are_counted(self, pair):
        ours, theirs = pair
        theirs.sendall(b"x" * 1000)
        while (found := descriptors.describe(ours.fileno())).tcp.receive_queue != 1000:
            pass

        assert "1000 bytes unread" in wait_text(Wait("poll", descriptors=(found,)))
        assert "nothing received yet" not in wait_text(Wait("poll", descriptors=(found,)))

    def test_bytes_that_the_peer_does_not_take_are_counted(self, pair):
        ours, theirs = pair
        waiting = Waiting(lambda: ours.sendall(b"x" * 50_000_000), "sendto")

        assert waiting.only.number == ours.fileno()
        assert waiting.only.tcp.send_queue > 10_000
        assert f"{waiting.only.tcp.send_queue} bytes in the send queue" in wait_text(waiting.wait)
        theirs.close()
        waiting.end()

    def test_a_peer_that_loses_what_it_is_sent_is_sent_it_again_and_again(self, lossy):
        ours = lossy
        began = time.monotonic()
        ours.sendall(b"x" * 500)
        waiting = Waiting(
            lambda: ours.recv(1),
            "recvfrom",
            until=lambda wait: wait.descriptors[0].tcp.retransmits >= 2,
        )
        found, age = waiting.only.tcp, time.monotonic() - began

        # At least both waits of the timer, 0.2 s and 0.4 s, and never more than there was time for.
        assert 0.6 <= found.unacked_s <= age + 0.1
        assert found.unacked >= 1
        assert found.retransmitted >= found.retransmits
        assert found.send_queue == 500
        assert re.search(
            r"retransmitting \(\d times, [\d.]+ s unacknowledged\)", wait_text(waiting.wait)
        )
        ours.shutdown(socket.SHUT_RDWR)
        waiting.end()

    def test_an_accept_listens(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            waiting = Waiting(server.accept, "accept", "accept4")

            assert (waiting.only.tcp.state, waiting.only.tcp.unacked) == ("LISTEN", 0)
            assert wait_text(waiting.wait).endswith(f"on tcp {address(server)} (LISTEN)")
            server.shutdown(socket.SHUT_RDWR)
            waiting.end()

    def test_a_connection_that_waits_to_be_accepted_is_nothing_unacknowledged(self):
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname()),
        ):
            assert descriptors.describe(server.fileno()).tcp.unacked == 0

    def test_a_datagram_and_a_unix_socket(self, tmp_path):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", 53))
            found = descriptors.describe(sock.fileno())
            assert (found.kind, found.local, found.remote) == ("udp", address(sock), "127.0.0.1:53")
            assert found.tcp is None
        name = str(tmp_path / "s")
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as ours:
            server.bind(name)
            server.listen()
            ours.connect(name)
            assert descriptors.describe(ours.fileno()) == Descriptor(
                ours.fileno(), "unix", None, name
            )
            assert descriptors.describe(server.fileno()).local == name
        with socket.socket(socket.AF_UNIX) as abstract:
            abstract.bind("\0watchdog-hook-test")
            assert descriptors.describe(abstract.fileno()).local == "@watchdog-hook-test"
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as netlink:
            assert descriptors.describe(netlink.fileno()).kind == "netlink"

    def test_a_close_that_lingers_is_about_no_descriptor_that_is_open(self, pair, pipe):
        ours, theirs = pair
        ours.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(b"x" * 100_000)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, HOUR))
        ours.setblocking(True)
        number = ours.fileno()
        waiting = Waiting(ours.close, "close")

        assert waiting.only == Descriptor(number, "gone")
        os.dup2(pipe[0], number)  # anybody may have the number now
        assert waiting.look({}).wait.descriptors == (Descriptor(number, "gone"),)
        os.close(number)
        drop = threading.Thread(
            target=lambda: [None for _ in iter(lambda: theirs.recv(1 << 20), b"")]
        )
        drop.start()
        waiting.end()
        drop.join(20)


def aged(wait: Wait) -> bool:
    """Say whether some time has passed on the connection that is waited on."""
    found = wait.descriptors[0].tcp
    return bool(found and found.received_s and found.sent_s and found.acked_s)


class TestSets:
    def test_a_poll_with_two_sockets(self, pair):
        ours, theirs = pair
        poll = select.poll()
        poll.register(ours, select.POLLIN)
        poll.register(theirs, select.POLLIN)
        waiting = Waiting(lambda: poll.poll(HOUR * 1000), *POLL_CALLS)

        assert [found.number for found in waiting.wait.descriptors] == [
            ours.fileno(),
            theirs.fileno(),
        ]
        assert [found.remote for found in waiting.wait.descriptors] == [
            address(theirs),
            address(ours),
        ]
        assert (waiting.wait.timeout_s, waiting.wait.more) == (HOUR, 0)
        assert wait_text(waiting.wait).startswith(
            f"{waiting.wait.syscall} for 3600 s on 2 descriptors"
        )
        ours.sendall(b"x")
        waiting.end()

    def test_a_select(self, pair):
        ours, theirs = pair
        waiting = Waiting(lambda: select.select([ours], [], [theirs], HOUR), *SELECT_CALLS)

        assert {found.number for found in waiting.wait.descriptors} == {
            ours.fileno(),
            theirs.fileno(),
        }
        assert waiting.wait.timeout_s == HOUR
        theirs.sendall(b"x")
        waiting.end()

    def test_a_select_of_old(self, pipe):
        number = next((n for n, name in table().items() if name == "select"), None)
        if number is None:
            pytest.skip("this machine has pselect6 only")
        libc, (read, write) = ctypes.CDLL(None), pipe
        wanted = (1 << read).to_bytes(128, "little")
        timeval = struct.pack("=qq", HOUR, 500_000)
        waiting = Waiting(
            lambda: libc.syscall(number, read + 1, wanted, None, None, timeval), "select"
        )

        assert waiting.only.number == read
        assert waiting.wait.timeout_s == HOUR + 0.5
        os.write(write, b"x")
        waiting.end()

    def test_an_epoll_waits_for_its_set(self, pair):
        ours, theirs = pair
        event = os.eventfd(0)
        with select.epoll() as epoll:
            for fd in (ours.fileno(), event):
                epoll.register(fd, select.EPOLLIN)
            waiting = Waiting(lambda: epoll.poll(HOUR), *EPOLL_CALLS)

            kinds = {found.number: found.kind for found in waiting.wait.descriptors}
            assert kinds == {ours.fileno(): "tcp", event: "eventfd"}
            assert waiting.wait.timeout_s == HOUR
            theirs.sendall(b"x")
            waiting.end()
            assert descriptors.describe(epoll.fileno()).kind == "epoll"
        os.close(event)

    def test_a_number_in_an_epoll_that_means_something_else_now_is_left_out(self, pair, pipe):
        ours, _ = pair
        with select.epoll() as epoll:
            epoll.register(ours, select.EPOLLIN)
            number = ours.fileno()
            with ours.dup():  # keeps it in the set
                ours.detach()
                os.dup2(pipe[0], number)

                assert descriptors.in_epoll(epoll.fileno()) == []
            os.close(number)

    def test_of_a_large_set_32_are_described_and_the_rest_is_counted(self):
        with contextlib.ExitStack() as stack:
            poll = select.poll()
            ends = [end for _ in range(20) for end in socket.socketpair()]
            for end in ends:
                poll.register(stack.enter_context(end), select.POLLIN)
            waiting = Waiting(poll.poll, *POLL_CALLS)

            assert len(waiting.wait.descriptors) == 32
            assert waiting.wait.more == 8
            assert waiting.wait.timeout_s is None
            assert "on 40 descriptors: " in wait_text(waiting.wait)
            ends[0].sendall(b"x")
            waiting.end()


class TestPipes:
    def test_a_pipe_whose_other_end_a_child_holds(self, pipe):
        read, write = pipe
        with child("", keep=(write,)) as holder, child("", keep=(read,)) as reader:
            os.close(write)
            children = {holder.pid: "KubernetesJobWatcher", reader.pid: "another"}
            waiting = Waiting(lambda: os.read(read, 1), "read", children=children)

            assert waiting.only.kind == "pipe"
            assert waiting.only.holders == (f"KubernetesJobWatcher, pid {holder.pid}",)
            assert wait_text(waiting.wait) == (
                f"read on pipe (other end: KubernetesJobWatcher, pid {holder.pid})"
            )
            assert waiting.missed == {}
            holder.kill()
            waiting.end()

    def test_a_pipe_that_nobody_but_we_hold_says_so(self, pipe):
        read, write = pipe
        with child("") as other:
            waiting = Waiting(lambda: os.read(read, 1), "read", children={other.pid: "other"})

            assert waiting.only.holders == ("this process",)
        os.close(write)
        waiting.end()

    def test_a_full_pipe_waits_for_its_reader(self, pipe):
        read, write = pipe
        with child("", keep=(read,)) as reader:
            os.close(read)
            waiting = Waiting(
                lambda: os.write(write, b"x" * 1_000_000), "write", children={reader.pid: "reader"}
            )

            assert waiting.only.holders == (f"reader, pid {reader.pid}",)
            reader.kill()
            waiting.end()

    def test_a_child_that_has_ended_is_no_gap(self, pipe):
        read, _ = pipe
        with child("") as ended:
            pass
        missed: dict[str, str] = {}
        descriptors.describe(read, children={ended.pid: "ended"}, missed=missed)

        assert missed == {}

    def test_a_fifo_and_its_opening(self, tmp_path):
        path = tmp_path / "fifo"
        os.mkfifo(path)
        opening = Waiting(lambda: os.open(path, os.O_RDONLY), "open", "openat")
        assert (opening.only.number, opening.only.path) == (-1, str(path))
        assert wait_text(opening.wait) == f"{opening.wait.syscall} on {path}"

        both = os.open(path, os.O_RDWR)
        opening.end()
        reading = Waiting(lambda: os.read(both, 1), "read")
        assert (reading.only.kind, reading.only.path) == ("pipe", str(path))
        assert reading.only.holders == ("this process",)
        os.write(both, b"x")
        reading.end()
        os.close(both)


class TestProcesses:
    def test_a_waitpid_names_the_child(self):
        with child("") as process:
            waiting = Waiting(lambda: os.waitpid(process.pid, 0), "wait4")

            assert waiting.wait.child == process.pid
            assert wait_text(waiting.wait) == f"waits for child {process.pid}"
            process.kill()
            waiting.end()
            process.returncode = 0  # it has been waited for

    def test_a_wait_for_any_child_names_none(self):
        with child("") as process:
            waiting = Waiting(lambda: os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT), "waitid")

            assert waiting.wait.child is None
            assert wait_text(waiting.wait) == "waits for any child"
            process.kill()
            waiting.end()

    @pytest.mark.parametrize("kind", ["P_PID", "P_PIDFD"])
    def test_a_waitid_names_the_child(self, kind):
        with child("") as process:
            pidfd = os.pidfd_open(process.pid)
            number = pidfd if kind == "P_PIDFD" else process.pid
            waiting = Waiting(
                lambda: os.waitid(getattr(os, kind), number, os.WEXITED | os.WNOWAIT), "waitid"
            )

            assert waiting.wait.child == process.pid
            process.kill()
            waiting.end()
            os.close(pidfd)

    def test_a_pidfd_names_its_process(self):
        with child("") as process:
            pidfd = os.pidfd_open(process.pid)
            found = descriptors.describe(pidfd, children={process.pid: "watcher"})

            assert (found.kind, found.peer) == ("pidfd", f"watcher, pid {process.pid}")
            os.close(pidfd)


class TestOtherThings:
    def test_a_lock_is_a_futex(self):
        lock = threading.Lock()
        lock.acquire()
        waiting = Waiting(lock.acquire, "futex")

        assert waiting.wait.descriptors == ()
        assert waiting.wait.arguments[0] > 4096
        assert waiting.wait.timeout_s is None
        assert wait_text(waiting.wait) == "futex"
        lock.release()
        waiting.end()

    def test_a_lock_with_a_timeout_says_what_is_left(self):
        lock = threading.Lock()
        lock.acquire()
        waiting = Waiting(lambda: lock.acquire(timeout=HOUR), "futex")

        assert HOUR - 60 < waiting.wait.timeout_s <= HOUR
        assert waiting.wait.deadline
        lock.release()
        waiting.end()

    def test_a_semaphore_that_is_timed_by_the_wall_clock(self):
        libc, semaphore = ctypes.CDLL(None), ctypes.create_string_buffer(64)
        until = struct.pack("=qq", int(time.time()) + HOUR, 0)
        libc.sem_init(semaphore, 0, 0)
        waiting = Waiting(lambda: libc.sem_timedwait(semaphore, until), "futex")

        assert HOUR - 60 < waiting.wait.timeout_s <= HOUR
        assert waiting.wait.deadline
        libc.sem_post(semaphore)
        waiting.end()

    def test_a_sleep(self):
        thread = Waiting(lambda: time.sleep(HOUR), "clock_nanosleep", *SELECT_CALLS)

        assert HOUR - 60 < thread.wait.timeout_s <= HOUR
        assert thread.wait.deadline == (thread.wait.syscall == "clock_nanosleep")
        assert thread.wait.descriptors == ()

    def test_a_lock_on_a_file(self, tmp_path):
        path = tmp_path / "locked"
        path.touch()
        holding = "import fcntl, sys\nfile = open(sys.argv[1])\nfcntl.flock(file, fcntl.LOCK_EX)"
        with child(holding, str(path)) as holder, path.open() as file:
            waiting = Waiting(lambda: fcntl.flock(file, fcntl.LOCK_EX), "flock")

            assert (waiting.only.kind, waiting.only.path) == ("file", str(path))
            assert waiting.only.mount == mount_of(path)
            owner = f"{Path(f'/proc/{holder.pid}/comm').read_text().strip()}, pid {holder.pid}"
            assert waiting.only.holders == (owner,)
            place = f"{path} ({mount_of(path)}, lock held by {owner})"
            assert wait_text(waiting.wait) == f"flock on file {place}"
            holder.kill()
            waiting.end()

    def test_an_eventfd(self):
        event = os.eventfd(0)
        waiting = Waiting(lambda: os.eventfd_read(event), "read")

        assert waiting.only == Descriptor(event, "eventfd")
        os.eventfd_write(event, 1)
        waiting.end()
        os.close(event)

    def test_a_timerfd(self):
        timer = ctypes.CDLL(None).timerfd_create(time.CLOCK_MONOTONIC, 0)
        setting = struct.pack("=qqqq", 0, 0, HOUR, 0)
        ctypes.CDLL(None).timerfd_settime(timer, 0, setting, None)
        waiting = Waiting(lambda: os.read(timer, 8), "read")

        assert waiting.only == Descriptor(timer, "timerfd")
        at_once = struct.pack("=qqqq", 0, 0, 0, 1)
        ctypes.CDLL(None).timerfd_settime(timer, 0, at_once, None)
        waiting.end()
        os.close(timer)

    def test_a_terminal_is_a_device(self):
        master, slave = os.openpty()
        waiting = Waiting(lambda: os.read(slave, 1), "read")

        assert waiting.only == Descriptor(slave, "device", path=os.ttyname(slave))
        os.write(master, b"x\n")
        waiting.end()
        os.close(master)
        os.close(slave)

    def test_a_file_that_is_deleted_and_one_in_memory(self, tmp_path):
        with (tmp_path / "file").open("w") as file:
            (tmp_path / "file").unlink()
            found = descriptors.describe(file.fileno())
            assert (found.kind, found.path) == ("file", f"{tmp_path}/file (deleted)")
        memory = os.memfd_create("x")
        assert descriptors.describe(memory).kind == "file"
        os.close(memory)

    def test_what_is_no_descriptor_is_gone(self):
        for number in (-1, 10**6, 2**40):
            assert descriptors.describe(number) == Descriptor(number, "gone")

    def test_a_path_leads_through_a_mount(self):
        describer = descriptors.Describer({}, {})

        assert describer.named("/proc/self/status").mount == "proc on /proc"
        assert describer.named("/procession").mount is None
        assert describer.named("/proc/../etc").mount is None, "it leads out again"


def mount_of(path: Path) -> str:
    """Return where a path is mounted, in the words of another."""
    point = next(str(parent) for parent in path.parents if parent.is_mount())
    types = [part.fstype for part in psutil.disk_partitions(all=True) if part.mountpoint == point]
    return f"{types[-1]} on {point}"


class TestThreads:
    def test_a_thread_has_counters(self, pair):
        ours, theirs = pair
        waiting = Waiting(lambda: (sum(range(3_000_000)), ours.recv(1)), "recvfrom")
        seen = waiting.seen

        assert seen.native_id == waiting.thread.native_id
        assert seen.voluntary >= 1
        assert seen.involuntary >= 0
        assert 0 < seen.cpu_s < 60
        assert seen.voluntary == kernel.voluntary_switches(seen.native_id, {})
        theirs.close()
        waiting.end()

    def test_a_thread_that_runs_waits_for_nothing(self):
        done = False

        def spin() -> None:
            while not done:
                pass

        spinning = threading.Thread(target=spin)
        spinning.start()
        # It lets go of the interpreter now and then, which is a wait: so ask until it is seen to run.
        while True:
            found = kernel.thread_in_kernel(spinning.native_id or 0, {})
            if found is not None and found.state == "R" and found.wait is None:
                break
        done = True
        spinning.join(20)

    def test_a_thread_that_has_ended_is_none_and_no_gap(self):
        thread = threading.Thread(target=bool)
        thread.start()
        thread.join(20)
        missed: dict[str, str] = {}

        while kernel.thread_in_kernel(thread.native_id or 0, missed) is not None:
            pass  # it may be on its way out

        assert missed == {}

    def test_a_call_that_goes_on_after_a_stop_is_known_by_its_wait(self):
        with victim("stopped") as process:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            process.send_signal(signal.SIGCONT)
            out, _ = process.communicate("\n", timeout=30)
        said = json.loads(out)

        restart = {number for number, name in table().items() if name == "restart_syscall"}
        assert int(said["missed"]["number"]) in restart
        if said["seen"]["wchan"] is None:
            assert said["seen"]["wait"]["syscall"] == "restart_syscall"
        else:
            assert said["seen"]["wait"]["syscall"] == "poll"
            (found,) = said["seen"]["wait"]["descriptors"]
            assert (found["kind"], str(found["number"])) == ("unix", said["missed"]["socket"])

    def test_a_call_of_which_nothing_is_known_but_that_it_goes_on(self, pair, monkeypatch):
        ours, theirs = pair
        waiting = Waiting(lambda: ours.recv(1), "recvfrom")
        recvfrom = next(number for number, name in table().items() if name == "recvfrom")
        monkeypatch.setitem(table(), recvfrom, "restart_syscall")

        assert waiting.look({}).wait.syscall == "restart_syscall"
        assert waiting.look({}).wait.descriptors == ()
        theirs.close()
        waiting.end()

    def test_a_page_that_does_not_come_is_a_page_fault(self):
        with victim("page_fault") as process:
            said = json.loads(process.communicate(timeout=30)[0])
        if "refused" in said:
            pytest.skip(f"userfaultfd: {said['refused']}")

        assert said["text"] == "page fault"
        assert said["seen"]["wait"]["arguments"] == []


class TestGaps:
    def test_a_process_that_is_not_dumpable_says_why(self):
        with victim("undumpable") as process:
            out, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
        said = json.loads(out)
        if "refused" in said:
            pytest.skip(f"root that cannot become anybody else: {said['refused']}")

        assert said["seen"]["state"] == "S"
        assert said["seen"]["wait"] is None
        assert said["seen"]["voluntary"] >= 1
        assert said["missed"]["system calls of threads"] == (
            "Permission denied: this process is not dumpable"
        )

    def test_an_unknown_machine_gives_numbers(self, pair, monkeypatch):
        ours, theirs = pair
        waiting = Waiting(lambda: ours.recv(1), "recvfrom")
        number = next(number for number, name in table().items() if name == "recvfrom")
        monkeypatch.setattr(syscalls, "MACHINE", "riscv64")
        seen = waiting.look({})

        assert seen.wait.syscall == f"system call {number}"
        assert seen.wait.arguments == waiting.wait.arguments
        assert seen.state == "S"
        assert waiting.missed == {"system calls of threads": "unknown machine riscv64"}
        assert kernel.descriptor_waited_for(seen.native_id, {}) is None
        theirs.close()
        waiting.end()

    def test_without_tcp_info_the_ends_are_left(self, pair, monkeypatch):
        ours, theirs = pair
        monkeypatch.setattr(tcp, "_TCP_INFO", None)
        missed: dict[str, str] = {}
        found = descriptors.describe(ours.fileno(), missed=missed)

        assert (found.kind, found.remote, found.tcp) == ("tcp", address(theirs), None)
        assert missed == {"TCP_INFO": "not known to this Python"}
        assert sockets.received_ago(ours.fileno()) is None

    def test_an_address_that_is_not_mapped_costs_only_what_lies_there(self, monkeypatch):
        monkeypatch.setattr(
            kernel, "_words", lambda _: [b"7", b"0x10", b"0x2", b"0x3e8", *(b"0x0",) * 5]
        )
        monkeypatch.setattr(syscalls, "MACHINE", "x86_64")
        missed: dict[str, str] = {}
        seen = kernel.thread_in_kernel(threading.get_native_id(), missed)

        assert (seen.wait.syscall, seen.wait.timeout_s) == ("poll", 1.0)
        assert seen.wait.descriptors == ()
        assert list(missed) == ["what system calls wait for"]

    def test_a_thread_that_moves_on_all_the_time_keeps_only_the_name_of_its_call(self, monkeypatch):
        turns = iter(range(100))
        monkeypatch.setattr(
            kernel, "_words", lambda _: [b"0", b"0x0", *(b"0x%x" % next(turns),) * 7]
        )
        monkeypatch.setattr(syscalls, "MACHINE", "x86_64")
        seen = kernel.thread_in_kernel(threading.get_native_id(), {})

        assert seen.wait.syscall == "read"
        assert seen.wait.descriptors == ()


class TestHarmless:
    def test_a_look_leaves_descriptors_and_flags_alone(self, pair, pipe, tmp_path):
        ours, _ = pair
        blocking = [ours.fileno(), *pipe]
        with (tmp_path / "file").open("w") as file:
            gc.collect()  # what others have left open
            before = {*os.listdir("/proc/self/fd")}
            socket.setdefaulttimeout(5)
            try:
                for fd in (*blocking, file.fileno(), 0, -1):
                    descriptors.describe(fd)
            finally:
                socket.setdefaulttimeout(None)

            after = {*os.listdir("/proc/self/fd")}
            assert {*map(str, (*blocking, file.fileno()))} <= after <= before
            assert all(os.get_blocking(fd) for fd in blocking)

    @pytest.mark.parametrize(
        "look", [sockets.is_stream, sockets.peer_of, sockets.received_ago, descriptors.describe]
    )
    def test_a_look_at_a_file_keeps_the_locks_on_it(self, tmp_path, look):
        """To close any duplicate of a descriptor would drop them: sqlite's, for one."""
        path = tmp_path / "database"
        asking = (
            "import fcntl, sys\nfile = open(sys.argv[1], 'r+')\n"
            "fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)"
        )
        with path.open("w") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            look(file.fileno())
            asked = subprocess.run(
                [sys.executable, "-c", asking, str(path)],
                capture_output=True,
                text=True,
                check=False,
            )

        assert "BlockingIOError" in asked.stderr


class TestNumbers:
    """Against the headers of the system, which hold both lists."""

    @pytest.mark.parametrize(
        ("machine", "header"),
        [
            ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
            ("aarch64", "/usr/include/asm-generic/unistd.h"),
        ],
    )
    def test_the_numbers_are_those_of_the_kernel(self, machine, header):
        if not Path(header).exists():
            pytest.skip(f"no {header}")
        defined = re.findall(
            r"#define __NR(?:3264)?_(\w+)\s+(\d+)\s*$", Path(header).read_text(), re.M
        )
        theirs = {int(number): name for name, number in defined}
        theirs[79] = "newfstatat" if machine == "aarch64" else theirs[79]
        newest = max(theirs)
        ours = {n: name for n, name in syscalls.NAMES[machine].items() if n <= newest}

        assert len(ours) > 100
        assert ours == {number: theirs.get(number) for number in ours}

    def test_every_rule_is_about_a_call_that_has_a_number(self):
        known = {name for names in syscalls.NAMES.values() for name in names.values()}
        rules = (
            *(syscalls.DESCRIPTORS, syscalls.PATHS, syscalls.MILLISECONDS, syscalls.DURATIONS),
            *(syscalls.MOMENTS, syscalls.POLLS, syscalls.SELECTS, syscalls.EPOLLS),
        )

        assert {name for rule in rules for name in rule} <= known


def table() -> dict[int, str]:
    return syscalls.NAMES[syscalls.MACHINE]


def victim(kind: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(VICTIM), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )

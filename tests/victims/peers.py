"""
What a victim waits for: servers that fall silent, run as a process beside it that is none of its children.

    python -m tests.victims.peers KIND '{"argument": 1}'

Prints a line of JSON when it is ready, then takes commands, a line of JSON each, and answers each with one. Ends
with its standard input.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import Any

SO_ATTACH_FILTER = 26
LONGEST = 150  # seconds that a peer lives at most


class Remote:
    """The victim's side: a running peer. `info` is what it said when it was ready."""

    def __init__(self, kind: str, **arguments: Any) -> None:
        # Forked off, so that it is not among the children that evidence shows.
        command = [sys.executable, "-m", "tests.victims.peers", kind, json.dumps(arguments)]
        with subprocess.Popen(
            ["setsid", "--fork", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as launcher:
            assert launcher.stdin is not None
            assert launcher.stdout is not None
            self._in = os.fdopen(os.dup(launcher.stdin.fileno()), "w")
            self._out = os.fdopen(os.dup(launcher.stdout.fileno()))
        self.info = self._answer()

    def do(self, command: str, *arguments: Any) -> Any:
        """Have the peer do something, and return once it has."""
        self._in.write(json.dumps([command, *arguments]) + "\n")
        self._in.flush()
        return self._answer()

    def close(self) -> None:
        """Have the peer end."""
        self._in.close()

    def _answer(self) -> Any:
        line = self._out.readline()
        if not line:
            raise RuntimeError("the peer has ended")
        return json.loads(line)


def lose(sock: socket.socket) -> None:
    """Have the kernel drop whatever comes in for this socket: to the other end, its machine is gone."""
    code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))  # ret 0: keep no byte of it
    program = struct.pack("HxxxxxxP", 1, ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


class Way:
    """A TCP port that leads to another: until it is lost."""

    def __init__(self, address: tuple[str, int], to: tuple[str, int]) -> None:
        self._to = to
        self._server = socket.create_server(address)
        self._sockets = [self._server]
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self) -> None:
        """Acknowledge nothing any more, old connections or new."""
        time.sleep(0.2)  # for what is under way to be acknowledged: else both ends send again
        for sock in self._sockets:
            lose(sock)

    def _accept(self) -> None:
        while True:
            near, _ = self._server.accept()
            self._sockets.append(near)
            far = socket.create_connection(self._to)
            threading.Thread(target=_pump, args=(near, far), daemon=True).start()
            threading.Thread(target=_pump, args=(far, near), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


class Peer:
    """What every peer is: `info` for the victim, and its public methods as commands."""

    info: Any = None

    def close(self) -> None:
        """Leave nothing behind."""


class Kube(Peer):
    """The Kubernetes API of the tests, at the end of a way that can be lost."""

    def __init__(self, port: int = 6443) -> None:
        from tests.fakes.kube_api import KubeApi

        self._api = KubeApi()
        self._api.__enter__()
        self._way = Way(("127.0.0.1", port), ("127.0.0.1", self._api.port))
        config = self._api.kubeconfig
        text = config.read_text(encoding="utf-8")
        config.write_text(text.replace(f":{self._api.port}", f":{port}"), encoding="utf-8")
        self.info = {"kubeconfig": str(config), "token": self._api.token}

    def fault(self, name: str, on: str, **options: Any) -> None:
        """Set a fault."""
        from tests.fakes.kube_api import Fault

        self._api.set_fault(Fault[name], on=on, **options)

    def orphan(self, task: str) -> None:
        """Have a pod that can be listed."""
        from tests.e2e.in_process import orphan

        orphan(self._api, task)

    def lose(self) -> None:
        """Be gone."""
        self._way.lose()

    def close(self) -> None:
        """End every fault and every thread."""
        self._api.__exit__(None, None, None)


class Tcp(Peer):
    """A TCP server that takes connections and plays one of these parts: mute, deaf, redis, amqp, tls."""

    def __init__(self, part: str = "mute", port: int = 0, host: str = "127.0.0.1") -> None:
        self._part = part
        self._server = socket.socket()
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Small: a sender is soon stopped by it. Before listen(), for the connections to have it.
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._server.bind((host, port))
        self._server.listen()
        self._open: list[socket.socket] = []
        self._silent = threading.Event()
        self._unheard = threading.Event()
        self.info = {"host": host, "port": self._server.getsockname()[1]}
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self) -> None:
        """Read on and answer nothing."""
        self._silent.set()

    def deafen(self) -> None:
        """Read nothing any more."""
        self._unheard.set()

    def lose(self) -> None:
        """Be gone."""
        for sock in (self._server, *self._open):
            lose(sock)

    def _accept(self) -> None:
        while True:
            client, _ = self._server.accept()
            self._open.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self._part == "deaf":
            return
        with contextlib.suppress(OSError):
            if self._part == "amqp":
                self._amqp(client)
            while not self._unheard.is_set():
                # Not a plain recv(): deaf means that not one more byte is taken.
                if not select.select([client], [], [], 0.05)[0] or self._unheard.is_set():
                    continue
                data = client.recv(65536)
                if not data:
                    return
                if self._part == "redis" and not self._silent.is_set():
                    client.sendall(_redis_answers(data))

    def _amqp(self, client: socket.socket) -> None:
        """Play RabbitMQ until a channel is open."""
        client.recv(8)
        start = struct.pack(">HHBBI", 10, 10, 0, 9, 0) + _long(b"PLAIN AMQPLAIN") + _long(b"en_US")
        client.sendall(_frame(0, start))
        client.recv(65536)  # Start-Ok
        client.sendall(_frame(0, struct.pack(">HHHIH", 10, 30, 0, 131072, 0)))
        waiting = b""
        while b"\x00\x0a\x00\x28" not in waiting:  # Tune-Ok, then Open
            waiting += client.recv(65536)
        client.sendall(_frame(0, struct.pack(">HHB", 10, 41, 0)))
        channel = struct.unpack(">BHI", client.recv(65536)[:7])[1]
        client.sendall(_frame(channel, struct.pack(">HHI", 20, 11, 0)))


def _redis_answers(data: bytes) -> bytes:
    """Return an answer to each command: nothing is stored."""
    answers: list[bytes] = []
    queued: int | None = None  # commands of a transaction
    for command in data.split(b"*")[1:]:
        words = command.split(b"\r\n")[2::2]
        name = words[0].upper() if words else b""
        if name == b"MULTI":
            queued = 0
        if name == b"EXEC":
            answers.append(b"*%d\r\n" % (queued or 0) + b":1\r\n" * (queued or 0))
            queued = None
        elif queued is not None and name != b"MULTI":
            queued += 1
            answers.append(b"+QUEUED\r\n")
        else:
            known = {
                b"HELLO": b"%1\r\n$5\r\nproto\r\n:3\r\n",
                b"LPUSH": b":1\r\n",
                b"PING": b"+PONG\r\n",
            }
            answers.append(known.get(name, b"+OK\r\n"))
    return b"".join(answers)


def _frame(channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", 1, channel, len(payload)) + payload + b"\xce"


def _long(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


class Names(Peer):
    """A name server that reads every question and answers none."""

    def __init__(self, host: str = "127.0.0.53") -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, 53))
        self.info = {"host": host}


class Locker(Peer):
    """Holds the lock of a file, as flock() or fcntl() know it."""

    def __init__(self, path: str, by: str) -> None:
        import fcntl

        self._file = open(path, "a+b")  # noqa: SIM115 - for as long as this process lives
        (fcntl.flock if by == "flock" else fcntl.lockf)(self._file, fcntl.LOCK_EX)


class Sqlite(Peer):
    """Holds the lock of an SQLite database, in a transaction that it does not end."""

    def __init__(self, path: str) -> None:
        import sqlite3

        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("begin exclusive")


def main() -> None:
    """Be one peer until standard input ends."""
    from tests.victims import frozen_files, postgres

    kinds = {
        "kube": Kube,
        "tcp": Tcp,
        "names": Names,
        "locker": Locker,
        "sqlite": Sqlite,
        "postgres": postgres.Database,
        "files": frozen_files.Files,
        "frozen": frozen_files.Frozen,
    }
    peer = kinds[sys.argv[1]](**json.loads(sys.argv[2]))
    # Whoever waits for us in the kernel cannot be ended, and so never ends our input.
    threading.Timer(LONGEST, lambda: (peer.close(), os._exit(1))).start()
    try:
        print(json.dumps(peer.info), flush=True)
        for line in sys.stdin:
            command, *arguments = json.loads(line)
            options = arguments.pop() if arguments and isinstance(arguments[-1], dict) else {}
            print(json.dumps(getattr(peer, command)(*arguments, **options)), flush=True)
    finally:
        peer.close()
        os._exit(0)  # its threads serve for ever


if __name__ == "__main__":
    main()

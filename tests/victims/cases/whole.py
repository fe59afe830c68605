"""The processor, the memory, the network as such, and what no rule knows."""

from __future__ import annotations

import ctypes
import os
import re
import socket
import ssl
import subprocess
import threading
import time
import zlib
from pathlib import Path

from tests.victims.stage import HEARTBEAT, QUICK, Stage, case, connected, patiently
from watchdog_hook import Config, Watchdog
from watchdog_hook.sentinel.pulse import REQUEST, STATE

PHASE = "scheduling"
CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000


def resolve_at(stage: Stage, nameserver: str) -> None:
    """Give this process an /etc/resolv.conf of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    mine = stage.folder / "resolv.conf"
    mine.write_text(f"nameserver {nameserver}\noptions timeout:30 attempts:5\n")
    for done in (
        libc.unshare(CLONE_NEWNS),
        libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None),
        libc.mount(str(mine).encode(), b"/etc/resolv.conf", None, MS_BIND, None),
    ):
        if done:
            raise OSError(ctypes.get_errno(), "a mount namespace")


@case("name-service")
def names(stage: Stage) -> None:
    from tests.victims.cases.kubernetes import client, pods

    resolve_at(stage, stage.peer("names").info["host"])
    remote = stage.peer("kube")
    config = Path(remote.info["kubeconfig"])
    config.write_text(config.read_text().replace("127.0.0.1", "kubernetes.default.svc"))
    with stage.watched(HEARTBEAT) as dog:
        core = client(remote, dog)
        dog.beat()
        pods(core)


@case("not-name-service--resolved")
def resolved(stage: Stage) -> None:
    """A name, from /etc/hosts; the connection is what does not answer."""
    remote = stage.peer("tcp")
    with stage.watched(PHASE), connected("localhost", remote.info["port"]) as sock:
        sock.recv(1)


@case("processor-loop")
def loop(stage: Stage) -> None:
    done = False
    with stage.watched(PHASE):
        while not done:
            pass


@case("processor-loop--compresses")
def compresses(stage: Stage) -> None:
    """One call into C that lets the interpreter go."""
    data = os.urandom(1 << 24) * 16
    with stage.watched(PHASE):
        zlib.compress(data, 9)


@case("interpreter-held")
def held(stage: Stage) -> None:
    """One call after the other into C that does not let the interpreter go, and sleeps."""
    libc = ctypes.PyDLL(None)
    with stage.watched(PHASE):
        while True:
            libc.usleep(4_000_000)


@case("interpreter-held--backtracks")
def backtracks(stage: Stage) -> None:
    """A regular expression that takes ever longer for each letter."""
    expression, letters, took = re.compile(r"(a|aa)+$"), "a" * 20, 0.0
    while took < 3:
        letters += "a"
        begun = time.monotonic()
        expression.match(letters + "b")
        took = time.monotonic() - begun
    with stage.watched(PHASE):
        while True:
            expression.match(letters + "b")


@case("not-interpreter-held--stopped")
def stopped(stage: Stage) -> None:
    """The whole process does not run for a while."""
    command = f"kill -STOP {os.getpid()}; sleep 4; kill -CONT {os.getpid()}"
    with stage.watched(PHASE):
        subprocess.Popen(["sh", "-c", command])
        threading.Event().wait()


@case("slow--computes")
def computes(stage: Stage) -> None:
    """A loop that calls functions, and never ends: it is seen to move."""

    def step(number: int) -> int:
        return sum(divmod(number, 7))

    with stage.watched(PHASE, dump_after=0.6):
        number = 1
        while True:
            number += step(number) % 2


@case("not-processor-loop--polls")
def polls(stage: Stage) -> None:
    """It wakes all the time, and sleeps almost all of it."""
    event = threading.Event()
    with stage.watched(PHASE, dump_after=0.6):
        while not event.wait(0.01):
            pass


@case("sleep")
def pauses(stage: Stage) -> None:
    with stage.watched(PHASE):
        time.sleep(3600)


@case("not-sleep--event")
def waits_for_event(stage: Stage) -> None:
    """With a time limit, and for something: whoever sets the event ends the wait."""
    with stage.watched(PHASE):
        threading.Event().wait(3600)


@case("not-slow--one-long-call")
def one_long_call(stage: Stage) -> None:
    """Nothing moves from look to look."""
    from tests.victims.cases.kubernetes import client, pods

    remote = stage.peer("kube")
    remote.do("fault", "SLOW", "list", {"seconds": 60})
    with stage.watched(HEARTBEAT) as dog:
        core = client(remote, dog)
        dog.beat()
        pods(core)


@case("connect")
def connects(stage: Stage) -> None:
    remote = stage.peer("tcp")
    remote.do("lose")
    with stage.watched(PHASE, dump_after=4):
        connected(remote.info["host"], remote.info["port"])


@case("tls-handshake")
def handshake(stage: Stage) -> None:
    remote = stage.peer("tcp")
    with stage.watched(PHASE), connected(remote.info["host"], remote.info["port"]) as sock:
        ssl.create_default_context().wrap_socket(sock, server_hostname="vault.example")


@case("socket")
def reads(stage: Stage) -> None:
    remote = stage.peer("tcp")
    with stage.watched(PHASE), connected(remote.info["host"], remote.info["port"]) as sock:
        sock.sendall(b"a question")
        sock.recv(1)


@case("socket--sends")
def sends(stage: Stage) -> None:
    remote = stage.peer("tcp", part="deaf")
    with stage.watched(PHASE), connected(remote.info["host"], remote.info["port"]) as sock:
        sock.sendall(b"x" * 20_000_000)


@case("socket--http")
def http(stage: Stage) -> None:
    import requests

    remote = stage.peer("tcp")
    with stage.watched(PHASE):
        requests.get(f"http://{remote.info['host']}:{remote.info['port']}/", timeout=None)


@case("not-connect--accepted")
@case("not-tls-handshake--none-begun")
def accepted(stage: Stage) -> None:
    """A connection in the clear to whom accepts it: there was never a handshake."""
    remote = stage.peer("tcp", part="deaf")
    with stage.watched(PHASE), connected(remote.info["host"], remote.info["port"]) as sock:
        sock.recv(1)


@case("unknown")
def unknown(stage: Stage) -> None:
    """An event that nobody sets."""
    with stage.watched(PHASE):
        threading.Event().wait()


@case("not-socket--listens")
def listens(stage: Stage) -> None:
    """Nobody comes: there is no connection, and no peer."""
    with stage.watched(PHASE), socket.create_server(("127.0.0.1", 0)) as server:
        server.accept()


# --- limits of a control group ----------------------------------------------------------------------------


def group(controller: str, **limits: object) -> Path:
    """Put this process into a new control group with these limits, and return where that is."""
    path = Path("/sys/fs/cgroup", controller, f"victim-{os.getpid()}")
    path.mkdir()
    for name, value in limits.items():
        (path / name.replace("__", ".")).write_text(str(value))
    (path / "cgroup.procs").write_text(str(os.getpid()))
    return path


@case("throttled-processor")
def throttled(stage: Stage) -> None:
    group("cpu", cpu__cfs_period_us=100_000, cpu__cfs_quota_us=20_000)
    data = os.urandom(1 << 24) * 16
    with stage.watched(PHASE, dump_after=3):
        zlib.compress(data, 9)


@case("not-throttled-processor--enough")
def enough(stage: Stage) -> None:
    """There is a quota, and it is not used up."""
    group("cpu", cpu__cfs_period_us=100_000, cpu__cfs_quota_us=80_000)
    with stage.watched(PHASE):
        threading.Event().wait()


@case("memory-pressure")
def starved(stage: Stage) -> None:
    """It writes a file, and there is no room for what waits to be written."""
    data = bytes(16 << 20)
    group("unified")
    group("memory", memory__limit_in_bytes=56 << 20)
    with stage.watched(PHASE, dump_after=12), (stage.folder / "large").open("wb") as file:
        while True:
            for start in range(0, 1 << 29, len(data)):
                os.pwrite(file.fileno(), data, start)


@case("not-memory-pressure--enough")
def not_starved(stage: Stage) -> None:
    """A group with a limit that is far away."""
    group("unified")
    group("memory", memory__limit_in_bytes=2 << 30)
    with stage.watched(PHASE):
        threading.Event().wait()


@case("no-stall")
def asked(stage: Stage) -> None:
    """Nothing is wrong, and somebody wants to know."""
    with stage.watched(PHASE) as dog:
        dog.outside.pulse.words[REQUEST] = 1
        while True:
            dog.beat()
            time.sleep(0.05)


@case("not-no-stall--stalled")
def asked_in_a_stall(stage: Stage) -> None:
    """Somebody asks after the dump of the stall."""
    config = Config(**{**QUICK, "incident_dir": str(stage.folder / "incidents")})
    with Watchdog(config) as dog:
        dog.beat(PHASE)

        def asks() -> None:
            patiently(lambda: dog.outside.pulse.read(STATE))
            stage.save_dump()
            dog.outside.pulse.words[REQUEST] = 1

        threading.Thread(target=asks, name="asks", daemon=True).start()
        threading.Event().wait()

"""
A process with children, each of which waits in a way of its own, that says what it sees of them.

    python tests/victims/family.py lock sleep read

The words are the names of the functions below, `sleep*200` is 200 of them. Prints `{"pid": "word"}` once all
were started; then for each line it is sent one line of JSON: the children as evidence has them. Ends them, by
pid, at the end of its input.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

from watchdog_hook.evidence import family

if TYPE_CHECKING:
    from collections.abc import Callable

HELD = threading.Lock()
LONG = 600.0


class KubernetesJobWatcher(multiprocessing.get_context("fork").Process):  # type: ignore[misc]
    """Like a process of the executor's: a class of its own."""

    def run(self) -> None:
        time.sleep(LONG)


class Ways:
    """What a child does."""

    def __init__(self) -> None:
        self.shared = multiprocessing.get_context("fork").Lock()
        self.shared.acquire()
        self.pipe = os.pipe()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.client = socket.create_connection(self.server.getsockname())

    def lock(self) -> None:
        HELD.acquire()

    def timed(self) -> None:
        HELD.acquire(timeout=LONG)

    def across(self) -> None:
        """Wait for a lock that lies in shared memory."""
        self.shared.acquire()

    def sleep(self) -> None:
        time.sleep(LONG)

    def read(self) -> None:
        os.read(self.pipe[0], 1)

    def recv(self) -> None:
        self.client.recv(1)

    def busy(self) -> None:
        until = time.monotonic() + LONG
        while time.monotonic() < until:
            pass

    def worked(self) -> None:
        while time.process_time() < 0.3:
            pass
        HELD.acquire()

    def thread(self) -> None:
        threading.Thread(target=time.sleep, args=(LONG,), daemon=True).start()
        HELD.acquire()

    def program(self) -> None:
        """Become another program, of the same interpreter, and wait for a lock of its own."""
        code = "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()"
        os.execv(sys.executable, [sys.executable, "-c", code])

    def stopped(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def zombie(self) -> None:
        return

    def grandchild(self) -> None:
        if os.fork() == 0:
            HELD.acquire()
        os.wait()


def start(way: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        signal.alarm(int(LONG))  # so that none is left behind, whatever happens
        try:
            way()
        finally:
            os._exit(0)
    return pid


def main() -> None:
    """Fork, then answer."""
    warnings.simplefilter(
        "ignore", DeprecationWarning
    )  # that forks and threads do not mix is known
    words = sys.argv[1:]
    if words[0].startswith("after="):
        family.NEVER_WAKES_AFTER = float(words.pop(0).partition("=")[2])
    if words[0].startswith("below="):
        family.NEVER_WAKES_BELOW = float(words.pop(0).partition("=")[2])
    taken = threading.Event()

    def hold() -> None:
        with HELD:
            taken.set()
            time.sleep(LONG)

    threading.Thread(target=hold, daemon=True).start()
    taken.wait()
    ways, made, pids = Ways(), [], {}
    for times in words:
        word, _, count = times.partition("*")
        for _ in range(int(count or 1)):
            if word == "watcher":
                made.append(KubernetesJobWatcher())
                made[-1].start()
                pids[made[-1].pid] = word
            elif word == "ended":
                made.append(multiprocessing.get_context("fork").Process(target=int, name="short"))
                made[-1].start()
                pids[made[-1].pid] = word
            else:
                pids[start(getattr(ways, word))] = word
    print(json.dumps(pids), flush=True)
    for _ in sys.stdin:
        missed: dict[str, str] = {}
        begun = time.perf_counter()
        found, more = family.children(missed)
        took = time.perf_counter() - begun
        children = [dataclasses.asdict(child) for child in found]
        print(
            json.dumps({"children": children, "more": more, "took": took, "missed": missed}),
            flush=True,
        )
    everyone: list[Any] = [*family.children({})[0]]
    for pid in {*pids, *(child.pid for child in everyone)}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()

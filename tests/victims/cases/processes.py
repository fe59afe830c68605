"""Waits for a child process, for what it should write or read, and for one that can never wake."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.victims.stage import HEARTBEAT, Stage, case, patiently, sleeping

FORK = multiprocessing.get_context("fork")
OLD = 6.0  # seconds: a child that has waited for less may yet wake
CELERY = "executor.heartbeat (CeleryExecutor)"


class KubernetesJobWatcher(FORK.Process):  # type: ignore[misc, name-defined]
    """A child that does not end when it is asked to: apache/airflow#52284."""

    def run(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        threading.Event().wait(3600)


def fork(work: Any) -> int:
    """Return the pid of a child that does this."""
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return pid


def held_elsewhere(lock: Any) -> None:
    """Have another thread hold a lock, for good."""
    held = threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            threading.Event().wait()

    threading.Thread(target=hold, name="OpenLineage", daemon=True).start()
    held.wait()


def take(lock: Any) -> None:
    with lock:
        pass


def compute() -> None:
    while True:
        pass


# --- inherited locks --------------------------------------------------------------------------------------


@case("inherited-lock")
def forked_joined(stage: Stage) -> None:
    """A child is forked while another thread has a lock, and wants it, too: apache/airflow#71707."""
    lock = threading.Lock()
    held_elsewhere(lock)
    with stage.watched(CELERY, dump_after=OLD) as dog:
        child = FORK.Process(target=take, args=(lock,), name="ForkPoolWorker-1")
        child.start()
        patiently(lambda: sleeping(child.pid or 0))
        dog.beat()
        child.join()


@case("inherited-lock--pool")
def forked_pool(stage: Stage) -> None:
    """The parent waits for the answer of a pool: apache/airflow#70690."""
    lock = threading.Lock()
    held_elsewhere(lock)
    with stage.watched(CELERY, dump_after=OLD):
        from concurrent.futures import ProcessPoolExecutor

        with ProcessPoolExecutor(2, mp_context=FORK) as pool:
            list(pool.map(Taker(lock), [1, 2]))


class Taker:
    """Takes a lock of the parent's, without sending it through a pipe."""

    lock: Any = None

    def __init__(self, lock: Any) -> None:
        type(self).lock = lock

    def __call__(self, number: int) -> int:
        with type(self).lock:
            return number


@case("inherited-lock--grandchild")
def forked_further_down(stage: Stage) -> None:
    lock = threading.Lock()
    held_elsewhere(lock)

    def between() -> None:
        os.waitpid(fork(lambda: take(lock)), 0)

    with stage.watched(CELERY, dump_after=OLD):
        os.waitpid(fork(between), 0)


@case("not-inherited-lock--busy-child")
def busy_child(stage: Stage) -> None:
    with stage.watched(CELERY, dump_after=OLD):
        os.waitpid(fork(compute), 0)


@case("not-inherited-lock--idle-pool")
def idle_pool(stage: Stage) -> None:
    """Workers with nothing to do wait for a lock, too; it lies in memory that they share."""
    with stage.watched(CELERY, dump_after=OLD), FORK.Pool(4) as pool:
        pool.map(time.sleep, [3600])


@case("not-inherited-lock--timed")
def timed_child(stage: Stage) -> None:
    """Its wait ends by itself."""
    lock = threading.Lock()
    held_elsewhere(lock)
    with stage.watched(CELERY, dump_after=OLD):
        os.waitpid(fork(lambda: lock.acquire(timeout=3600)), 0)


@case("not-inherited-lock--waits-for-another")
def another_child(stage: Stage) -> None:
    """There is such a child, and what this thread waits for is another one."""
    lock = threading.Lock()
    held_elsewhere(lock)
    with stage.watched(CELERY, dump_after=OLD):
        fork(lambda: take(lock))
        os.waitpid(fork(lambda: time.sleep(3600)), 0)


# --- children ---------------------------------------------------------------------------------------------


@case("child-process")
def joined(stage: Stage) -> None:
    child = KubernetesJobWatcher()
    child.start()
    with stage.watched("executor.start (KubernetesExecutor)"):
        child.join()


@case("child-process--subprocess")
def subprocess_runs(stage: Stage) -> None:
    with stage.watched(HEARTBEAT):
        subprocess.run(["sleep", "3600"], check=True)


@case("child-process--any")
def any_child(stage: Stage) -> None:
    fork(lambda: time.sleep(3600))
    with stage.watched(HEARTBEAT):
        os.wait()


@case("child-process--stopped")
def stopped_child(stage: Stage) -> None:
    pid = fork(lambda: time.sleep(3600))
    os.kill(pid, signal.SIGSTOP)
    with stage.watched(HEARTBEAT):
        os.waitpid(pid, 0)


@case("not-child-process--asked-and-gone")
def polled_child(stage: Stage) -> None:
    """A child runs, and the thread has only asked for it."""
    child = subprocess.Popen(["sleep", "3600"])
    with stage.watched(HEARTBEAT):
        child.poll()
        threading.Event().wait()


# --- pipes ------------------------------------------------------------------------------------------------


@case("pipe")
def reads(stage: Stage) -> None:
    """An answer that a child never writes."""
    ours, theirs = FORK.Pipe(duplex=False)

    def never() -> None:
        assert theirs
        time.sleep(3600)

    child = FORK.Process(target=never, name="DagFileProcessorManager")
    child.start()
    theirs.close()
    with stage.watched("scheduling"):
        ours.recv()


@case("pipe--full")
def writes(stage: Stage) -> None:
    """A standard output that its reader does not read."""
    reader = subprocess.Popen(["sleep", "3600"], stdin=subprocess.PIPE)
    assert reader.stdin is not None
    with stage.watched("scheduling"):
        while True:
            os.write(reader.stdin.fileno(), b"a line of the log\n" * 1000)


@case("pipe--nobody-of-ours")
def stranger(stage: Stage) -> None:
    """Whoever has the other end is none of our children."""
    import socket

    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(3600)
        os._exit(0)
    os.wait()
    os.close(writer)
    theirs.close()
    ours.close()
    with stage.watched("scheduling"):
        os.read(reader, 1)


@case("not-pipe--own-end")
def own_pipe(stage: Stage) -> None:
    """A pipe to itself, as event loops have one, beside a socket: neither is what it waits for alone."""
    import asyncio

    with stage.watched("scheduling"):
        asyncio.run(asyncio.sleep(3600))


# --- managers ---------------------------------------------------------------------------------------------


@case("manager")
def manager_stopped(stage: Stage) -> None:
    manager = FORK.Manager()
    queue = manager.Queue()
    queue.put(1)
    os.kill(manager._process.pid, signal.SIGSTOP)  # type: ignore[attr-defined]
    with stage.watched(HEARTBEAT):
        queue.qsize()


@case("manager--get")
def manager_empty(stage: Stage) -> None:
    """The manager is well; the queue is empty, and the thread waits for what nobody puts."""
    queue = FORK.Manager().Queue()
    with stage.watched(HEARTBEAT):
        queue.get()


@case("not-manager--answered")
def manager_answered(stage: Stage) -> None:
    queue = FORK.Manager().Queue()
    with stage.watched(HEARTBEAT):
        queue.put(1)
        threading.Event().wait()


@case("shutdown")
def ends(stage: Stage) -> None:
    """The loop is over; its executor waits for a child without a limit."""
    child = KubernetesJobWatcher()
    child.start()
    with stage.watched("executor.end (KubernetesExecutor)") as dog:
        dog.ending = True
        child.join()


@case("shutdown--workers-not-told")
def ends_a_race(stage: Stage) -> None:
    """The last two workers take the first two messages, and are gone before their turn: apache/airflow#45329."""
    from airflow.executors.local_executor import LocalExecutor

    from watchdog_hook.integrations.airflow.host import AirflowHost

    executor = LocalExecutor(parallelism=4)
    spawn = executor._spawn_worker

    def spawn_stopped() -> None:
        spawn()
        os.kill(max(executor.workers), signal.SIGSTOP)

    executor._spawn_worker = spawn_stopped
    executor.start()
    first, second, third, fourth = executor.workers

    def go_on(worker: int) -> None:
        os.kill(worker, signal.SIGCONT)
        waits = Path(f"/proc/{worker}/wchan")
        patiently(lambda: "pipe_read" in waits.read_text() or "futex" in waits.read_text())

    go_on(fourth)  # one reads, the others wait for the lock of their queue
    go_on(third)
    put = executor.activity_queue.put

    def put_and_lose_the_processor(message: object) -> None:
        there = [each.sentinel for each in executor.workers.values() if each.is_alive()]
        put(message)
        multiprocessing.connection.wait(there)
        if len(there) == 3:
            go_on(first)
            go_on(second)

    executor.activity_queue.put = put_and_lose_the_processor
    host = AirflowHost(None, [executor])
    with stage.watched("executor.end (LocalExecutor)", host) as dog:
        dog.ending = True
        executor.end()


@case("not-shutdown--another-end")
def ends_another(stage: Stage) -> None:
    """The end of something else."""
    child = KubernetesJobWatcher()
    child.start()
    with stage.watched("executor.start (KubernetesExecutor)"):
        child.terminate()
        child.join()


assert sys.platform.startswith("linux")

"""Files: their locks, their other ends, and a file system that does not answer."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import subprocess
import threading
import time

from tests.victims.stage import Stage, case

PHASE = "scheduling"


@case("file-lock")
def flocked(stage: Stage) -> None:
    path = stage.folder / "airflow-scheduler.lock"
    stage.peer("locker", path=str(path), by="flock")
    with stage.watched(PHASE), path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


@case("file-lock--fcntl")
def locked(stage: Stage) -> None:
    path = stage.folder / "airflow-scheduler.lock"
    stage.peer("locker", path=str(path), by="fcntl")
    with stage.watched(PHASE), path.open("a") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)


@case("not-file-lock--tries-again")
def tries(stage: Stage) -> None:
    """It asks, is refused, and sleeps."""
    path = stage.folder / "airflow-scheduler.lock"
    stage.peer("locker", path=str(path), by="flock")
    with stage.watched(PHASE), path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(3600)


@case("fifo")
def fifo(stage: Stage) -> None:
    path = stage.folder / "health.fifo"
    os.mkfifo(path)
    with stage.watched(PHASE):
        path.write_text("alive")


@case("not-fifo--both-ends")
def open_fifo(stage: Stage) -> None:
    """Both ends are open, and nothing comes."""
    path = stage.folder / "health.fifo"
    os.mkfifo(path)
    both = os.open(path, os.O_RDWR)
    with stage.watched(PHASE), path.open("rb", buffering=0) as file:
        file.read(1)
        os.close(both)


@case("file-system")
def stat_hangs(stage: Stage) -> None:
    """The lookup of a name."""
    mounted = stage.peer("files", answers=[])
    with stage.watched(PHASE):
        os.stat(f"{mounted.info['folder']}/dag.py")


@case("file-system--read")
def read_hangs(stage: Stage) -> None:
    """The name was found and the file opened; its contents do not come."""
    mounted = stage.peer("files", answers=["lookup", "getattr", "open"])
    with stage.watched(PHASE), open(f"{mounted.info['folder']}/data", "rb", buffering=0) as file:
        file.read(100)


@case("file-system--import")
def import_hangs(stage: Stage) -> None:
    """A module is looked for there."""
    import sys

    mounted = stage.peer("files", answers=[])
    with stage.watched(PHASE):
        sys.path.insert(0, mounted.info["folder"])
        import dag_of_a_user  # type: ignore[import-not-found] # noqa: F401


@case("disk-sleep")
def frozen_page(stage: Stage) -> None:
    """A mapped file of a file system that is frozen: the first write to a page has to wait."""
    mounted = stage.peer("frozen")
    path = f"{mounted.info['folder']}/data"
    with open(path, "w+b") as file:
        file.write(bytes(mmap.PAGESIZE))
        file.flush()
        data = mmap.mmap(file.fileno(), mmap.PAGESIZE)
    mounted.do("freeze")
    place = ctypes.addressof(ctypes.c_char.from_buffer(data))
    with stage.watched(PHASE):
        ctypes.memset(place, 1, 1)


@case("file-system--frozen")
def frozen_folder(stage: Stage) -> None:
    mounted = stage.peer("frozen")
    mounted.do("freeze")
    with stage.watched(PHASE):
        os.mkdir(f"{mounted.info['folder']}/dag_id=a")


@case("disk-sleep--mapped-file")
def page_fault(stage: Stage) -> None:
    """A mapped file: its pages are read where the memory is touched, outside of any system call."""
    import zlib

    mounted = stage.peer("files", answers=["lookup", "getattr", "open"])
    # Not open(): it asks what is no terminal whether it is one.
    file = os.open(f"{mounted.info['folder']}/data", os.O_RDONLY)
    data = mmap.mmap(file, 0, prot=mmap.PROT_READ)
    with stage.watched(PHASE):
        zlib.crc32(data)


@case("not-disk-sleep--starts-a-program")
@case("child-process--starts-a-program")
def vfork(stage: Stage) -> None:
    """A program is started from there: until that is done, the parent may not go on."""
    mounted = stage.peer("files", answers=["lookup", "getattr"])
    with stage.watched(PHASE):
        subprocess.run([f"{mounted.info['folder']}/data"], check=False)


@case("not-file-system--local")
def local(stage: Stage) -> None:
    """A file was read to its end, and is still open."""
    path = stage.folder / "dag.py"
    path.write_text("print()")
    with stage.watched(PHASE), path.open() as file:
        file.read()
        threading.Event().wait()


@case("not-disk-sleep--terminal")
@case("not-file-system--terminal")
def device(stage: Stage) -> None:
    """A device, not a file: nobody types."""
    leader, follower = os.openpty()
    with stage.watched(PHASE), open(follower, "rb", buffering=0) as terminal:
        terminal.read(1)
    os.close(leader)

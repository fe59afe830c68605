"""
A process of which something is special, and a thread of it that waits. Prints one line of JSON: its own reading.

    python tests/victims/waits.py undumpable|stopped|page_fault

`undumpable` gives up root, and with it every right to look at itself. `stopped` says "ready", and looks once it
has been stopped and goes on. `page_fault` touches memory that somebody else has to fill, and nobody does.
"""

from __future__ import annotations

import ctypes
import dataclasses
import fcntl
import json
import mmap
import os
import platform
import select
import socket
import struct
import sys
import threading
from collections.abc import Callable

from watchdog_hook.core.observed import ThreadInKernel
from watchdog_hook.core.waits import wait_text
from watchdog_hook.evidence import kernel

PR_SET_DUMPABLE = 4
NOBODY = 65534
USERFAULTFD = {"x86_64": 323, "aarch64": 282}
UFFDIO_API, UFFDIO_REGISTER, MISSING_PAGES = 0xC018AA3F, 0xC020AA00, 1

libc = ctypes.CDLL(None, use_errno=True)


def start(target: Callable[[], object]) -> int:
    """Start a thread and return its native id."""
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread.native_id or 0


def look(
    native_id: int, until: Callable[[ThreadInKernel], bool]
) -> tuple[ThreadInKernel, dict[str, str]]:
    """Look until the thread stands where it should."""
    while True:
        missed: dict[str, str] = {}
        seen = kernel.thread_in_kernel(native_id, missed)
        if seen is not None and until(seen):
            return seen, missed


def refused(why: str) -> None:
    """Say that this cannot be shown here, and end."""
    print(json.dumps({"refused": why}), flush=True)
    os._exit(0)


def undumpable() -> tuple[ThreadInKernel, dict[str, str]]:
    """Wait on a socket in a process that may not look at itself."""
    ours, theirs = socket.socketpair()
    if os.getuid() == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        except PermissionError as error:
            refused(error.strerror)
    if libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    native_id = start(lambda: ours.recv(1))
    seen = look(native_id, lambda seen: seen.state == "S")
    theirs.close()
    return seen


def stopped() -> tuple[ThreadInKernel, dict[str, str]]:
    """Wait in poll(), be stopped, and wait on."""
    ours, theirs = socket.socketpair()
    poll = select.poll()
    poll.register(ours, select.POLLIN)
    native_id = start(lambda: poll.poll(3_600_000))
    look(native_id, lambda seen: seen.state == "S" and seen.wait is not None)
    print("ready", flush=True)
    input()
    number = "running"
    while number == "running":  # it goes on with the rest of us, but when?
        with open(f"/proc/self/task/{native_id}/syscall") as file:
            number = file.read().split()[0]
    seen, missed = look(native_id, lambda seen: seen.state == "S" and seen.wait is not None)
    theirs.close()
    return seen, {**missed, "number": number, "socket": str(ours.fileno())}


def page_fault() -> tuple[ThreadInKernel, dict[str, str]]:
    """Touch a page that never comes."""
    fd = libc.syscall(USERFAULTFD[platform.machine()], 0)
    if fd < 0:
        refused(os.strerror(ctypes.get_errno()))
    fcntl.ioctl(fd, UFFDIO_API, bytearray(struct.pack("=QQQ", 0xAA, 0, 0)))
    page = mmap.mmap(-1, mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    fcntl.ioctl(
        fd,
        UFFDIO_REGISTER,
        bytearray(struct.pack("=QQQQ", address, mmap.PAGESIZE, MISSING_PAGES, 0)),
    )
    room = ctypes.create_string_buffer(1)
    native_id = start(lambda: libc.memcpy(room, ctypes.c_void_p(address), ctypes.c_size_t(1)))
    return look(native_id, lambda seen: seen.wchan == "handle_userfault" or seen.wait is not None)


def main() -> None:
    """Do what the first argument says and print what was seen."""
    seen, missed = {"undumpable": undumpable, "stopped": stopped, "page_fault": page_fault}[
        sys.argv[1]
    ]()
    print(
        json.dumps(
            {"seen": dataclasses.asdict(seen), "text": wait_text(seen.wait), "missed": missed}
        ),
        flush=True,
    )
    os._exit(0)  # a thread still waits


if __name__ == "__main__":
    main()

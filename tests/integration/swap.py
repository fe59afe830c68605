"""A swap device so slow that a process waits for its own memory."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.silence import patiently
from watchdog_hook.sentinel import proc

SIZE = 160 << 20
PAGES = 400  # a second


@contextlib.contextmanager
def device(folder: Path) -> Iterator[str]:
    """Return the numbers of a block device that is swapped to; skip where this process may not have one."""
    if os.geteuid() != 0:
        pytest.skip("only root may swap to a file")
    for program in ("losetup", "mkswap", "swapon", "swapoff"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here (util-linux)")
    file = folder / "swap"
    file.touch(0o600)
    os.truncate(file, SIZE)
    with contextlib.ExitStack() as undo:
        undo.callback(file.unlink)
        loop = _may("losetup", "--find", "--show", str(file)).strip()
        undo.callback(subprocess.run, ["losetup", "--detach", loop], check=True)
        _may("mkswap", loop)
        # Before others, so that none of what the test has swapped out goes to a faster one.
        _may("swapon", "--priority", "32767", loop)
        undo.callback(subprocess.run, ["swapoff", loop], check=True)
        number = os.stat(loop).st_rdev
        yield f"{os.major(number)}:{os.minor(number)}"


def _may(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{command[0]} may not: {done.stderr.strip()}")
    return done.stdout


def put_out(pid: int, memory: Path, megabytes: int) -> None:
    """Have a cgroup's memory written to swap until so much of that process is there."""

    def out() -> bool:
        with contextlib.suppress(OSError):  # not everything of it could go
            (memory / "memory.force_empty").write_text("0")
        return proc.read(pid, ()).swapped >> 10 >= megabytes

    patiently(out, "swapping")


@contextlib.contextmanager
def slow(numbers: str, blkio: Path) -> Iterator[None]:
    """Let a cgroup read some pages a second from that device, and no more."""
    limit = blkio / "blkio.throttle.read_iops_device"
    limit.write_text(f"{numbers} {PAGES}")
    try:
        yield
    finally:
        limit.write_text(f"{numbers} 0")

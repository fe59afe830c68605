"""
Stacks of a process that does not answer: by faulthandler, where its hook has left a signal for that, or by py-spy.

No signal goes to a process that does not catch it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

from watchdog_hook.cli import levers
from watchdog_hook.cli.pulses import Watched
from watchdog_hook.descriptor import BACKSTOP
from watchdog_hook.sentinel import pulse as places
from watchdog_hook.sentinel.start import find_py_spy

WRITES = 3.0  # seconds for faulthandler to begin
QUIET = 0.3  # seconds without a further byte after which it has ended
PY_SPY = 10.0  # seconds
_COMMAND_LINE = re.compile(r"\AProcess (\d+):.*?^(?=Python v)", re.S | re.M)


class NoStacks(Exception):  # noqa: N818 - it is an answer
    """There are none in this way. Says why."""


def by_faulthandler(one: Watched) -> str:
    """
    Return the main thread's stack as faulthandler writes it. Raises NoStacks.

    The signal is sent only where the process catches it, in its main thread, and where it still is the same
    process.
    """
    words = one.pulse.words
    number, descriptor = words[places.SIGNAL], words[places.BACKSTOP]
    if not number or not descriptor:
        raise NoStacks("its hook has left no signal that asks faulthandler")
    if why := why_not_signal(levers.status(Path(f"/proc/{one.pid}/status")), number):
        raise NoStacks(why)
    path = f"/proc/{one.pid}/fd/{descriptor - 1}"
    try:
        # Its number may be a file's of the host by now, and that would be written into.
        if BACKSTOP not in os.readlink(path):
            raise NoStacks("the host has closed what faulthandler writes into there")
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            begin = os.fstat(file).st_size
            _send(one, number)
            return _written(file, begin)
        finally:
            os.close(file)
    except OSError as error:
        raise NoStacks(
            f"what faulthandler writes there cannot be read ({error.strerror})"
        ) from None


def why_not_signal(status: dict[str, str], number: int) -> str | None:
    """Return why a signal must not be sent, by /proc/PID/status; None where the main thread catches it."""
    caught, blocked = (int(status.get(name, "0"), 16) for name in ("SigCgt", "SigBlk"))
    if not caught >> (number - 1) & 1:
        return (
            f"signal {number}, which its hook left for that, is not caught there, so none is sent"
        )
    if blocked >> (number - 1) & 1:
        return f"signal {number} is blocked in its main thread, so none is sent"
    if status.get("State", "")[:1] in ("T", "t", "Z"):
        return "it is stopped, and answers no signal"
    return None


def by_py_spy(pid: int) -> str:
    """Return every thread's stack as py-spy prints it, without the command line. Raises NoStacks."""
    program = find_py_spy("auto")
    if not program:
        raise NoStacks(
            "py-spy is neither on PATH nor beside this Python: pip install 'watchdog-hook[py-spy]' into the image,"
            " or look from a container that has it: kubectl debug POD -it --image=IMAGE --target=scheduler"
            f" --profile=sysadmin -- py-spy dump --pid {pid}"
        )
    try:
        done = subprocess.run(  # noqa: S603 - the program is py-spy, and there is no shell
            [program, "dump", "--nonblocking", "--pid", str(pid)],
            timeout=PY_SPY,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoStacks(f"py-spy has not ended within {PY_SPY:.0f} s") from None
    except OSError as error:
        raise NoStacks(f"{program} cannot be started ({error.strerror})") from None
    if done.returncode == 0 and done.stdout.strip():
        return without_command_line(done.stdout)
    said = (done.stderr.strip().splitlines() or ["nothing"])[0]
    hindrance = levers.ptrace_hindrance()
    remedy = (
        f"{hindrance[0]}: {hindrance[1]}"
        if hindrance
        else "where ptrace is forbidden, give the container the capability SYS_PTRACE"
    )
    raise NoStacks(f"py-spy failed ({said}); {remedy}")


def without_command_line(text: str) -> str:
    """Return py-spy's text without the arguments of the process, which may hold anything."""
    found = _COMMAND_LINE.sub(r"Process \1\n", text)
    return found if found != text else text.partition("\n")[2]


def _send(one: Watched, number: int) -> None:
    try:
        process = os.pidfd_open(one.pid)
    except OSError as error:
        raise NoStacks(f"it cannot be signalled ({error.strerror})") from None
    try:
        # Only now: from here on the descriptor stands for this very process.
        if not one.running:
            raise NoStacks("it has ended")
        signal.pidfd_send_signal(process, number)
    finally:
        os.close(process)


def _written(file: int, begin: int) -> str:
    """Return what is written into a file from there on, once nothing more comes."""
    end = time.monotonic() + WRITES
    size, since = begin, time.monotonic()
    while time.monotonic() < end and not (size > begin and time.monotonic() - since > QUIET):
        time.sleep(0.02)
        if (now := os.fstat(file).st_size) != size:
            size, since = now, time.monotonic()
    if size <= begin:
        raise NoStacks(f"faulthandler has written nothing within {WRITES:.0f} s")
    return os.pread(file, size - begin, begin).decode("utf-8", "replace")

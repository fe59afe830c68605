"""Starts the sentinel, in the process that it watches. The only module here that the watched process uses."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys

PATIENCE = 5.0  # seconds for it to leave our family
PR_SET_PTRACER = 0x59616D61  # linux/prctl.h


class CannotStart(Exception):  # noqa: N818 - it says what cannot be
    """The sentinel cannot be started here. Says why."""


def start(memory: int, text: int, words: tuple[str, str, str, str]) -> None:
    """
    Start the sentinel and return once it is nobody's child. Raises CannotStart.

    `memory` and `text`: descriptors of the pulse and of faulthandler's text. `words`: incident directory, host
    name as ids have it, incidents that are kept, path of py-spy. It shares only our standard error.
    """
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")
    if not sys.executable or not os.path.exists(program):
        raise CannotStart("there is no Python, or no file of ours, that could be started")
    command = [sys.executable, "-I", "-S", "-B", program, str(memory), str(text), *words]
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    try:
        # No preexec_fn: so no Python runs between fork and exec, and no hook of a fork is called.
        parent = subprocess.Popen(  # noqa: S603 - this very interpreter, and a file of ours
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # Closed, it would be the number of the first file that the sentinel opens.
            stderr=None if _is_open(2) else subprocess.DEVNULL,
            cwd="/",
            env=kept,
            pass_fds=(memory, text),
            start_new_session=True,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise CannotStart(f"{type(error).__name__}: {error}") from None
    try:
        code = parent.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        parent.kill()
        parent.wait()
        raise CannotStart(f"it was not there after {PATIENCE:.0f} s") from None
    if code:
        raise CannotStart(f"{sys.executable} ended with {code}")


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def allow_to_trace(pid: int) -> None:
    """Let a process, and those that it starts, trace this one where Yama asks for that. Never raises."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(pid), 0, 0, 0)
    except (OSError, AttributeError):  # EINVAL without Yama is no exception
        pass


def find_py_spy(option: str) -> str:
    """Return the path of py-spy that an option means: a path, `auto` or `off`. Empty for none."""
    if option == "off":
        return ""
    if option != "auto":
        return option
    beside = os.path.join(os.path.dirname(sys.executable), "py-spy")
    return shutil.which("py-spy") or (beside if os.access(beside, os.X_OK) else "")

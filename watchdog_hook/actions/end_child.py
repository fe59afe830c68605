"""End one child process that its parent is known to start anew."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def end(pid: int, is_the_one: Callable[[], bool]) -> str:
    """
    Kill a child if it is the one that is meant, and return what came of it: "ended", or why not.

    `is_the_one` is asked once the process is held by a descriptor (pidfd, Linux 5.3), so that no other can get
    the signal should this one end and its number be given out anew. It is not reaped: that is the host's.
    """
    try:
        held = os.pidfd_open(pid)
    except ProcessLookupError:
        return "it is gone"
    except (
        AttributeError,
        OSError,
    ):  # an older kernel, or a filter of system calls that does not know it
        held = -1
    try:
        if not is_the_one():
            return "left alone: it is no longer the child that was meant"
        _kill(pid, held)
    except OSError as error:
        return f"could not be ended: {error.strerror}"
    finally:
        if held >= 0:
            os.close(held)
    return "ended"


def _kill(pid: int, held: int) -> None:
    if held >= 0:
        try:
            signal.pidfd_send_signal(held, signal.SIGKILL)
            return
        except PermissionError:  # of the filter, or of the process: then it is said below
            pass
    os.kill(pid, signal.SIGKILL)

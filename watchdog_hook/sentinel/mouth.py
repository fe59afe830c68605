"""The scheduler's standard error, as the sentinel has it: written without ever waiting for its reader."""

from __future__ import annotations

import os
import select
import stat

TYPE_CHECKING = False  # as typing has it, which takes memory to import
if TYPE_CHECKING:
    from collections.abc import Iterable

WRITE_PATIENCE = 1000  # milliseconds for a piece of text
_PIECE = 4096  # bytes: what a writable pipe takes in one piece
MOST = 64 * 1024  # bytes of one report


class Mouth:
    """Says records. What standard error does not take is lost, and hurts nobody."""

    def __init__(self, fd: int = 2) -> None:
        self._fd = fd
        try:
            kind = os.fstat(fd).st_mode
            # A pipe or terminal is opened anew: O_NONBLOCK would be shared with the host's own standard error.
            if stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                self._fd = os.open(f"/proc/self/fd/{fd}", flags)
        except OSError:
            pass

    def say(self, line: str, further: Iterable[str] = ()) -> None:
        """Write a record: its line, and further ones that begin with a blank. Never raises."""
        data = "".join([f"{line}\n", *(f" {each}\n" for each in further)]).encode(
            "utf-8", "replace"
        )
        if len(data) > MOST:
            data = data[: data.rindex(b"\n", 0, MOST - 100)] + b"\n ... the rest is in the files\n"
        poll = select.poll()
        try:
            poll.register(self._fd, select.POLLOUT)
            while data:
                if not poll.poll(WRITE_PATIENCE):
                    return
                try:
                    data = data[os.write(self._fd, data[:_PIECE]) :]
                except BlockingIOError:
                    return
        except (OSError, ValueError):  # closed, or nobody reads it any more
            return

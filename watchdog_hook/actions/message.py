"""Kubernetes' termination message: what `kubectl describe pod` shows of a container that has ended."""

from __future__ import annotations

import os
import stat

from watchdog_hook.errand import Errands

PATIENCE = 1.0  # seconds for the file system to take it
MOST = 4096  # bytes that the kubelet reads, in whatever way the container ended
OURS = b"watchdog_hook: "  # so begins whatever we write there
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class TerminationMessage:
    """
    One text in a file that somebody else has made; never raises, and never waits for longer than a second.

    The file is not created, a link not followed, and what another program has written there is left alone.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._errands = Errands("watchdog-hook-end", PATIENCE)
        self._put = b""  # what is there of ours

    def put(self, text: str) -> None:
        """Write a text in place of ours that was there."""
        data = text.encode("utf-8", "replace")[: MOST - 1] + b"\n"
        self._send(data)

    def take_back(self) -> None:
        """Empty the file, if what is there is still ours. Costs nothing where nothing was written."""
        if self._put:
            self._send(b"")

    def working(self) -> bool:
        """Say whether the file is being written."""
        return self._errands.working()

    def reset_after_fork(self) -> None:
        """In a forked child: it is the parent's text. Takes no lock."""
        self._errands.reset_after_fork()
        self._put = b""

    def _send(self, data: bytes) -> None:
        path = self._path
        if path is not None:
            self._errands.send(lambda: self._replace(path, data))

    def _replace(self, path: str, data: bytes) -> None:
        fd = os.open(path, _FLAGS)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return
            there = os.pread(fd, MOST + 1, 0)
            if there and not (there.startswith(OURS) if data else there == self._put):
                return
            # First the new text: killed in between, it is followed by the rest of one that was longer.
            os.ftruncate(fd, os.pwrite(fd, data, 0))
            self._put = data
        finally:
            os.close(fd)

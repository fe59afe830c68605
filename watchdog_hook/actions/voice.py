"""Says things so that no stuck handler can silence them: the log where it answers, else standard error."""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import stat
import time

from watchdog_hook.descriptor import Own, duplicate, memory, without_waiting
from watchdog_hook.errand import Errands

LOGGER = "watchdog_hook"
THREAD = "watchdog-hook"  # as records show it, whichever thread hands them over
LOG_PATIENCE = 2.0  # seconds for a record to get through the log's handlers
WRITE_PATIENCE = 1.0  # seconds for a text to get into standard error
_PIECE = 4096  # bytes: what a writable pipe takes in one piece


class Voice:
    """The one mouth of the watchdog: log records, and lines that must get out whatever the log does."""

    def __init__(self, logger: str = LOGGER, stderr_fd: int | None = None) -> None:
        self._logger = logger
        self._errands = Errands("watchdog-hook-log", LOG_PATIENCE)
        self._stderr = StandardError(2 if stderr_fd is None else stderr_fd)
        self._unsaid: list[str] = []  # handed over, not known to have arrived

    def say(self, level: int | str, text: str, *, wait: bool = False) -> None:
        """
        Log a record; a text that the log does not take within two seconds goes to standard error.

        With `wait` this is known on return. Without, only the record before may be waited for, and what got
        stuck is written at the next occasion (`settle`). Never raises. A text may come twice: the log can
        still get it when the stuck handler comes free.
        """
        self.settle()
        number = level if isinstance(level, int) else logging.getLevelName(level)
        if not isinstance(number, int):
            number = logging.ERROR
        if self._errands.lost():
            self._stderr.write(text)
            return
        self._unsaid.append(text)
        if self._errands.send(lambda: self._log(number, text), wait=None if wait else 0.0):
            self._unsaid.clear()
        elif wait or not self._errands.working():
            self._write_unsaid()

    def urgent(self, line: str) -> None:
        """Write one line to standard error, past the log."""
        self._stderr.write(line)

    def settle(self) -> None:
        """Write to standard error what the log has not taken in time. Costs nothing when there is nothing."""
        if not self._unsaid:
            return
        if self._errands.lost():
            self._write_unsaid()
        elif not self._errands.working():
            self._unsaid.clear()

    def working(self) -> bool:
        """Say whether a record is on its way through the log, with its locks."""
        return self._errands.working()

    def reset_after_fork(self) -> None:
        """In a forked child: forget the parent's thread, locks and texts. Takes no lock, writes nothing."""
        self._errands.reset_after_fork()
        self._unsaid = []
        self._stderr.reset_after_fork()

    def close(self) -> None:
        """Give back the duplicate of standard error, after what is still unsaid."""
        self._errands.wait()
        self.settle()
        self._stderr.close()

    def _write_unsaid(self) -> None:
        unsaid, self._unsaid = self._unsaid, []
        for text in unsaid:
            self._stderr.write(text)

    def _log(self, level: int, text: str) -> None:
        # All of it here, on the throw-away thread: even getLogger and isEnabledFor take logging's own lock.
        logger = logging.getLogger(self._logger)
        if not logger.isEnabledFor(level):
            return
        record = logger.makeRecord(logger.name, level, "watchdog_hook", 0, text, (), None)
        record.threadName = THREAD
        logger.handle(record)


class StandardError:
    """A duplicate of a descriptor, written without ever waiting longer than a second in all."""

    def __init__(self, fd: int) -> None:
        self._errands = Errands("watchdog-hook-err", WRITE_PATIENCE)
        self._fd: int | None = None
        self._sock: socket.socket | None = None
        self._blocks = False
        try:
            self._witness = Own(memory("watchdog_hook.stderr"))
        except (OSError, AttributeError):  # no such memory here, or no number is free
            self._witness = Own(-1)
        try:
            kind = os.fstat(fd).st_mode
            if stat.S_ISSOCK(kind):
                self._sock = _socket_over(fd)
            elif stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
                self._fd, self._blocks = _own_opening(fd)
            else:  # a file does not block, and only a duplicate shares its position
                self._fd = duplicate(fd)
        except OSError:  # closed: then there is nobody to tell
            pass
        held = self._fd if self._sock is None else self._sock.fileno()
        witness = self._witness if self._witness.is_ours() else None
        self._own = Own(-1 if held is None else held, witness)

    def write(self, text: str) -> None:
        """Write a text as lines of its own, as much of it as fits within a second. Never raises."""
        data = (text.rstrip("\n") + "\n").encode("utf-8", "replace")
        if self._blocks:
            # Only here may a write get stuck for good, when others fill the pipe between look and write.
            self._errands.send(lambda: self._write(data))
        else:
            self._write(data)

    def close(self) -> None:
        """Close the duplicate."""
        self._fd = None
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.detach()
        self._own.close()
        self._witness.close()

    def reset_after_fork(self) -> None:
        """Forget the parent's thread and lock."""
        self._errands.reset_after_fork()

    def _write(self, data: bytes) -> None:
        until = time.monotonic() + WRITE_PATIENCE
        while data:
            try:
                data = data[self._put(data[:_PIECE]) :]
                continue
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno != errno.EINTR:
                    return
            left = until - time.monotonic()
            if left <= 0:
                return
            self._wait_for_room(min(left, 0.1))

    def _put(self, data: bytes) -> int:
        sock = self._sock
        if not self._own.is_ours():  # there was none, or the host has closed it
            return len(data)
        if sock is not None:
            return sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        if self._blocks and not self._wait_for_room(0):
            raise BlockingIOError
        return os.write(self._own.fd, data)

    def _wait_for_room(self, seconds: float) -> bool:
        fd = self._sock.fileno() if self._sock is not None else self._fd
        if fd is None or fd < 0:
            return False
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        return bool(poll.poll(seconds * 1000))


def _own_opening(fd: int) -> tuple[int, bool]:
    """Open a pipe or terminal anew, non-blocking; where that is refused duplicate it: it may block."""
    try:
        return without_waiting(fd), False
    except OSError:  # the pipe belongs to another user, or there is no /proc
        return duplicate(fd), True


def _socket_over(fd: int) -> socket.socket:
    """Return a socket object over a duplicate, leaving the flags of the original alone."""
    # The object is made for another socket first: made from the descriptor, it would set the original
    # non-blocking where a default timeout is set.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        sock = socket.socket(fileno=duplicate(other.fileno()))
    try:
        sock.settimeout(None)
        os.dup2(fd, sock.fileno(), inheritable=False)
    except OSError:
        sock.close()
        raise
    return sock

"""The watched process: whether it still lives, and signals that reach it and no other."""

from __future__ import annotations

import os
import select
import time

from watchdog_hook.sentinel import proc

LOOK_EVERY = 1.0  # seconds, where the kernel does not tell us that it has ended


class Life:
    """A process known by its pid and the time of its start. `started` is 0 where that could not be read."""

    def __init__(self, pid: int, started: int) -> None:
        self.pid = pid
        self._started = started
        self._poll: select.poll | None = None
        try:
            self._fd = os.pidfd_open(pid)
        except OSError:  # an old kernel, a seccomp profile, or it is gone
            self._fd = -1
        else:
            self._poll = select.poll()
            self._poll.register(self._fd, select.POLLIN)

    @property
    def told(self) -> bool:
        """Whether the kernel tells us at once when it ends."""
        return self._fd >= 0

    def ends_within(self, seconds: float) -> bool:
        """Wait for so long, and tell whether it has ended. Returns at once where it has."""
        if self._poll is not None:
            return bool(self._poll.poll(seconds * 1000))
        until = time.monotonic() + seconds
        while self.is_same():
            left = until - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, LOOK_EVERY))
        return True

    def is_same(self) -> bool:
        """Tell whether a process of this pid lives that may be the one we know; a hidden one may be."""
        fields = proc.stat(f"/proc/{self.pid}/stat")
        if fields:
            return fields[0] not in "ZX" and self._started in (0, int(fields[19]))
        try:
            os.kill(self.pid, 0)
        except OSError:  # gone, or it is somebody else's by now
            return False
        return True

    def send(self, number: int, thread: int = 0) -> bool:
        """Send a signal, after a look at who that is; to a thread of it where one is given."""
        if not self.is_same():
            return False
        if thread and not os.path.exists(f"/proc/{self.pid}/task/{thread}"):
            return False  # it has ended, and its number may be another process's
        try:
            if self._fd >= 0 and thread in (0, self.pid):
                import signal

                signal.pidfd_send_signal(self._fd, number)
            else:
                # Of a process's threads the kernel takes the one that is named, if it does not block the signal
                # (kernel/signal.c, complete_signal).
                os.kill(thread or self.pid, number)
        except OSError:
            return False
        return True

"""The host's metrics, sent from a thread of their own: what sends them may block, and the watchdog must not."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from watchdog_hook.errand import Errands

PATIENCE = 5.0  # seconds until a send counts as lost
MOST = 1000  # sends kept while one does not return; the oldest go first


class Meter:
    """A queue in front of a backend. While that is stuck nothing is sent, and nobody waits."""

    def __init__(self) -> None:
        self._queue: deque[Callable[[], object]] = deque(maxlen=MOST)
        self._errands = Errands("watchdog-hook-metrics", PATIENCE)

    def add(self, send: Callable[[], object]) -> None:
        """Queue one call of the backend, which must not raise. From any thread; costs one append."""
        self._queue.append(send)

    def settle(self) -> None:
        """Send what is queued, unless the sends before are still away."""
        if self._queue and not self._errands.away():
            self._errands.send(self._send, wait=0)

    def reset_after_fork(self) -> None:
        """Forget the parent's thread and lock, and what it had to say."""
        self._errands.reset_after_fork()
        self._queue.clear()

    def working(self) -> bool:
        """Say whether sends are under way and expected back."""
        return self._errands.working()

    def _send(self) -> None:
        while self._queue:
            self._queue.popleft()()

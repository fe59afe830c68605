"""The loop's stack: at every look while the loop is silent, and now and then while it beats."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from watchdog_hook.core.model import Sample

if TYPE_CHECKING:
    from watchdog_hook.book import Book
    from watchdog_hook.failopen import FailOpen
    from watchdog_hook.ports import Evidence
    from watchdog_hook.recorder import Recorder

STILL_LOOKS = 3  # equal looks before a stack counts as settled somewhere else
HEALTHY_EVERY = 10  # looks at a loop that beats, until one stack of it is taken
KEPT = 240

UNSEEN = (0, 0)


class Sampler:
    """Remembers what was seen of one silence, and whether anything moved in it."""

    def __init__(self, evidence: Evidence, recorder: Recorder, book: Book, fail: FailOpen) -> None:
        self._evidence = evidence
        self._recorder = recorder
        self._book = book
        self._fail = fail
        self._healthy_in = HEALTHY_EVERY // 2  # not in the look that reads the pressure
        self.watch(0, 0)

    def watch(self, ident: int, native_id: int) -> None:
        """Look at this thread from now on."""
        self._ident, self._native_id = ident, native_id
        self._forget()

    def begin(self) -> None:
        """Forget what was seen: the loop has beaten."""
        if self._seen != UNSEEN:
            self._forget()

    def _forget(self) -> None:
        self.taken: deque[Sample] = deque(maxlen=KEPT)
        self._seen = UNSEEN  # hash of the loop's stack, and its call, at the last look
        self._still = 0  # looks since that changed

    @property
    def stack(self) -> int:
        """Hash of the loop's stack at the last look; 0 where there was none."""
        return self._seen[0]

    def healthy(self, beat_at: float) -> None:
        """Take the loop's stack now and then while it beats: what a stalled one is held against."""
        self._recorder.beat_seen(beat_at)
        self._healthy_in -= 1
        if self._healthy_in < 0:
            self._healthy_in = HEALTHY_EVERY - 1
            # The loop runs meanwhile. Should it leave a frame in the microseconds in which that is held here,
            # the frame's values are released in this thread.
            self._recorder.healthy(self._evidence.frames(self._ident))

    def silent(self, silence: float) -> bool:
        """Take the stack of a loop that has been silent for so long; tell whether it moved since the last look."""
        self._recorder.silent()
        reading = self._evidence.thread(self._ident, self._native_id)
        if reading is None:
            return False
        flight = self._book.current(self._ident)
        seen = (reading.stack, flight.serial if flight else 0)
        moved = bool(self._seen[0]) and seen != self._seen
        self._still = 0 if moved else self._still + 1
        self._seen = seen
        kernel = self._fail.run("kernel", self._evidence.in_kernel, self._native_id)
        self.taken.append(Sample(silence, self._evidence.frames(self._ident), kernel))
        return moved

    def paused(self) -> None:
        """The process did not run: that nothing moved meanwhile says nothing."""
        self._still = 0

    def settled_elsewhere(self, stack: int) -> bool:
        """Tell whether the loop has stood for some looks, and elsewhere than on this stack."""
        return self._still >= STILL_LOOKS and self._seen[0] != stack

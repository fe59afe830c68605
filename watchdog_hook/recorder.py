"""The flight recorder: the last turns of the loop with their phases, and where it stands on healthy days."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING, Protocol, TypeVar

from watchdog_hook.core.observed import Iteration

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchdog_hook.core.model import Frame

T = TypeVar("T")
Stack = tuple["Frame", ...]

TURNS = 50  # kept, before the present one
PHASES = 600  # that have ended; a turn of the scheduler has three to ten
DEPTH = 20  # of phases in one another
STACKS = 200  # distinct ones of healthy samples
FRAMES = 10_000  # of those stacks in all: about a megabyte if no two were the same


class Open(Protocol):
    """A phase that goes on."""

    name: str
    started: float
    outer: Open | None


class Recorder:
    """
    Remembers in memory, within bounds. The loop's thread writes, the watchdog's reads.

    No lock: every step of the loop's is one store or one append, whole by itself in CPython.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.watch(0, now())

    def watch(self, thread: int, beat_at: float) -> None:
        """Forget everything, and record this thread from now on."""
        self._thread = thread
        self._beat_at = beat_at
        self._turns: deque[float] = deque(maxlen=TURNS + 1)
        self.phases: deque[tuple[str, float, float]] = deque(maxlen=PHASES)  # name, start, end
        self.inside: Open | None = None  # the innermost phase that goes on
        self._picture = Picture()
        self._unproven: Stack = ()

    def turn(self, now: float) -> None:
        """A turn of the loop begins. For the loop's thread: two stores and an append."""
        # A timeout of ours can end a phase at the very first instruction of its end.
        self.inside = None
        self._turns.append(now)

    # --- for the watchdog's thread ----------------------------------------------------------------

    def beat_seen(self, beat_at: float) -> None:
        """The loop has beaten since the look before: what was taken then was a healthy stack."""
        self._beat_at = beat_at
        if self._unproven:
            self._picture.add(self._unproven)
            self._unproven = ()

    def healthy(self, frames: Stack) -> None:
        """Take a stack of the loop while it beats. It may just have got stuck: it counts at the next beat seen."""
        self._unproven = frames

    def silent(self) -> None:
        """The loop has been silent for a while: the stack taken last was no healthy one."""
        self._unproven = ()

    def normal(self, thread: int) -> tuple[tuple[Stack, int], ...]:
        """Return the healthy stacks of this thread and how often each was seen, the most frequent first."""
        return self._picture.stacks() if thread == self._thread else ()

    def iterations(self) -> tuple[Iteration, ...]:
        """
        Return the last turns of the loop, the present one last, with their phases in the order of their start.

        A phase inside another one is listed beside it, and its time is in both. A phase that goes on has lasted
        until now. Where nobody says when a turn begins, the present one began at the last beat that was seen,
        and there are none before: between two beats that were seen may lie many.
        """
        going_on = self._going_on()
        now = self.now()
        ended = _copied(self.phases)
        turns = _copied(self._turns) or [self._beat_at]
        if len(ended) == PHASES:
            # Of turns before the first phase that is left the phases may be gone.
            turns = [*(start for start in turns[:-1] if start >= ended[0][1]), turns[-1]]
        phases: list[list[tuple[str, float, float]]] = [[] for _ in turns]
        for name, start, end in ended:
            at = bisect_right(turns, start) - 1
            if at >= 0:
                phases[at].append((name, start - turns[at], end - start))
        closed = {phase[:2] for phase in ended[-DEPTH:]}
        for name, began in going_on:
            if (name, began) not in closed:
                start = max(began, turns[-1])
                phases[-1].append((name, start - turns[-1], max(0.0, now - start)))
        ends: list[float | None] = [*turns[1:], None]
        return tuple(
            Iteration(
                started_ago_s=now - start,
                duration_s=None if end is None else end - start,
                phases=tuple(sorted(found, key=lambda phase: (phase[1], -phase[2]))),
            )
            for start, end, found in zip(turns, ends, phases, strict=True)
        )

    def _going_on(self) -> list[tuple[str, float]]:
        found: list[tuple[str, float]] = []
        phase = self.inside
        while phase is not None and len(found) < DEPTH:
            found.append((phase.name, phase.started))
            phase = phase.outer
        return found


class Picture:
    """Stacks and how often each was seen. The least frequent make room, among those the one seen longest ago."""

    def __init__(self) -> None:
        self._stacks: dict[Stack, int] = {}  # the one seen last at the end
        self._frames: dict[Frame, Frame] = {}  # equal frames are one value: hundreds, not thousands
        self._size = 0  # frames of all stacks

    def add(self, frames: Stack) -> None:
        """Count a stack once more."""
        known = self._frames
        frames = tuple([known.setdefault(frame, frame) for frame in frames])
        count = self._stacks.pop(frames, 0)
        if not count:
            self._make_room(len(frames))
            self._size += len(frames)
        self._stacks[frames] = count + 1

    def stacks(self) -> tuple[tuple[Stack, int], ...]:
        """Return the stacks with their counts, the most frequent first."""
        return tuple(sorted(self._stacks.items(), key=lambda item: -item[1]))

    def _make_room(self, frames: int) -> None:
        while self._stacks and (len(self._stacks) >= STACKS or self._size + frames > FRAMES):
            # By items: to look a stack up is to hash each of its frames.
            least, _ = min(self._stacks.items(), key=lambda item: item[1])
            del self._stacks[least]
            self._size -= len(least)
        if len(self._frames) > FRAMES:
            self._frames = {frame: frame for stack in self._stacks for frame in stack}


def _copied(queue: deque[T]) -> list[T]:
    """Return what is in a queue that another thread appends to."""
    for _ in range(10):
        try:
            return list(queue)
        except RuntimeError:  # it was appended to meanwhile
            continue
    return []

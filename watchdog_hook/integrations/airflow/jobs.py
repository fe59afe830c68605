"""What is known of an executor's jobs between two attempts at their pods. Bookkeeping only: no call, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any


@dataclass
class Attempt:
    """A creation whose outcome is unknown. The name is kept so that the server itself refuses a second pod."""

    name: str
    namespace: str
    failures: int = 0  # counted against requeue_limit
    answers: int = 0  # the server's, when the last attempt ended
    incident: str | None = None  # of the last attempt
    seen: bool = False  # the watcher reported the pod: it exists


class Jobs:
    """The jobs in one task queue, and the attempts whose outcome is unknown."""

    def __init__(self) -> None:
        self._queued: Counter[Hashable] = Counter()
        self._attempts: dict[Hashable, Attempt] = {}
        self._ours: set[Hashable] = set()  # keys whose newest job was put back by us
        # Keys whose job has waited while the server was silent.
        self._doubtful: set[Hashable] = set()
        self._since: dict[Hashable, float] = {}  # when a key came into the queue first

    # --- the queue ------------------------------------------------------------------------------

    def put(self, key: Hashable, now: float, *, ours: bool = False) -> None:
        """A job of this key went into the queue at this time; `ours`: we put it back."""
        if key is None:
            return
        self._since.setdefault(key, now)
        self._queued[key] += 1
        (self._ours.add if ours else self._ours.discard)(key)

    def taken(self, key: Hashable) -> None:
        """A job of this key came out of the queue."""
        if key is None:
            return
        self._queued[key] -= 1
        if self._queued[key] <= 0:
            del self._queued[key]

    def outdated(self, key: Hashable) -> bool:
        """Tell whether a newer job of this key waits. The queue is first in, first out."""
        return self._queued[key] > 0

    def doubt_all(self) -> None:
        """The server fell silent: whoever waits may have been reset by a sibling when its turn comes."""
        self._doubtful.update(self._queued)

    def doubtful(self, key: Hashable) -> bool:
        """Tell whether to ask the database before a pod is created for the job that came out last."""
        return key in self._ours or key in self._doubtful

    def put_back(self, key: Hashable) -> bool:
        """Tell whether the job of this key that came out last had been put back by us."""
        return key in self._ours

    @property
    def waiting(self) -> int:
        """How many jobs are in the queue."""
        return sum(self._queued.values())

    def oldest(self) -> float | None:
        """Return when the job came that has waited for a pod the longest; None where none waits."""
        queued = self._queued.copy()
        return min((self._since[key] for key in queued if key in self._since), default=None)

    # --- attempts -------------------------------------------------------------------------------

    def attempt(self, key: Hashable) -> Attempt | None:
        """Return the attempt of this key whose outcome is unknown."""
        return self._attempts.get(key)

    def unknown(
        self,
        key: Hashable,
        name: str,
        namespace: str,
        answers: tuple[int, int],
        incident: str | None = None,
        counts: bool = True,
    ) -> int:
        """
        An attempt ended without an answer. Return how many count against the limit.

        `answers`: how many the server had given when the attempt began, and when it ended. An attempt counts
        only if the server answered something else since the one before: a server that is silent for
        everybody is not this job's fault.
        """
        began, ended = answers
        attempt = self._attempts.get(key)
        if attempt is None or attempt.name != name:
            attempt = self._attempts[key] = Attempt(name, namespace, failures=1)
        elif counts and began > attempt.answers:
            attempt.failures += 1
        attempt.answers = ended
        attempt.incident = incident or attempt.incident
        return attempt.failures

    def settled(self, key: Hashable) -> None:
        """The outcome is known, or does not matter any more: an answer came, or the key was queued anew."""
        self._attempts.pop(key, None)
        self._since.pop(key, None)
        self._ours.discard(key)
        self._doubtful.discard(key)

    def pod_seen(self, name: str) -> None:
        """The watcher reported a pod. If it is one of ours with an unknown outcome, it was created."""
        for attempt in self._attempts.values():
            if attempt.name == name:
                attempt.seen = True


def key_of(job: Any) -> Hashable:
    """
    Return the task instance key of a job: a tuple up to provider 9.x, a dataclass from 10.x on.

    None for what is no job: a signal that falls into a proxy's exchange can leave it an answer behind.
    """
    if hasattr(job, "key"):
        key: Hashable = job.key
        return key
    return job[0] if isinstance(job, tuple) and job else None


def ti_text(key: Any) -> str:
    """Return a task instance's key for a log line."""
    if not hasattr(key, "dag_id"):
        return str(getattr(key, "id", key))
    mapped = f"[{key.map_index}]" if getattr(key, "map_index", -1) >= 0 else ""
    return f"{key.dag_id}.{key.task_id}{mapped} {key.run_id} try {key.try_number}"

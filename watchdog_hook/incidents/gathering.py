"""All that is seen at one moment: from the process, the host, the book of calls and the recorder."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from watchdog_hook.core.model import Sample, Snapshot
from watchdog_hook.core.observed import Observed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from watchdog_hook.book import Book
    from watchdog_hook.failopen import FailOpen
    from watchdog_hook.incidents.episode import Episode
    from watchdog_hook.ports import Evidence, Host
    from watchdog_hook.recorder import Recorder


class Gathering:
    """Makes snapshots. What fails of one is left out of it."""

    def __init__(
        self, book: Book, evidence: Evidence, host: Host, fail: FailOpen, recorder: Recorder
    ) -> None:
        self._book = book
        self._evidence = evidence
        self._host = host
        self._fail = fail
        self._recorder = recorder

    def gather(self, episode: Episode, samples: Iterable[Sample]) -> Snapshot:
        """Return what is seen now of the process and of what the episode's thread waits on, with these samples."""
        thread = episode.thread
        stacks = self._evidence.stacks(thread)
        observed = (
            self._fail.run(
                "observation",
                self._evidence.observe,
                stacks[0].native_id if stacks else None,
                since=episode.since,
                late_s=episode.late_s,
            )
            or Observed()
        )
        observed = self._fail.run("places", self._placed, observed, thread) or observed
        executors = self._fail.run("executors", self._host.executors) or ()
        iterations = self._fail.run("iterations", self._recorder.iterations) or ()
        normal = self._fail.run("healthy samples", self._recorder.normal, thread) or ()
        in_flight, recent = self._book.records({stack.ident: stack.name for stack in stacks})
        return Snapshot(
            threads=stacks,
            samples=tuple(samples),
            in_flight=in_flight,
            recent=recent,
            unavailable=self._evidence.unavailable(),
            observed=dataclasses.replace(
                observed,
                executors=executors,
                iterations=iterations,
                normal=normal,
                gil_s=episode.gil_s,
                ended_by=episode.ended_by,
            ),
        )

    def _placed(self, observed: Observed, thread: int) -> Observed:
        """Name the other ends of what the stalled thread waits on, and ask the database if it is one of them."""
        kernel = observed.kernel
        if kernel is None or kernel.wait is None:
            return observed
        flight = self._book.current(thread)
        placed, database = [], None
        for descriptor in kernel.wait.descriptors:
            peer = self._host.named(descriptor)
            if (
                peer is None
                and descriptor.kind == "tcp"
                and flight is not None
                and flight.call.peer
            ):
                peer = f"{flight.call.peer.host} (from the call)"
            placed.append(dataclasses.replace(descriptor, peer=peer))
            database = database or self._host.database(descriptor)
        wait = dataclasses.replace(kernel.wait, descriptors=tuple(placed))
        return dataclasses.replace(
            observed, kernel=dataclasses.replace(kernel, wait=wait), database=database
        )

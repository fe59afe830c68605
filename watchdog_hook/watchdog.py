"""The watchdog: look, judge, gather, diagnose, act, report. The only place that knows the order."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from watchdog_hook.book import Book, Guard
from watchdog_hook.calls import CallWatch
from watchdog_hook.config import Config
from watchdog_hook.core import ladder, report
from watchdog_hook.core.diagnosis import diagnose
from watchdog_hook.core.ladder import Progress, Step
from watchdog_hook.core.model import (
    Call,
    CallRecord,
    Clock,
    Deed,
    Finding,
    Frame,
    Incident,
    InFlight,
    Sample,
    Snapshot,
    StuckCallTimeout,
    ThreadReading,
    ThreadStack,
)
from watchdog_hook.core.stall import (
    Patience,
    Paused,
    Reading,
    Slow,
    SlowEnded,
    StallBegan,
    StallEnded,
    State,
    judge,
)
from watchdog_hook.failopen import FailOpen
from watchdog_hook.notes import Notes

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

THREAD_NAME = "watchdog-hook"
SLOW_EVERY = 600.0  # seconds between two lines on a slow phase
STILL_LOOKS = 3  # equal looks before a stack counts as settled somewhere else
METRICS_EVERY = 10.0  # seconds
LEAST_TOLERANCE = 2.0  # seconds the watchdog's own wait may be late without the process counting as paused

UNDIAGNOSED = Finding("unknown", "low", "No diagnosis was made; the stacks stand below.")


class Evidence(Protocol):
    """Reads this process and changes nothing. Its methods never raise."""

    def stacks(self, first: int | None) -> tuple[ThreadStack, ...]: ...
    def frames(self, ident: int) -> tuple[Frame, ...]: ...
    def thread(self, ident: int, native_id: int | None) -> ThreadReading | None: ...
    def debugger(self) -> bool: ...
    def pressure(self) -> Any: ...
    def pause_cause(self, before: Any, after: Any) -> str: ...
    def unavailable(self) -> tuple[tuple[str, str], ...]: ...
    def process_started(self) -> float | None: ...
    def versions(self) -> dict[str, str]: ...


class Actions(Protocol):
    """Changes the process, or leaves something behind. What fails is said by the actions themselves."""

    def arm(self, current: Callable[[int], InFlight | None]) -> str | None: ...
    def disarm(self) -> None: ...
    def forget(self) -> None: ...
    def new_incident(self, wall: float) -> tuple[str, str]: ...
    def record(self, incident: Incident, text: str) -> object: ...
    def update(self, incident: Incident, delta: str = "") -> None: ...
    def say(self, level: str, text: str, *, wait: bool = False) -> None: ...
    def urgent(self, line: str) -> None: ...
    def settle(self) -> None: ...
    def levers(self, flight: InFlight, reading: ThreadReading) -> tuple[str, ...]: ...
    def fire(
        self, lever: str, flight: InFlight, reading: ThreadReading, incident: str | None, age: float
    ) -> str: ...
    def terminate(self) -> None: ...
    def working(self) -> bool: ...


class Host:
    """What only a host knows. This one knows nothing; Airflow's is in integrations."""

    job_id: str | None = None

    def versions(self) -> dict[str, str]:
        """Return names and versions of what runs here."""
        return {}

    def mask(self, text: str) -> str:
        """Return a text from outside without the secrets the host knows."""
        return text

    def waiting(self) -> int | None:
        """Return how many task instances wait, without a call to anybody; None: not known."""
        return None

    def gauge(self, name: str, value: float) -> None:
        """Send a gauge."""

    def incr(self, name: str, tags: dict[str, str] | None = None) -> None:
        """Count one."""

    def timing(self, name: str, seconds: float) -> None:
        """Send a duration."""

    def breaker_open(self) -> bool:
        """Tell whether some server is being left alone."""
        return False

    def working(self) -> bool:
        """Tell whether something of the host's part is under way that a fork should wait for."""
        return False

    def tick(self, now: float) -> None:
        """Do what is due from the watchdog's thread; called at every look."""


class SystemClock:
    """Real time. `stop` ends the wait."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def wait(self, seconds: float) -> bool:
        """Wait; return True at once when stopped."""
        return self._stopped.wait(seconds)

    def stop(self) -> None:
        """End the wait, now and from now on."""
        self._stopped.set()


@dataclass
class Episode:
    """One incident while it lasts: a silence of the loop, or one stuck call of another thread."""

    incident: Incident
    path: str
    thread: int
    progress: Progress = field(default_factory=Progress)
    dumped: bool = False
    dumped_at: float = 0.0  # seconds of silence at the last dump
    dumped_stack: int = 0
    dump_before: Snapshot | None = None


class Phase:
    """Marks where the loop is, for the time of a with statement. Nests."""

    __slots__ = ("_before", "_dog", "_name")

    def __init__(self, dog: Watchdog, name: str) -> None:
        self._dog = dog
        self._name = name

    def __enter__(self) -> None:
        self._before = self._dog.where
        self._dog.where = self._name

    def __exit__(self, *_: object) -> None:
        self._dog.where = self._before


class Watchdog:
    """
    Watches one loop: the thread that starts it. `with Watchdog(Config(dump_after=30)) as dog: dog.beat()`.

    `clock`, `evidence`, `actions` and `host` are replaceable; None takes the real ones. A test passes a
    ManualClock and calls `look` itself, without a thread.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        clock: Clock | None = None,
        evidence: Evidence | None = None,
        actions: Actions | None = None,
        host: Host | None = None,
    ) -> None:
        self.config = config = config or Config()
        self._clock: Any = clock or SystemClock()
        self._now = self._clock.now
        self.book = Book(self._now)
        self.host = host or Host()
        if evidence is None:
            from watchdog_hook.evidence.here import Evidence as RealEvidence

            evidence = RealEvidence()
        if actions is None:
            from watchdog_hook.actions.deeds import Deeds

            actions = Deeds(config, self.mask)
        self._evidence = evidence
        self._actions = actions
        self.fail = FailOpen(lambda text: self._actions.say("ERROR", self.mask(text)))
        self._on_forget: list[Callable[[], None]] = []
        self._notes = Notes()
        self._calls = CallWatch(self, evidence, actions)
        self.where: str | None = None  # the loop's phase
        self._beat_at = self._now()
        self._state = State.begin(self._beat_at)
        self._patience = Patience(
            stall=config.dump_after,
            sample=config.sample_after,
            startup=config.startup_grace,
            tolerance=max(LEAST_TOLERANCE, 3 * config.poll_interval),
        )
        self._limits = ladder.Limits(config.sample_after, config.dump_after, config.terminate_after)
        self._progress = Progress()
        self._samples: deque[Sample] = deque(maxlen=240)
        self._stack = (0, 0)  # the loop's stack hash and call at the last look
        self._still = 0
        self._episode: Episode | None = None
        self._pauses: deque[tuple[float, float]] = deque(maxlen=32)
        self._usage: Any = None
        self._slow: dict[str, tuple[float, int, float]] = {}
        self._calls_at_beat = 0
        self._metrics_at = 0.0
        self._thread: threading.Thread | None = None
        self._pid = 0
        self.ident = threading.get_ident()
        self.native_id = threading.get_native_id()
        self.busy = False  # inside the working part: files, logging, metrics

    # --- for the watched loop -------------------------------------------------------------------

    def beat(self, phase: str | None = None) -> None:
        """Say that the loop is alive. One store of the time: it takes no lock and cannot fail."""
        self._beat_at = self._now()
        if phase is not None:
            self.where = phase

    def phase(self, name: str) -> Phase:
        """Return a context that marks where the loop is, for the reports."""
        return Phase(self, name)

    def guard(self, name: str) -> Guard:
        """
        Return a context around a call that may be interrupted, in any thread.

        Raises StuckCallTimeout out of the block when the watchdog ended the call.
        """
        return Guard(self.book, name)

    def enter(
        self,
        call: Call,
        *,
        guarded: bool = False,
        limit: float | None = None,
        error: type[StuckCallTimeout] = StuckCallTimeout,
    ) -> InFlight:
        """Write a call of this thread into the book; `leave` takes it out."""
        return self.book.enter(call, guarded=guarded, limit=limit, error=error)

    def leave(self, flight: InFlight, answer: str | None = None) -> None:
        """Take a call out of the book, with what came of it."""
        self.book.leave(flight, answer)

    def note(self, event: str, **fields: Any) -> None:
        """Have an event logged by the watchdog's thread at its next look. Costs one append."""
        self._notes.add(event, fields)

    # --- life -----------------------------------------------------------------------------------

    def __enter__(self) -> Watchdog:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Watch the calling thread from now on, from a daemon thread of our own."""
        from watchdog_hook import fork

        self.ident = threading.get_ident()
        self.native_id = threading.get_native_id()
        self._beat_at = self._now()
        self._state = State.begin(self._beat_at)
        self._actions.arm(self.book.current)
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        fork.watch(self)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching, and give back what was taken. Waits for the thread, two seconds at most."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._clock.stop()
        thread.join(2.0)
        self._actions.disarm()

    def forget(self) -> None:
        """In a forked child: no thread, no signal, no call; says nothing. There may be no lock to take."""
        self._thread = None
        self.book.forget()
        self._actions.forget()
        for forget in self._on_forget:
            forget()

    def on_forget(self, forget: Callable[[], None]) -> None:
        """Have this called in every forked child. It must take no lock and say nothing."""
        self._on_forget.append(forget)

    @property
    def working(self) -> bool:
        """Whether the watchdog holds, or may hold, a lock that a fork must not copy."""
        return self.busy or self._actions.working() or self.host.working()

    def _run(self) -> None:
        while True:
            asleep = self._now()
            self.busy = False
            if self._clock.wait(self.config.poll_interval):
                break
            self.busy = True
            self.fail.run(
                "look", self.look, max(0.0, self._now() - asleep - self.config.poll_interval)
            )
            if "look" in self.fail.off:
                break
        self.busy = False

    # --- one look -------------------------------------------------------------------------------

    def look(self, overslept: float = 0.0) -> None:
        """Look once. `overslept`: by how much the wait before it was longer than asked, in seconds."""
        now = self._now()
        beat_at = self._beat_at
        if beat_at != self._state.beat_at:
            self._begin_iteration()
        # First what the loop did: its notes are older than what is judged now.
        for level, line in self._notes.drain(now):
            self._actions.say(level, self.mask(line))
        moved = self._sample(now)
        self._state, events = judge(
            self._state, Reading(now, beat_at, overslept, moved), self._patience
        )
        for event in events:
            self._handle(event, now)
        silence = self._state.silence(now)
        if overslept <= self._patience.tolerance:
            self._climb(now, silence)
            if self.config.may_interrupt:
                self.fail.run("interrupt", self._calls.look, now)
        self._usage = self._evidence.pressure()
        self.fail.run("host", self.host.tick, now)
        self._actions.settle()
        self.fail.run("metrics", self._send_metrics, now, silence)

    def _begin_iteration(self) -> None:
        self._progress = Progress()
        self._samples.clear()
        self._stack, self._still = (0, 0), 0
        self._calls_at_beat = self.book.entered

    def _sample(self, now: float) -> bool:
        """Sample the loop's stack when it is silent. Return whether it moved since the last look."""
        silence = now - self._beat_at - self._state.excused
        if silence < self.config.sample_after:
            return False
        reading = self._evidence.thread(self.ident, self.native_id)
        if reading is None:
            return False
        flight = self.book.current(self.ident)
        stack = (reading.stack, flight.serial if flight else 0)
        moved = bool(self._stack[0]) and stack != self._stack
        self._still = 0 if moved else self._still + 1
        self._stack = stack
        self._samples.append(Sample(silence, self._evidence.frames(self.ident)))
        return moved

    def _handle(self, event: object, now: float) -> None:
        if isinstance(event, StallBegan):
            self.open_loop_episode(event.silence)
        elif isinstance(event, StallEnded):
            self._end_stall(event.silence)
        elif isinstance(event, Slow):
            self._report_slow(event.silence, now)
        elif isinstance(event, SlowEnded):
            self._remember_slow(event.silence)
        elif isinstance(event, Paused):
            self._pauses.append((now, event.seconds))
            self._calls.reset()
            self._still = 0
            cause = self._evidence.pause_cause(self._usage, self._evidence.pressure())
            self.say("WARNING", "paused", pause_s=event.seconds, cause=cause, phase=self.where)
            self._count("pauses")

    def _climb(self, now: float, silence: float) -> None:
        episode = self._episode
        changed = (
            episode is not None
            and episode.dumped
            and self._still >= STILL_LOOKS
            and self._stack[0] != episode.dumped_stack
        )
        self._progress, steps = ladder.due(
            self._limits, self._progress, silence, stalled=self._state.stalled, changed=changed
        )
        if Step.DUMP in steps:
            episode = self._episode or self.open_loop_episode(silence)
            if not episode.dumped:
                self.dump(episode, silence)
        if Step.DELTA in steps and episode is not None:
            self.fail.run("delta", self._dump_again, episode, silence)
        if Step.TERMINATE in steps:
            self._end_process(silence)

    # --- episodes and dumps ---------------------------------------------------------------------

    def episode_of(self, flight: InFlight, now: float) -> Episode:
        """Return the episode a stuck call belongs to, dumped before anything is done to the call."""
        if flight.thread == self.ident:
            episode = self._episode or self.open_loop_episode(self._state.silence(now))
        else:
            episode = self.new_episode(flight.thread, now - flight.started)
        return episode

    def open_loop_episode(self, silence: float) -> Episode:
        """Begin the loop's incident: say it, count it."""
        import dataclasses

        self._state = dataclasses.replace(self._state, stalled=True)
        self._episode = episode = self.new_episode(self.ident, silence)
        flight = self.book.current(self.ident)
        self.say(
            "WARNING",
            "stall_began",
            incident=episode.incident.id,
            silent_s=silence,
            phase=self.where,
            call=flight.call.name if flight else None,
            peer=str(flight.call.peer) if flight and flight.call.peer else None,
        )
        return episode

    def new_episode(self, thread: int, silence: float) -> Episode:
        """Return a new incident without a dump yet."""
        wall = self._clock.wall()
        incident_id, path = self._actions.new_incident(wall)
        incident = Incident(
            id=incident_id,
            host=_hostname(),
            pid=self._pid or _pid(),
            began=wall - silence,
            first_dump=wall,
            silence_s=silence,
            phase=self.where if thread == self.ident else None,
            finding=UNDIAGNOSED,
            snapshot=Snapshot(()),
            job_id=self.host.job_id,
        )
        return Episode(incident, path, thread)

    def dump(self, episode: Episode, silence: float) -> None:
        """Gather, diagnose and write the full dump of an episode."""
        episode.dumped = True
        if episode.thread == self.ident and not self._progress.dumps:
            self._progress = ladder.dumped(self._limits, self._progress, silence)
        # Each part by itself: a report without a diagnosis is better than none.
        snapshot = self.fail.run("evidence", self._gather, episode.thread) or Snapshot(())
        reading = self._evidence.thread(episode.thread, None)
        flight = self.book.current(episode.thread)
        now = self._now()
        age = now - flight.started - self.paused_since(flight.started) if flight else None
        finding = self.fail.run(
            "diagnosis",
            diagnose,
            snapshot,
            phase=self.where if episode.thread == self.ident else None,
            silence=silence,
            reading=reading,
            call=self._record_of(flight, snapshot),
        )
        peer = flight.call.peer if flight and flight.call.peer else reading and reading.peer
        episode.incident = incident = episode.incident.evolve(
            silence_s=silence,
            snapshot=snapshot,
            finding=finding or UNDIAGNOSED,
            call=flight.call.name if flight else None,
            peer=str(peer) if peer else None,
            age_s=age,
            waiting=self.fail.run("waiting", self.host.waiting),
            process_started=self._evidence.process_started(),
            versions={**self._evidence.versions(), **self.host.versions()},
            settings=self.config.as_text(),
        )
        episode.dumped_stack = reading.stack if reading else 0
        episode.dump_before = snapshot
        plan = self._plan(flight)
        text = report.render(incident, files=episode.path, plan=plan, limit=None)
        record = report.render(incident, files=episode.path, plan=plan)
        self._actions.record(incident, self.mask(text))
        self._actions.urgent(record.partition("\n")[0])
        self._actions.say("ERROR", self.mask(record), wait=True)
        self._count("stalls", {"verdict": incident.finding.id})

    def _dump_again(self, episode: Episode, silence: float) -> None:
        snapshot = self._gather(episode.thread)
        before = episode.dump_before or Snapshot(())
        since = silence - episode.dumped_at
        episode.incident = episode.incident.evolve(silence_s=silence)
        text = self.mask(
            report.render_delta(
                episode.incident, before, snapshot, since_s=since, files=episode.path
            )
        )
        episode.dump_before, episode.dumped_at = snapshot, silence
        episode.dumped_stack = self._stack[0]
        self._actions.update(episode.incident, text)
        self._actions.say("ERROR", text, wait=True)

    def _gather(self, thread: int) -> Snapshot:
        stacks = self._evidence.stacks(thread)
        names = {stack.ident: stack.name for stack in stacks}
        in_flight, recent = self.book.records(names)
        return Snapshot(
            threads=stacks,
            samples=tuple(self._samples) if thread == self.ident else (),
            in_flight=in_flight,
            recent=recent,
            unavailable=self._evidence.unavailable(),
        )

    def _plan(self, flight: InFlight | None) -> str | None:
        """Say what the watchdog will do about this, as far as that is decided now."""
        steps = []
        if not self.config.may_interrupt:
            steps.append("nothing is interrupted ([watchdog_hook] interrupt = off)")
        elif flight is not None and flight.guarded:
            limit = min(self.config.interrupt_after, flight.limit or self.config.interrupt_after)
            steps.append(
                f"the call gets {flight.error.__name__} once it has been silent for {limit:g} s,"
                f" or open for {ladder.OVERLONG * limit:g} s in all"
            )
        else:
            steps.append("nothing here may be interrupted: no guarded call is in flight")
        if self.config.terminate_after:
            steps.append(
                f"the process exits with 75 after {self.config.terminate_after:g} s of silence"
            )
        return "; ".join(steps) + "."

    @staticmethod
    def _record_of(flight: InFlight | None, snapshot: Snapshot) -> CallRecord | None:
        if flight is None:
            return None
        return next(
            (record for record in snapshot.in_flight if record.call == flight.call.name), None
        )

    def acted(self, episode: Episode, deed: Deed) -> None:
        """Add a deed to an episode's incident, or replace the last one of the same time and kind."""
        deeds = [
            old
            for old in episode.incident.actions
            if (old.at_s, old.deed, old.lever) != (deed.at_s, deed.deed, deed.lever)
        ]
        episode.incident = episode.incident.evolve(actions=(*deeds, deed))
        self._actions.update(episode.incident)

    def close(self, episode: Episode, lasted: float) -> None:
        """Write the end of an incident."""
        episode.incident = episode.incident.evolve(ended=self._clock.wall(), silence_s=lasted)
        if episode.dumped:
            self._actions.update(episode.incident)

    def _end_stall(self, lasted: float) -> None:
        episode, self._episode = self._episode, None
        if episode is None:
            return
        self._calls.settle()
        self.close(episode, lasted)
        landed = [deed for deed in episode.incident.actions if deed.outcome == "landed"]
        self.say(
            "WARNING",
            "stall_ended",
            incident=episode.incident.id,
            silent_s=lasted,
            phase=episode.incident.phase,
            call=episode.incident.call,
            peer=episode.incident.peer,
            outcome="interrupted" if landed else "by itself",
            interrupts=len(landed) or None,
            waiting=episode.incident.waiting,
        )
        self.fail.run("metrics", self.host.timing, "stall_duration", lasted)

    def _end_process(self, silence: float) -> None:
        episode = self._episode
        incident = episode.incident.id if episode else None
        line = report.log_line(
            "terminate", incident=incident, silent_s=silence, phase=self.where, exit_code=75
        )
        if episode is not None:
            self.acted(episode, Deed(silence, "terminate", None, "exit code 75"))
        self._actions.urgent(line)
        self._actions.say("ERROR", line, wait=True)
        self._actions.terminate()

    # --- slow, paused, metrics --------------------------------------------------------------------

    def _report_slow(self, silence: float, now: float) -> None:
        phase = self.where or "start-up"
        last, count, worst = self._slow.get(phase, (0.0, 0, 0.0))
        count, worst = count + 1, max(worst, silence)
        if last and now - last < SLOW_EVERY:
            self._slow[phase] = (last, count, worst)
            return
        self._slow[phase] = (now, 0, 0.0)
        calls = self.book.entered - self._calls_at_beat
        self.say(
            "WARNING",
            "slow",
            silent_s=silence,
            phase=phase,
            calls=calls or None,
            times=count if count > 1 else None,
            worst_s=worst if count > 1 else None,
        )

    def _remember_slow(self, lasted: float) -> None:
        phase = self.where or "start-up"
        last, count, worst = self._slow.get(phase, (0.0, 0, 0.0))
        self._slow[phase] = (last, count, max(worst, lasted))

    def paused_since(self, moment: float) -> float:
        """Return for how many seconds since this moment the process did not run."""
        return sum(min(length, end - moment) for end, length in self._pauses if end > moment)

    def _send_metrics(self, now: float, silence: float) -> None:
        if now - self._metrics_at < METRICS_EVERY:
            return
        self._metrics_at = now
        self.host.gauge("silence", silence)
        self.host.gauge("breaker_open", 1.0 if self.host.breaker_open() else 0.0)

    def _count(self, name: str, tags: dict[str, str] | None = None) -> None:
        self.fail.run("metrics", self.host.incr, name, tags)

    count = _count

    # --- saying ---------------------------------------------------------------------------------

    def say(self, level: str, event: str, **fields: Any) -> None:
        """Log one event from the watchdog's thread."""
        self._actions.say(level, self.mask(report.log_line(event, **fields)))

    def mask(self, text: str) -> str:
        """Return a text without secrets, as far as the host knows them."""
        return self.fail.run("mask", self.host.mask, text) or text

    @property
    def now(self) -> float:
        """Monotonic seconds of this watchdog's clock."""
        return float(self._now())

    def settle(self, seconds: float) -> None:
        """Let other threads run for a moment; used after a lever was pulled."""
        self._clock.wait(seconds)


def _pid() -> int:
    import os

    return os.getpid()


def _hostname() -> str:
    import socket

    return socket.gethostname()

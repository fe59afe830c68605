"""The watchdog: look, judge, gather, diagnose, act, report. The only place that knows the order."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from watchdog_hook import fork
from watchdog_hook.book import Book, Guard
from watchdog_hook.calls import CallWatch
from watchdog_hook.config import Config
from watchdog_hook.core.model import Call, Clock, InFlight, StuckCallTimeout
from watchdog_hook.core.report import log_line
from watchdog_hook.core.stall import (
    Patience,
    Paused,
    Reading,
    Slow,
    SlowEnded,
    StallBegan,
    StallEnded,
    State,
    grace,
    judge,
)
from watchdog_hook.deputies import Deputies
from watchdog_hook.errand import keep_ready
from watchdog_hook.failopen import FailOpen
from watchdog_hook.incidents import Episode, Incidents
from watchdog_hook.lateness import Lateness
from watchdog_hook.leaving import Leaving
from watchdog_hook.notes import Notes, SlowPhases
from watchdog_hook.on_demand import OnDemand
from watchdog_hook.outside import Outside
from watchdog_hook.phase import Phase
from watchdog_hook.ports import Actions, Evidence, Host, SystemClock, real_actions, real_evidence
from watchdog_hook.recorder import Recorder
from watchdog_hook.sampler import Sampler
from watchdog_hook.sentinel.pulse import OWN_BEAT_AT
from watchdog_hook.stalls import Stalls
from watchdog_hook.standstill import Standstills

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

THREAD_NAME = "watchdog-hook"
METRICS_EVERY = 10.0  # seconds
REST = 3  # times the interval between looks while all is well
LEAST_TOLERANCE = 2.0  # seconds our own wait may be late without the process counting as paused
STOP_PATIENCE = 2.0  # seconds for our thread to end
SHORT = 0.01  # seconds between two looks at whether it has said its last words


class Watchdog:
    """
    Watches one loop: the thread that starts it. `with Watchdog(Config(dump_after=30)) as dog: dog.beat()`.

    `clock`, `evidence`, `actions` and `host` are replaceable; None takes the real ones. A test passes a
    ManualClock and calls `look` itself, without a thread.
    """

    # What a beat uses: beside so many other attributes it is found faster here.
    __slots__ = ("__dict__", "__weakref__", "_now", "_shown", "where")

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
        self.host = host = host or Host()
        self._clock: Any = clock or SystemClock()
        self._now = self._clock.now
        self.book = Book(self._now)
        self.recorder = Recorder(self._now)
        self._evidence = evidence = evidence or real_evidence()
        self._actions = actions = actions or real_actions(config, self.mask)
        self.fail = FailOpen(lambda text: self._actions.say("ERROR", self.mask(text)))
        self.incidents = Incidents(
            config, self._clock, self.book, evidence, actions, host, self.fail, self.recorder
        )
        self._patience = Patience(
            stall=config.dump_after,
            sample=config.sample_after,
            startup=config.startup_grace,
            tolerance=max(LEAST_TOLERANCE, 3 * config.poll_interval),
        )
        self.outside = Outside(config)
        self._shown = self.outside.pulse.numbers
        self.deputies = Deputies(self)
        self._lateness = Lateness(evidence, self._patience.tolerance)
        self._sampler = Sampler(evidence, self.recorder, self.book, self.fail)
        self._stalls = Stalls(self, evidence, self._sampler, self._lateness)
        self._calls = CallWatch(self, evidence, actions)
        self._on_demand = OnDemand(self, self._sampler, self._lateness)
        self._standstills = Standstills(self.incidents, host)
        self._leaving = Leaving(self, actions, self._stalls)
        self._notes = Notes()
        self._slow = SlowPhases()
        self._on_forget: list[Callable[[], None]] = []
        # A wake-up costs more than a look: the caches are cold. So there are fewer while all is well.
        self._rest = max(
            config.poll_interval, min(REST * config.poll_interval, config.sample_after / 4)
        )
        self._beating = False
        self._metrics_at = 0.0
        self._thread: threading.Thread | None = None
        self.busy = False  # inside the working part: files, logging, metrics
        self.forking = False  # a fork is under way, in some thread of the host
        self.where: str | None = None  # the loop's phase
        self.ending = False  # the loop is over
        self.ended_by: str | None = None  # the exception that ended it, in words
        self._let_go = False  # nothing of the host's is touched any more
        self._watch_caller()

    def _watch_caller(self) -> None:
        self.ident = threading.get_ident()
        self.native_id = threading.get_native_id()
        self._shown[OWN_BEAT_AT] = now = self._now()
        self.recorder.watch(self.ident, now)
        self._state = State.begin(now)
        self._sampler.watch(self.ident, self.native_id)
        self._begin_iteration()

    # --- for the watched loop -------------------------------------------------------------------

    def beat(self, phase: str | None = None) -> None:
        """
        Say that the loop is alive. One store of the time: it takes no lock and cannot fail.

        It goes where other processes see it, too, for the day on which nobody here can tell them.
        """
        self._shown[OWN_BEAT_AT] = self._now()
        if phase is not None:
            self.where = phase

    def turn(self, phase: str | None = None) -> None:
        """Say that the loop begins a turn: a beat, and the phases from here on are this turn's in the reports."""
        self.beat(phase)
        self.recorder.turn(self._beat_at)

    @property
    def _beat_at(self) -> float:
        return self._shown[OWN_BEAT_AT]

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

    def tell(self, signum: int) -> None:
        """Say that a signal asks this process to end. One store, for a signal handler."""
        self._leaving.told = signum, self._now()

    @property
    def told(self) -> tuple[int, float] | None:
        """By which signal this process was last told to end, and when."""
        return self._leaving.told

    def loop_is_over(self, ended_by: str | None = None, phase: str = "shutdown") -> None:
        """Say that the loop has ended, and by which exception, in words. What comes now is part of leaving."""
        self.ended_by = self.ended_by or ended_by
        self.ending = True
        self.beat(phase)

    def note(self, event: str, **fields: Any) -> None:
        """Have an event logged by the watchdog's thread at its next look. Costs one append."""
        self._notes.add(event, fields)

    def exit(self, why: str) -> None:
        """
        End the process with code 75, after the last words; for the watched loop, which does not go on.

        Our own thread does it, at its next look. Where that does not come the process ends all the same.
        """
        self._leaving.wait_for_end(why)

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
        self._watch_caller()
        if self.config.may_interrupt:
            self._actions.arm(self.book.current)
        self.fail.run("pulse", self.outside.show, self.native_id, self._beat_at)
        self._shown = self.outside.pulse.numbers
        self.fail.run("backstop", self.deputies.summon)
        thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        fork.watch(self)
        try:
            thread.start()
        except BaseException:
            # No more threads, or told to end. Nobody may look at a pulse that nobody keeps: a probe, or the
            # sentinel, would end a healthy process.
            self._give_back()
            raise
        self._thread = thread
        self.fail.run("unfinished", self._actions.look_back, self.note, self._evidence.is_gone)

    def let_go(self) -> None:
        """
        Watch the process to its very end, and touch nothing any more: the loop is over for good.

        From here on a silence is dumped, and ends the process where `terminate_after` says so; nothing is
        interrupted and nothing measured. Waits only where a stall has just ended: two seconds at most.
        """
        self._let_go = True
        self.loop_is_over(phase="exit")
        self._actions.release()
        self.fail.run("spare threads", keep_ready)
        until = self._now() + STOP_PATIENCE
        while self.stalled and self._now() < until:
            self._clock.wait(SHORT)

    def stop(self) -> None:
        """Stop watching, and give back what was taken. Waits for the thread, two seconds at most."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._clock.stop()
        thread.join(STOP_PATIENCE)
        self._give_back()

    def _give_back(self) -> None:
        self.fail.run("outside", self.outside.hide)
        self.fail.run("outside", self.deputies.dismiss)
        self._actions.disarm()

    def forget(self) -> None:
        """In a forked child: no thread, no signal, no call; says nothing. There may be no lock to take."""
        self._thread = None
        self.outside.forget()
        self._shown = self.outside.pulse.numbers
        self.deputies.forget()
        self.book.forget()
        self._actions.forget()
        self._evidence.forget()
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
        self.outside.runs_as(threading.get_native_id())
        while "look" not in self.fail.off:
            asleep, wakes = self._now(), self._evidence.wakes()
            interval = self.fail.run("interval", self._interval) or self.config.poll_interval
            self.busy = False
            if self._clock.wait(interval):
                break
            self.busy = True
            self._let_fork()
            overslept = self._now() - asleep - interval
            woken = self._evidence.wakes() - wakes
            self.fail.run("look", self.look, max(0.0, overslept), woken)
        # What the loop did last, before the host goes on without us.
        self.fail.run("notes", self._say_notes, self._now())
        self.fail.run("told", self._leaving.hear, self._state)
        if self.stalled and self._beat_at != self._state.beat_at:
            self.fail.run("look", self.look)
        self.busy = False

    def _interval(self) -> float:
        """Return the seconds until the next look: more of them while the loop beats and nothing is under way."""
        under_way = self._notes or self.book.in_flight() or self.stalled or self._breaker_open()
        return self._rest if self._beating and not under_way else self.config.poll_interval

    def _breaker_open(self) -> bool:
        return bool(self.fail.run("breaker", self.host.breaker_open))

    def _let_fork(self) -> None:
        """Wait while the host forks: the child must not get a lock of ours that is held."""
        until = self._now() + fork.PATIENCE
        while self.forking and self._now() < until:
            self.busy = False
            self._clock.wait(fork.PAUSE)
            self.busy = True

    # --- one look -------------------------------------------------------------------------------

    def look(self, overslept: float = 0.0, woken: int = 0) -> None:
        """
        Look once. `overslept`: by how much the wait before it was longer than asked, in seconds.

        `woken`: how often our thread woke in that wait, in vain.
        """
        now, beat_at = self._now(), self._beat_at
        self._tick(now)
        self.fail.run("backstop", self.deputies.look, now)
        # Read before the notes: what the loop had to say of it is among them.
        wanted = self._leaving.wanted
        # First what the loop did: its notes are older than what is judged now.
        self.fail.run("notes", self._say_notes, now)
        if wanted is not None:
            self._leaving.end(self._state.silence(now), wanted)
        self.fail.run("told", self._leaving.hear, self._state)
        self._beating = beat_at != self._state.beat_at
        if self._beating:
            self._begin_iteration()
            self.fail.run("healthy samples", self._sampler.healthy, beat_at)
        silence = self._state.silence(now)
        moved = silence >= self.config.sample_after and self._sampler.silent(silence)
        late = overslept > self._patience.tolerance
        paused, why = self._lateness.judge(overslept, woken)
        if why is not None:
            self.say("WARNING", "slow", silent_s=overslept, phase=self.where, cause=why)
        reading = Reading(now, beat_at, paused, moved, self.ending)
        self._state, events = judge(self._state, reading, self._patience)
        for event in events:
            self._handle(event, now)
        silence = self._state.silence(now)
        if paused <= self._patience.tolerance:
            if self._state.stalled:
                # At our first look for long the loop may have come back this very moment.
                moving, may_end = self._state.moving, not late
                too_long = self._stalls.climb(silence, moving=moving, may_end=may_end)
                if too_long:
                    self._leaving.end(silence)
            # Where the book is broken, a call in it may long have ended: then nothing is safe to end.
            if self.config.may_interrupt and not self._let_go and "book" not in self.fail.off:
                self.fail.run("interrupt", self._calls.look, now)
        self.fail.run("request", self._on_demand.look, now, self._state)
        self._lateness.remember_pressure()
        if not self._let_go:
            self._serve_host(now, silence)
        self._actions.settle()
        self._tick(self._now())

    def _serve_host(self, now: float, silence: float) -> None:
        self.fail.run("host", self.host.tick, now)
        if now - self._metrics_at >= METRICS_EVERY:
            self._metrics_at = now
            silent = self.stalled or self._breaker_open()
            look = self._standstills.look
            self.fail.run("progress", look, now, self.ident, self.where, silent=silent)
            self._measure(self._gauges, silence)

    def _tick(self, now: float) -> None:
        state = self._state
        self.outside.tick(
            now,
            self._beat_at,
            excused=state.excused,
            grace=grace(state, self.ending, self._patience),
        )

    def _begin_iteration(self) -> None:
        self._entered = self.book.entered
        self._lateness.begin(self._now())
        self._sampler.begin()
        self._stalls.begin()

    def _handle(self, event: object, now: float) -> None:
        if isinstance(event, StallBegan):
            self._stalls.open(event.silence)
        elif isinstance(event, StallEnded):
            if self.stalled:
                self._calls.settle()
                self._stalls.end(event.silence)
                self._measure(self.host.timing, "stall_duration", event.silence)
        elif isinstance(event, Slow):
            calls = self.book.entered - self._entered
            facts = self._slow.began(self.where or "start-up", event.silence, now)
            if facts is not None:
                self.say("WARNING", "slow", silent_s=event.silence, calls=calls or None, **facts)
        elif isinstance(event, SlowEnded):
            self._slow.ended(self.where or "start-up", event.silence)
        elif isinstance(event, Paused):
            self._calls.reset()
            self._sampler.paused()
            cause = self._lateness.paused(now, event.seconds)
            self.say("WARNING", "paused", pause_s=event.seconds, cause=cause, phase=self.where)
            self.count("pauses")

    def dumped_episode(self, flight: InFlight, now: float) -> Episode:
        """Return the incident a stuck call belongs to, dumped: that comes before anything is done to it."""
        if flight.thread != self.ident:
            return self._stalls.dumped_elsewhere(flight.thread, now - flight.started)
        self._state = replace(self._state, stalled=True)
        silence, moving = self._state.silence(now), self._state.moving
        return self._stalls.dumped(flight, silence, moving=moving)

    # --- small things -----------------------------------------------------------------------------

    def age(self, flight: InFlight, now: float) -> float:
        """Return the seconds a call has been open in which the process ran."""
        return now - flight.started - self._lateness.paused_since(flight.started)

    def age_in(self, thread: int) -> float | None:
        """Return the age of the call that a thread is in, as `age` has it; None where it is in none."""
        flight = self.book.current(thread)
        return None if flight is None else self.age(flight, self._now())

    def paused_since(self, moment: float) -> float:
        """Return for how many seconds since this moment the process did not run."""
        return self._lateness.paused_since(moment)

    def say(self, level: str, event: str, **fields: Any) -> None:
        """Log one event from the watchdog's thread."""
        line = log_line(event, **fields, component=self.host.component)
        self._actions.say(level, self.mask(line))

    def mask(self, text: str) -> str:
        """Return a text without secrets, as far as the host knows them."""
        return self.incidents.mask(text)

    def count(self, name: str, tags: dict[str, str] | None = None) -> None:
        """Count one in the host's metrics; from any thread."""
        self._measure(self.host.incr, name, tags)

    def settle(self, seconds: float) -> None:
        """Let other threads run for a moment; used after a lever was pulled."""
        self._clock.wait(seconds)

    @property
    def stalled(self) -> bool:
        """Tell whether the loop is silent for long, or was when last looked at."""
        return self._stalls.episode is not None

    @property
    def now(self) -> float:
        """Monotonic seconds of this watchdog's clock."""
        return float(self._now())

    def _say_notes(self, now: float) -> None:
        for level, line in self._notes.drain(now):
            self._actions.say(level, self.mask(line))

    def _measure(self, send: Callable[..., None], *args: Any) -> None:
        if self._let_go:
            return
        self._actions.measure(lambda: self.fail.run("metrics", send, *args))

    def _gauges(self, silence: float) -> None:
        self.host.gauge("silence", silence)
        self.host.gauge("breaker_open", 1.0 if self._breaker_open() else 0.0)

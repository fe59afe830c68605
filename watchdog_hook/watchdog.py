"""The watchdog: look, judge, gather, diagnose, act, report. The only place that knows the order."""

from __future__ import annotations

import signal
import threading
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from watchdog_hook import fork
from watchdog_hook.book import Book, Guard
from watchdog_hook.calls import CallWatch
from watchdog_hook.config import Config
from watchdog_hook.core import ladder
from watchdog_hook.core.ladder import Progress, Step
from watchdog_hook.core.model import Call, Clock, Deed, InFlight, StuckCallTimeout
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
from watchdog_hook.errand import keep_ready
from watchdog_hook.failopen import FailOpen
from watchdog_hook.incidents import Episode, Incidents
from watchdog_hook.notes import Notes, SlowPhases
from watchdog_hook.outside import Outside
from watchdog_hook.phase import Phase
from watchdog_hook.ports import Actions, Evidence, Host, SystemClock
from watchdog_hook.recorder import Recorder
from watchdog_hook.sampler import Sampler
from watchdog_hook.sentinel.pulse import TURN_AT
from watchdog_hook.sentinel.start import CannotStart
from watchdog_hook.standstill import Standstills

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

THREAD_NAME = "watchdog-hook"
METRICS_EVERY = 10.0  # seconds
PRESSURE_EVERY = 10  # looks
REST = 3  # times the interval between looks while all is well
LEAST_TOLERANCE = 2.0  # seconds our own wait may be late without the process counting as paused
BUSY = 0.8  # of a late wait spent on the processor: the process ran, only not us
STOP_PATIENCE = 2.0  # seconds for our thread to end
ASKED_AGAIN = 5.0  # seconds in which the dump that somebody asked for answers the next who asks
LEAVE_PATIENCE = 15.0  # seconds for our thread to say its last words and end the process
SHORT = 0.01  # seconds between two looks at whether it has said its last words

FRESH = Progress()


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
        self.host = host or Host()
        self._clock: Any = clock or SystemClock()
        self._now = self._clock.now
        self.book = Book(self._now)
        self.recorder = Recorder(self._now)
        self._evidence = evidence or _real_evidence()
        self._actions = actions or _real_actions(config, self.mask)
        self.fail = FailOpen(lambda text: self._actions.say("ERROR", self.mask(text)))
        self.incidents = Incidents(
            config,
            self._clock,
            self.book,
            self._evidence,
            self._actions,
            self.host,
            self.fail,
            self.recorder,
        )
        self._calls = CallWatch(self, self._evidence, self._actions)
        self._sampler = Sampler(self._evidence, self.recorder, self.book, self.fail)
        self._standstills = Standstills(self.incidents, self.host)
        self._notes = Notes()
        self._slow = SlowPhases()
        self._on_forget: list[Callable[[], None]] = []
        self._patience = Patience(
            stall=config.dump_after,
            sample=config.sample_after,
            startup=config.startup_grace,
            tolerance=max(LEAST_TOLERANCE, 3 * config.poll_interval),
        )
        self._limits = ladder.Limits(config.dump_after, config.terminate_after)
        # A wake-up costs more than a look: the caches are cold. So there are fewer while all is well.
        self._rest = max(
            config.poll_interval, min(REST * config.poll_interval, config.sample_after / 4)
        )
        self._beating = False
        self._pauses: deque[tuple[float, float]] = deque(maxlen=32)
        self._pressure = self._evidence.pressure()
        self._pressure_in = 0  # looks until it is read
        self._cpu = self._evidence.cpu_seconds()
        self._late = 0.0  # our worst lateness in this iteration, in seconds
        self._gil = 0.0  # for how many of them, in all, we waited for the interpreter
        self._metrics_at = 0.0
        self._thread: threading.Thread | None = None
        self.busy = False  # inside the working part: files, logging, metrics
        self.forking = False  # a fork is under way, in some thread of the host
        self.where: str | None = None  # the loop's phase
        self._leaving: str | None = None  # why the watched loop wants the process to end
        self.ending = False  # the loop is over
        self.ended_by: str | None = None  # the exception that ended it, in words
        self.told: tuple[int, float] | None = None  # by which signal to end, and when
        self._heard: tuple[int, float] | None = None  # that one, once it was seen to
        self._let_go = False  # nothing of the host's is touched any more
        self._episode: Episode | None = None
        # When a dump was last asked for, whether the loop was stalled then, and the dump.
        self._asked: tuple[float, bool, Episode] | None = None
        self.outside = Outside(config)
        self._shown = self.outside.pulse.numbers
        self._watch_caller()

    def _watch_caller(self) -> None:
        self.ident = threading.get_ident()
        self.native_id = threading.get_native_id()
        self._beat_at = self._now()
        self.recorder.watch(self.ident, self._beat_at)
        self._state = State.begin(self._beat_at)
        self._sampler.watch(self.ident, self.native_id)
        self._begin_iteration()

    # --- for the watched loop -------------------------------------------------------------------

    def beat(self, phase: str | None = None) -> None:
        """Say that the loop is alive. One store of the time: it takes no lock and cannot fail."""
        self._beat_at = self._now()
        if phase is not None:
            self.where = phase

    def turn(self, phase: str | None = None) -> None:
        """Say that the loop begins a turn: a beat, and the phases from here on are this turn's in the reports."""
        self.beat(phase)
        self._shown[TURN_AT] = self._beat_at
        self.recorder.turn(self._beat_at)

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
        self.told = signum, self._now()

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
        self._leaving = why
        until = self._now() + LEAVE_PATIENCE
        while self._now() < until:
            self._clock.wait(self.config.poll_interval)
        self._actions.terminate()

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
        self.fail.run("backstop", self._guard)
        thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        fork.watch(self)
        try:
            thread.start()
        except BaseException:
            # No more threads, or told to end. Nobody may look at a pulse that nobody keeps: a probe, or the
            # sentinel, would end a healthy process.
            self.fail.run("outside", self.outside.hide)
            self._actions.disarm()
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
        while self._episode is not None and self._now() < until:
            self._clock.wait(SHORT)

    def stop(self) -> None:
        """Stop watching, and give back what was taken. Waits for the thread, two seconds at most."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._clock.stop()
        thread.join(STOP_PATIENCE)
        self.fail.run("outside", self.outside.hide)
        self._actions.disarm()

    def forget(self) -> None:
        """In a forked child: no thread, no signal, no call; says nothing. There may be no lock to take."""
        self._thread = None
        self.outside.forget()
        self._shown = self.outside.pulse.numbers
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
        self.fail.run("told", self._hear)
        if self._episode is not None and self._beat_at != self._state.beat_at:
            self.fail.run("look", self.look)
        self.busy = False

    def _interval(self) -> float:
        """Return the seconds until the next look: more of them while the loop beats and nothing is under way."""
        under_way = (
            self._notes or self.book.in_flight() or self._episode or self.host.breaker_open()
        )
        return self._rest if self._beating and not under_way else self.config.poll_interval

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
        self.fail.run("backstop", self._arm_backstop, now)
        leaving = self._leaving  # before the notes: what the loop had to say of it is among them
        # First what the loop did: its notes are older than what is judged now.
        self.fail.run("notes", self._say_notes, now)
        if leaving is not None:
            self._end_process(self._state.silence(now), leaving)
        self.fail.run("told", self._hear)
        self._beating = beat_at != self._state.beat_at
        if self._beating:
            self._begin_iteration()
            self.fail.run("healthy samples", self._sampler.healthy, beat_at)
        silence = self._state.silence(now)
        moved = silence >= self.config.sample_after and self._sampler.silent(silence)
        self._late = max(self._late, overslept)
        late = overslept > self._patience.tolerance
        overslept = self._excusable(overslept, woken)
        self._state, events = judge(
            self._state, Reading(now, beat_at, overslept, moved, self.ending), self._patience
        )
        for event in events:
            self._handle(event, now)
        silence = self._state.silence(now)
        if overslept <= self._patience.tolerance:
            if self._state.stalled:
                # At our first look for long the loop may have come back this very moment.
                self._climb(silence, may_end=not late)
            # Where the book is broken, a call in it may long have ended: then nothing is safe to end.
            if self.config.may_interrupt and not self._let_go and "book" not in self.fail.off:
                self.fail.run("interrupt", self._calls.look, now)
        self.fail.run("request", self._answer, now, silence)
        self._remember_pressure()
        if not self._let_go:
            self._serve_host(now, silence)
        self._actions.settle()
        self._tick(self._now())

    def _serve_host(self, now: float, silence: float) -> None:
        self.fail.run("host", self.host.tick, now)
        if now - self._metrics_at >= METRICS_EVERY:
            self._metrics_at = now
            silent = self.stalled or self.host.breaker_open()
            look = self._standstills.look
            self.fail.run("progress", look, now, self.ident, self.where, silent=silent)
            self._measure(self._gauges, silence)

    def _hear(self) -> None:
        """Say what is known of a stall in which the process is told to end: it may not come to more."""
        told, episode = self.told, self._episode
        if told is None or told is self._heard:
            return
        self._heard = told
        if episode is not None:
            name, silence = signal_name(told[0]), self._state.silence(told[1])
            deed = Deed(silence, "told to end", None, name)
            self.incidents.last_words(episode, "told_to_end", deed, signal=name)

    def _tick(self, now: float) -> None:
        state = self._state
        self.outside.tick(
            now,
            self._beat_at,
            excused=state.excused,
            grace=grace(state, self.ending, self._patience),
        )

    def _guard(self) -> None:
        """Take the backstop and start the sentinel; what is not to be had is said once."""
        try:
            self.outside.guard(self._now())
        except CannotStart as error:
            self.note(
                "part_off", part="sentinel", outcome=f"{error}; the backstop speaks for itself"
            )
        limits = self.outside.limits()
        if limits is not None:
            self.note("part_off", part="backstop", outcome=limits)

    def _arm_backstop(self, now: float) -> None:
        lost = self.outside.arm(now)
        if lost is not None:
            limits = self.outside.limits()
            outcome = f"{lost}; {limits or 'the backstop speaks for itself'}"
            self.say("ERROR", "part_off", part="sentinel", outcome=outcome)
        note = self.outside.heard()
        if note is not None:
            self.say(
                "WARNING",
                "backstop_ended",
                incident=note.get("incident") or None,
                silent_s=float(note["lasted"]),
                phase=self.where,
                outcome=note.get("sentence"),
                cause=note.get("cause"),
            )

    def _excusable(self, overslept: float, woken: int) -> float:
        """Return how much of our lateness the process did not run; none of it if only we did not."""
        before, self._cpu = self._cpu, self._evidence.cpu_seconds()
        if overslept <= self._patience.tolerance:
            return overslept
        busy = self._cpu - before
        if self._evidence.waited_for_interpreter(woken, overslept):
            self._gil += overslept
            why = "one thread kept the interpreter (the GIL) to itself"
        elif busy >= BUSY * overslept:
            why = "the other threads had the processor"
        else:
            return overslept
        self.say(
            "WARNING",
            "slow",
            silent_s=overslept,
            phase=self.where,
            cause=f"{why}; {busy:.1f} s of processor time were used meanwhile, and no stack could be taken",
        )
        return 0.0

    def _remember_pressure(self) -> None:
        # For the next pause. Reading these files was most of what a healthy look cost.
        self._pressure_in -= 1
        if self._pressure_in < 0:
            self._pressure, self._pressure_in = self._evidence.pressure(), PRESSURE_EVERY - 1

    def _answer(self, now: float, silence: float) -> None:
        """Make the dump that somebody asks for from outside. It is an incident of its own, and no stall."""
        request = self.outside.asked()
        if request is None:
            return
        stalled, last = self._state.stalled, self._asked
        if last is None or now - last[0] >= ASKED_AGAIN or stalled != last[1]:
            self._asked = last = now, stalled, self._dump_asked(silence)
        episode = last[2]
        self.outside.answer(request, episode.incident.id, episode.path)

    def _dump_asked(self, silence: float) -> Episode:
        state = self._state
        moving = state.moving or state.slow
        episode = self.incidents.begin(self.ident, silence, self.where)
        if (
            silence >= self.config.sample_after
        ):  # a share of the processor in less than that says nothing
            episode.since, episode.late_s = self._since, self._late
        deed = Deed(silence, "dump", None, "asked for by watchdog-hook dump")
        episode.incident = episode.incident.evolve(actions=(deed,))
        self.incidents.dump(
            episode,
            silence,
            self._age_in(episode),
            self._sampler.taken,
            how="moving" if moving else "silent" if state.stalled else "asked",
            asked=True,
        )
        self.incidents.end(episode, silence)
        return episode

    def _begin_iteration(self) -> None:
        self._progress = FRESH
        self._entered = self.book.entered
        self._since = self._cpu, self._now()
        self._late = self._gil = 0.0
        self._sampler.begin()

    def _handle(self, event: object, now: float) -> None:
        if isinstance(event, StallBegan):
            self._open_episode(event.silence)
        elif isinstance(event, StallEnded):
            self._end_stall(event.silence)
        elif isinstance(event, Slow):
            calls = self.book.entered - self._entered
            facts = self._slow.began(self.where or "start-up", event.silence, now)
            if facts is not None:
                self.say("WARNING", "slow", silent_s=event.silence, calls=calls or None, **facts)
        elif isinstance(event, SlowEnded):
            self._slow.ended(self.where or "start-up", event.silence)
        elif isinstance(event, Paused):
            self._pauses.append((now, event.seconds))
            self._calls.reset()
            self._sampler.paused()
            before, self._pressure = self._pressure, self._evidence.pressure()
            cause = self._evidence.pause_cause(before, self._pressure, event.seconds)
            self.say("WARNING", "paused", pause_s=event.seconds, cause=cause, phase=self.where)
            self.count("pauses")

    def _climb(self, silence: float, *, may_end: bool) -> None:
        episode = self._episode
        changed = (
            episode is not None
            and episode.dumped
            and self._sampler.settled_elsewhere(episode.dumped_stack)
        )
        self._progress, steps = ladder.due(
            self._limits,
            self._progress,
            silence,
            changed=changed,
            may_end=may_end and self._may_end(),
        )
        if Step.DUMP in steps:
            self.fail.run("dump", self._dump, episode or self._open_episode(silence), silence)
        if Step.DELTA in steps and episode is not None:
            self._dump_again(episode, silence)
        if Step.TERMINATE in steps:
            self._end_process(silence)

    def _may_end(self) -> bool:
        """Tell whether nothing speaks against ending the process: it is neither moving nor debugged."""
        if not self.config.terminate_after or self._state.moving:
            return False
        return not self._evidence.debugger()

    # --- the loop's own incident, and those of other threads' calls --------------------------------

    def dumped_episode(self, flight: InFlight, now: float) -> Episode:
        """Return the incident a stuck call belongs to, dumped: that comes before anything is done to it."""
        if flight.thread != self.ident:
            episode = self.incidents.begin(flight.thread, now - flight.started)
            self.fail.run("dump", self._dump, episode, now - flight.started)
            return episode
        silence = self._state.silence(now)
        episode = self._episode or self._open_episode(silence)
        if not episode.dumped:
            self._progress = ladder.dumped(self._limits, self._progress, silence)
            self.fail.run("dump", self._dump, episode, silence)
        elif flight.serial != episode.serial:
            # Another call of the same silence: it has not been shown yet.
            self._dump_again(episode, silence)
        return episode

    def _dump_again(self, episode: Episode, silence: float) -> None:
        age = self._age_in(episode)
        self.fail.run("delta", self.incidents.again, episode, silence, age, self._sampler.stack)
        if episode.thread == self.ident:
            self.outside.tell(episode.incident, episode.path)

    def _open_episode(self, silence: float) -> Episode:
        self._state = replace(self._state, stalled=True)
        self._episode = episode = self.incidents.begin(self.ident, silence, self.where)
        episode.since, episode.of_loop, episode.ended_by = self._since, True, self.ended_by
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

    def _dump(self, episode: Episode, silence: float) -> None:
        if episode.dumped:
            return
        samples = self._sampler.taken if episode.thread == self.ident else ()
        episode.late_s, episode.gil_s = self._late, self._gil or None
        how = "moving" if episode.thread == self.ident and self._state.moving else "silent"
        self.incidents.dump(episode, silence, self._age_in(episode), samples, how=how)
        if episode.thread == self.ident:
            self.outside.tell(episode.incident, episode.path)
        self.count("stalls", {"verdict": episode.incident.finding.id})

    def _age_in(self, episode: Episode) -> float | None:
        flight = self.book.current(episode.thread)
        return None if flight is None else self.age(flight, self._now())

    def _end_stall(self, lasted: float) -> None:
        episode, self._episode = self._episode, None
        if episode is None:
            return
        self._calls.settle()
        self.incidents.end(episode, lasted)
        self.outside.tell(None)
        incident = episode.incident
        landed = sum(deed.outcome == "landed" for deed in incident.actions)
        by = "told to end" if episode.last_words else "interrupted" if landed else "by itself"
        self.say(
            "WARNING",
            "stall_ended",
            incident=incident.id,
            silent_s=lasted,
            phase=incident.phase,
            call=incident.call,
            peer=incident.peer,
            outcome=by,
            interrupts=landed or None,
            waiting=incident.waiting,
        )
        self._measure(self.host.timing, "stall_duration", lasted)

    def _end_process(self, silence: float, why: str | None = None) -> None:
        about = {"action": "exit", "outcome": why, "exit_code": 75}
        # With a reason of its own there need be no stall.
        episode = self._episode or (None if why else self._open_episode(silence))
        if episode is None:
            line = log_line("terminate", phase=self.where, **about, component=self.host.component)
            self._actions.urgent(line)
            self._actions.say("ERROR", line, wait=True)
        else:
            deed = Deed(silence, "terminate", None, "exit code 75")
            last_words = self.incidents.last_words
            self.fail.run("last words", last_words, episode, "terminate", deed, **about)
        self._actions.terminate()

    # --- small things -----------------------------------------------------------------------------

    def age(self, flight: InFlight, now: float) -> float:
        """Return the seconds a call has been open in which the process ran."""
        return now - flight.started - self.paused_since(flight.started)

    def paused_since(self, moment: float) -> float:
        """Return for how many seconds since this moment the process did not run."""
        return sum(min(length, end - moment) for end, length in self._pauses if end > moment)

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
        return self._episode is not None

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
        self.host.gauge("breaker_open", 1.0 if self.host.breaker_open() else 0.0)


def signal_name(number: int) -> str:
    """Return what a signal is called: SIGTERM."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _real_evidence() -> Evidence:
    from watchdog_hook.evidence.here import Evidence as Real

    return Real()


def _real_actions(config: Config, mask: Callable[[str], str]) -> Actions:
    from watchdog_hook.actions.deeds import Deeds

    return Deeds(config, mask)

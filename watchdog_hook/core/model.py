"""The words that evidence, decisions and actions share. Values only: nothing here acts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Protocol

from watchdog_hook.core.observed import Observed, ThreadInKernel


class Clock(Protocol):
    """The only way time enters the watchdog."""

    def now(self) -> float:
        """Return monotonic seconds."""

    def wall(self) -> float:
        """Return seconds since the epoch; for display only, it may jump."""

    def wait(self, seconds: float) -> bool:
        """Wait; return True at once when the watchdog has been told to stop."""


class StuckCallTimeout(Exception):
    """
    A call was ended by the watchdog because its peer had been silent for too long.

    The outcome of the call is unknown: the peer may have done what it was asked, or may still do it.
    Not a TimeoutError or OSError on purpose: libraries retry those, into the same silence.
    """

    # On the class, so that a class made for one call can carry its own (an asynchronous exception
    # is raised from a class, without arguments).
    incident: str | None = None
    call: str = ""
    age_s: float = 0.0

    def __init__(
        self, call: str | None = None, age_s: float | None = None, incident: str | None = None
    ) -> None:
        if call is not None:
            self.call = call
        if age_s is not None:
            self.age_s = age_s
        if incident is not None:
            self.incident = incident
        super().__init__()

    def __str__(self) -> str:
        text = f"{self.call} ended by watchdog_hook after {self.age_s:.0f} s of silence; outcome unknown"
        return f"{text} (incident {self.incident})" if self.incident else text


@dataclass(frozen=True, slots=True)
class Frame:
    """One Python frame, as code; never with its values."""

    function: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class ThreadStack:
    """The stack of one thread, innermost frame first."""

    ident: int
    name: str
    frames: tuple[Frame, ...]
    native_id: int | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a call's connection."""

    host: str
    port: int | None = None

    def __str__(self) -> str:
        return self.host if self.port is None else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Call:
    """What was asked of whom: a method and a path template, no values, no query, no body."""

    name: str
    peer: Peer | None = None
    kind: str = "api"  # api, stream (a watch or a log: long by nature) or guard (the user's own)


class InFlight:
    """
    One call between enter and leave. The calling thread owns it; the watchdog looks at it.

    `closed` is written by the calling thread only, `firing` and `fired` by the watchdog only (and by the
    signal handler, which runs in the calling thread): two flags, one writer each, so no lock is needed.
    """

    __slots__ = (
        "answer",
        "bytes",
        "call",
        "closed",
        "ended",
        "error",
        "fired",
        "firing",
        "guarded",
        "incident",
        "limit",
        "outer",
        "owner",
        "serial",
        "started",
        "thread",
    )

    def __init__(
        self,
        serial: int,
        call: Call,
        thread: int,
        started: float,
        *,
        guarded: bool = False,
        limit: float | None = None,
        error: type[StuckCallTimeout] = StuckCallTimeout,
        outer: InFlight | None = None,
    ) -> None:
        self.serial = serial
        self.call = call
        self.thread = thread
        self.started = started
        self.guarded = guarded
        self.limit = limit  # seconds of silence allowed to this call alone; None: the setting
        self.error = error
        self.outer = outer
        self.closed = False
        self.firing = False
        self.fired = False
        self.incident: str | None = None  # in which it was fired at
        self.answer: str | None = None
        self.bytes: int | None = None  # of the answer, where that is known without reading it
        self.owner: str | None = None  # the thread's name, once the call has ended
        self.ended: float | None = None


@dataclass(frozen=True, slots=True)
class CallRecord:
    """A call as a report shows it: in flight when `duration_s` is None."""

    call: str
    peer: str | None
    thread: str
    started_ago_s: float
    duration_s: float | None = None
    answer: str | None = None  # "201", "ReadTimeoutError", …; None while in flight
    guarded: bool = False
    bytes: int | None = None  # of the answer, where that is known without reading it


@dataclass(frozen=True, slots=True)
class ThreadReading:
    """Where one thread stood at one look. Equal `position` twice: the same leaf frame and instruction."""

    position: tuple[int, int, int]  # id of the leaf frame, id of its code, instruction offset
    stack: int  # hash of (code, instruction) of all frames: equal means that nothing moved
    leaf: Frame | None
    switches: int | None = None  # voluntary context switches so far; None: not readable
    in_socket: bool = False  # the leaf connects, shakes hands, sends or receives on a socket
    in_library: bool = False  # a socket read of urllib3 or kubernetes is on the stack
    in_retry_sleep: bool = False  # urllib3 sleeps between two attempts
    descriptor: int | None = None  # of the socket
    peer: Peer | None = None
    received_ago_s: float | None = None  # since the last byte came in (TCP_INFO); None: not known

    @property
    def was_asked(self) -> bool:
        """Whether it sleeps for as long as the server said (Retry-After)."""
        by_server = self.leaf is not None and self.leaf.function.endswith("sleep_for_retry")
        return self.in_retry_sleep and by_server


@dataclass(frozen=True, slots=True)
class Sample:
    """Where the stalled thread stood in one of the looks before a dump."""

    at_s: float  # seconds of silence at the look
    frames: tuple[Frame, ...]
    kernel: ThreadInKernel | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that evidence gathered for one dump."""

    threads: tuple[ThreadStack, ...]  # the stalled thread first
    samples: tuple[Sample, ...] = ()
    in_flight: tuple[CallRecord, ...] = ()
    recent: tuple[CallRecord, ...] = ()  # the last ones before, newest last
    unavailable: tuple[tuple[str, str], ...] = ()  # what could not be read, and why
    observed: Observed = field(default_factory=Observed)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule made of the evidence."""

    id: str
    confidence: str  # high, medium, low
    sentence: str
    remedy: str = ""
    signs: tuple[str, ...] = ()
    raise_helps: bool = False
    known: tuple[str, ...] = ()  # reports of the same
    also: tuple[Finding, ...] = ()  # what fits as well

    def beside(self, others: tuple[Finding, ...], signs: tuple[str, ...]) -> Finding:
        """Return this one with the others that fit as well, and the signs of all."""
        return dataclasses.replace(self, also=others, signs=signs)


PROCESS_ENDED = "process ended"  # the deed of an incident that its process did not survive
NO_STALL = "no-stall"  # the cause of a dump that was asked for while the loop turned


@dataclass(frozen=True, slots=True)
class Deed:
    """One thing the watchdog did about an incident."""

    at_s: float  # seconds of silence
    deed: str
    lever: str | None = None
    outcome: str | None = None


@dataclass(frozen=True, slots=True)
class Incident:
    """One stall (or one stuck call of another thread), from its first dump to its end."""

    id: str
    host: str
    pid: int
    began: float  # wall clock, seconds since the epoch
    first_dump: float
    silence_s: float
    phase: str | None
    finding: Finding
    snapshot: Snapshot
    call: str | None = None
    peer: str | None = None
    age_s: float | None = None  # of that call
    ended: float | None = None
    job_id: str | None = None
    process_started: float | None = None
    versions: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    actions: tuple[Deed, ...] = ()
    waiting: int | None = None  # task instances that waited, as the host counts them
    truncated: bool = False
    component: str | None = None  # what stalled, where that is not the scheduler's loop

    @property
    def process_ended(self) -> bool:
        """Whether its process ended before the loop came back; `ended` is then when it last wrote."""
        return any(deed.deed == PROCESS_ENDED for deed in self.actions)

    @property
    def is_stall(self) -> bool:
        """Whether there was a stall at all; False for a dump that was asked for while the loop turned."""
        return self.finding.id != NO_STALL

    def evolve(self, **changes: Any) -> Incident:
        """Return a copy with these fields changed."""
        return dataclasses.replace(self, **changes)

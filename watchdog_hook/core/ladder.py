"""Which step is due now: of a stall, and of one call in flight."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

LOOKS_TO_PROVE = 3  # equal looks before a call counts as stuck
OVERLONG = 3  # times the limit in one call, for an answer that trickles
LEVER_PATIENCE = 5.0  # seconds a lever has to land before the next is tried


class Step(Enum):
    """A rung of the ladder, in the order in which they come."""

    DUMP = 1
    DELTA = 2
    TERMINATE = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """Ages of silence at which steps are due, in seconds; 0 is never for `terminate`."""

    dump: float
    terminate: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """What has been done about this silence."""

    dumps: int = 0
    dumped_at: float = 0.0  # silence at the last dump
    next_delta: float = 0.0  # silence at which the next dump comes without a change
    terminated: bool = False


def due(
    limits: Limits,
    progress: Progress,
    silence: float,
    *,
    changed: bool,
    may_end: bool = True,
) -> tuple[Progress, tuple[Step, ...]]:
    """
    Return what is due at this silence of a stalled loop, and the progress once that is done.

    `changed`: the stack settled somewhere else since the last dump. `may_end`: nothing speaks against ending
    the process. Evidence always precedes the end.
    """
    steps: list[Step] = []
    ending = (
        may_end
        and bool(limits.terminate)
        and silence >= limits.terminate
        and not progress.terminated
    )
    if not progress.dumps:
        steps.append(Step.DUMP)
        progress = dumped(limits, progress, silence)
    elif (
        ending
        or silence >= progress.next_delta
        or (changed and silence - progress.dumped_at >= limits.dump)
    ):
        steps.append(Step.DELTA)
        progress = dumped(limits, progress, silence)
    if ending:
        steps.append(Step.TERMINATE)
        progress = replace(progress, terminated=True)
    return progress, tuple(steps)


def dumped(limits: Limits, progress: Progress, silence: float) -> Progress:
    """Return the progress after a dump at this silence: the next comes at 2, 4, 8 … times the limit."""
    following = 2 * limits.dump
    while following <= silence:
        following *= 2
    return replace(progress, dumps=progress.dumps + 1, dumped_at=silence, next_delta=following)


@dataclass(frozen=True, slots=True)
class CallReading:
    """What one look at a call in flight found."""

    age: float  # since the later of its start and the last pause that its server asked for
    silent: float  # since the latest of its start, any pause between two attempts, and the last byte received
    looks: int  # equal ones in a row: same leaf frame, instruction and context switches
    guarded: bool
    stream: bool = False
    in_socket: bool = False
    in_library: bool = False
    in_retry_sleep: bool = False


class Ground(Enum):
    """Why a call may be ended."""

    SILENT = "silent"
    OVERLONG = "overlong"


def overdue(call: CallReading, limit: float) -> bool:
    """Tell whether a guarded call has been silent or open for longer than it may, whatever it does now."""
    if not call.guarded or call.stream or call.in_retry_sleep:
        return False
    return (call.looks >= LOOKS_TO_PROVE and call.silent >= limit) or call.age >= OVERLONG * limit


def ground(call: CallReading, limit: float) -> Ground | None:
    """
    Return the ground on which this call may be ended, or None.

    A watch or a log is long by nature; a call that sleeps because the server asked it to is throttled.
    """
    if not overdue(call, limit):
        return None
    if call.in_socket and call.looks >= LOOKS_TO_PROVE and call.silent >= limit:
        return Ground.SILENT
    if call.in_library and call.age >= OVERLONG * limit:
        return Ground.OVERLONG
    return None

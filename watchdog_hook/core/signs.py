"""What a rule may look at, and the small questions that rules are made of."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from watchdog_hook.core.text import frame_text

if TYPE_CHECKING:
    from watchdog_hook.core.model import CallRecord, Frame, Snapshot, ThreadReading

_AIRFLOW = re.compile(
    r"/airflow/(?:api|cli|dag_processing|executors|jobs|listeners|models|plugins_manager|policies|providers|sdk|"
    r"secrets|serialization|settings|task|ti_deps|timetables|triggers|utils)[./]"
)
_OURS = re.compile(r"/watchdog_hook/(?!tests/)|/wrapt/")
_INSTALLED = re.compile(r"/(?:site-packages|dist-packages)/(.*)")
_STDLIB = re.compile(r"/python\d(?:\.\d+)?/|^<frozen ")
# Installed code that Airflow calls on its owner's behalf: what it waits for is not Airflow's own call.
_GUESTS = re.compile(
    r"^(?:airflow/providers/openlineage|openlineage|hvac|boto3|botocore|azure|google|watchtower|opentelemetry|statsd)/"
)


@dataclass(frozen=True, slots=True)
class Case:
    """All that a rule may look at."""

    snapshot: Snapshot
    silence_s: float
    phase: str | None = None
    call: CallRecord | None = None
    reading: ThreadReading | None = None

    @property
    def frames(self) -> tuple[Frame, ...]:
        """The stalled thread's stack, innermost frame first."""
        return self.snapshot.threads[0].frames if self.snapshot.threads else ()

    @property
    def thread(self) -> str:
        """The stalled thread's name."""
        return self.snapshot.threads[0].name if self.snapshot.threads else "the loop's thread"

    @property
    def leaf(self) -> str:
        """The innermost frame as text."""
        return frame_text(self.frames[0]) if self.frames else "an unknown place"

    @property
    def age_s(self) -> float | None:
        """How long the call in flight has been open."""
        return self.call.started_ago_s if self.call else None

    @property
    def received_s(self) -> float | None:
        """How long ago the last byte came in on the call's connection."""
        return self.reading.received_ago_s if self.reading else None


Sign = Callable[[Case], bool]


def passes(part: str, *functions: str) -> Sign:
    """A frame whose path contains `part` is on the stack, in one of these functions if any are given."""

    def sign(case: Case) -> bool:
        return any(is_in(frame, part, functions) for frame in case.frames)

    return sign


def innermost(part: str, *functions: str) -> Sign:
    """The leaf's path contains `part`, and it is in one of these functions if any are given."""

    def sign(case: Case) -> bool:
        return bool(case.frames) and is_in(case.frames[0], part, functions)

    return sign


def both(*signs: Sign) -> Sign:
    """All of these signs are there."""
    return lambda case: all(sign(case) for sign in signs)


def either(*signs: Sign) -> Sign:
    """At least one of these signs is there."""
    return lambda case: any(sign(case) for sign in signs)


def is_in(frame: Frame, part: str, functions: tuple[str, ...]) -> bool:
    # The last part of a qualified name: older Pythons have nothing else.
    return part in frame.file and (not functions or frame.function.rpartition(".")[2] in functions)


def on_socket(case: Case) -> bool:
    return case.reading is not None and case.reading.in_socket


def foreign_code(case: Case) -> bool:
    return foreign(case) is not None


def foreign(case: Case) -> Frame | None:
    """Return the outermost frame of foreign code that Airflow called, if any."""
    under_airflow = False
    for frame in reversed(case.frames):
        installed = _INSTALLED.search(frame.file)
        if installed is not None and _GUESTS.match(installed.group(1)):
            if under_airflow:
                return frame
        elif _AIRFLOW.search(frame.file):
            under_airflow = True
        elif under_airflow and installed is None and _is_users(frame.file):
            return frame
    return None


def _is_users(file: str) -> bool:
    return bool(file) and not _STDLIB.search(file) and not _OURS.search(file)


def attempt(case: Case) -> int:
    """Return how often urllib3 has sent the request by now: its retries call themselves."""
    return sum(is_in(frame, "/urllib3/connectionpool.py", ("urlopen",)) for frame in case.frames)


def trickles(case: Case) -> bool:
    """A byte came in lately, yet the call is old."""
    age, received = case.age_s, case.received_s
    if age is None or received is None:
        return False
    return age >= 5.0 and received <= min(10.0, age / 3)

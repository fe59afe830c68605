"""What a rule may look at, and the small questions that rules are made of."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from watchdog_hook.core.text import frame_text

if TYPE_CHECKING:
    from watchdog_hook.core.model import CallRecord, Frame, Snapshot, ThreadReading
    from watchdog_hook.core.observed import Child, Descriptor, LockWait, Observed, Tcp, Wait

_AIRFLOW = re.compile(
    r"/airflow/(?:api|cli|dag_processing|executors|jobs|listeners|models|plugins_manager|policies|providers|sdk|"
    r"secrets|serialization|settings|task|ti_deps|timetables|triggers|utils)[./]"
)
_OURS = re.compile(r"/watchdog_hook/(?!tests/)|/wrapt/")
_INSTALLED = re.compile(r"/(?:site-packages|dist-packages)/(.*)")
_STDLIB = re.compile(r"/python\d(?:\.\d+)?/|^<frozen ")
SAMPLES_ALIKE = 3  # of the last: before them it may have stood elsewhere
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
    # Or "moving": silent for long, yet seen to move; "turning": it beats, and starts nothing; "asked": no stall,
    # but somebody wants to know.
    how: str = "silent"
    component: str | None = None  # what stalled, where that is not the scheduler's loop

    @property
    def seen(self) -> Observed:
        """What evidence found beside the stacks."""
        return self.snapshot.observed

    @property
    def wait(self) -> Wait | None:
        """The system call the stalled thread is in."""
        return self.seen.kernel.wait if self.seen.kernel else None

    @property
    def descriptor(self) -> Descriptor | None:
        """The one descriptor it waits on; None for none or several."""
        found = self.wait.descriptors if self.wait else ()
        return found[0] if len(found) == 1 else None

    @property
    def tcp(self) -> Tcp | None:
        """The connection it waits on."""
        return self.descriptor.tcp if self.descriptor else None

    @property
    def children(self) -> tuple[Child, ...]:
        """The child processes."""
        return self.seen.process.children if self.seen.process else ()

    @property
    def awaited(self) -> Child | None:
        """The child process whose end the stalled thread waits for, where the system call names it."""
        pid = self.wait.child if self.wait else None
        return next((child for child in self.children if child.pid == pid), None)

    @property
    def lock(self) -> LockWait | None:
        """The lock the stalled thread waits for."""
        return next((lock for lock in self.seen.locks if lock.thread == self.thread), None)

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


def neither(*signs: Sign) -> Sign:
    """None of these signs is there."""
    return lambda case: not any(sign(case) for sign in signs)


def calls(*names: str) -> Sign:
    """The thread is in one of these system calls."""
    return lambda case: case.wait is not None and case.wait.syscall in names


def on(*kinds: str) -> Sign:
    """It waits on one descriptor, of one of these kinds."""
    return lambda case: case.descriptor is not None and case.descriptor.kind in kinds


def retransmits(case: Case) -> bool:
    """The kernel sends again what the peer's machine does not acknowledge, on a connection there was."""
    return case.tcp is not None and case.tcp.retransmits > 0 and not requests_connection(case)


def requests_connection(case: Case) -> bool:
    """Not connected yet: the kernel has asked for the connection, and has no answer to that."""
    return case.tcp is not None and case.tcp.state == "SYN_SENT"


def runs(case: Case) -> bool:
    """The thread is on the processor or wants it: it waits for nothing."""
    kernel = case.seen.kernel
    return kernel is not None and kernel.state == "R"


def sleeps(case: Case) -> bool:
    """The thread sleeps for a time, and waits for nothing else."""
    wait = case.wait
    if wait is None or wait.descriptors or wait.more:
        return False
    bare = wait.syscall in ("select", "pselect6", "poll", "ppoll") and wait.timeout_s is not None
    return bare or wait.syscall in ("nanosleep", "clock_nanosleep")


def ends_by_itself(case: Case) -> bool:
    """The wait has a time limit of its own."""
    return case.wait is not None and case.wait.timeout_s is not None


def never_woke(case: Case) -> bool:
    """The thread sleeps, and has not woken once between the samples and the dump, as far as that is known."""
    kernel = case.seen.kernel
    if kernel is None or kernel.state == "R":
        return False
    earlier = [s.kernel.voluntary for s in case.snapshot.samples[-SAMPLES_ALIKE:] if s.kernel]
    return all(count == kernel.voluntary for count in earlier)


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
    """A byte came in lately, yet the call is old; of one that is in no book, the thread stands still for long."""
    age, received = case.age_s, case.received_s
    if age is None:
        age = case.silence_s if case.how == "silent" else 0.0
    if received is None:
        return False
    return age >= 5.0 and received <= min(10.0, age / 3)


READING = either(
    innermost("/ssl.py", "read", "recv", "recv_into"),
    innermost("/socket.py", "readinto"),
    innermost("/urllib3/contrib/pyopenssl.py", "recv", "recv_into"),
    innermost("/OpenSSL/SSL.py", "recv", "recv_into"),
    innermost("/urllib3/util/wait.py"),
)
CONNECTING = either(
    requests_connection,
    innermost("/urllib3/util/connection.py", "create_connection"),
    innermost("/socket.py", "create_connection"),
    innermost("/ssl.py", "connect", "_real_connect"),
)
HANDSHAKE = either(
    innermost("/ssl.py", "do_handshake"), innermost("/OpenSSL/SSL.py", "do_handshake")
)
SENDING = either(
    innermost("/ssl.py", "send", "sendall", "write"),
    innermost("/OpenSSL/SSL.py", "send", "sendall", "write"),
    innermost("/urllib3/contrib/pyopenssl.py", "send", "sendall", "_send_until_done"),
    both(innermost("/http/client.py", "send"), on_socket),
)

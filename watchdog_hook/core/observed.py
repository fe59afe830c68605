"""What evidence says of threads in the kernel, of descriptors, processes, locks and executors. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watchdog_hook.core.model import Frame


@dataclass(frozen=True, slots=True)
class Tcp:
    """One TCP connection as the kernel sees it (TCP_INFO, SIOCOUTQ, SIOCINQ)."""

    state: str  # ESTABLISHED, SYN_SENT, CLOSE_WAIT, …
    unacked: int = 0  # segments sent and not acknowledged
    retransmits: int = (
        0  # of the oldest of those, so far; grows while the peer does not answer at all
    )
    retransmitted: int = 0  # segments, over the life of the connection
    sent_s: float | None = None  # since data went out
    received_s: float | None = None  # since data came in; None: none ever did
    acked_s: float | None = None  # since the peer acknowledged anything
    send_queue: int | None = None  # bytes that wait to be sent or acknowledged
    receive_queue: int | None = None  # bytes that wait to be read
    # For how long at least the oldest of those segments has been sent again and again, by the retransmission
    # timer; None: it is not.
    unacked_s: float | None = None


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a file descriptor is."""

    number: int  # -1: a path that a call names and that is not open
    # tcp, udp, unix, netlink, pipe, file, device, eventfd, epoll, timerfd, signalfd, pidfd, inotify, gone, other
    kind: str
    local: str | None = None  # of a socket: host:port or a path
    remote: str | None = None
    peer: str | None = None  # the other end in words: "Kubernetes API", "the metadata database"
    tcp: Tcp | None = None
    path: str | None = None  # of a file or device
    mount: str | None = None  # "nfs4 on /opt/airflow/dags"
    # Who of our children and we holds the other end: "KubernetesJobWatcher, pid 12", "this process". Of a file
    # whose lock is waited for: who holds that.
    holders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """The system call a thread is in, and what it waits for."""

    syscall: str  # its name, "system call 1234", or "page fault": memory that has to be read first
    arguments: tuple[int, ...] = ()  # as the kernel has them
    descriptors: tuple[Descriptor, ...] = ()  # those it waits on; of an epoll the set
    more: int = 0  # descriptors of the set that are not listed
    timeout_s: float | None = None  # of the call itself, where it has one
    child: int | None = None  # pid that is waited for
    deadline: bool = False  # the call names a moment: timeout_s is what was left until then


@dataclass(frozen=True, slots=True)
class ThreadInKernel:
    """One thread as /proc/self/task has it."""

    native_id: int
    state: str  # R, S, D, T, …
    wchan: str | None = None  # the kernel function it sleeps in
    wait: Wait | None = None  # None: it runs, or that could not be read
    voluntary: int | None = None  # context switches so far: it slept
    involuntary: int | None = None  # it was made to give way
    cpu_s: float | None = None  # processor time so far


@dataclass(frozen=True, slots=True)
class Child:
    """A child process, direct or further down."""

    pid: int
    name: str  # as the kernel has it, or its role where that is known: "KubernetesJobWatcher"
    state: str  # running, sleeping, disk-sleep, stopped, zombie, …
    age_s: float
    threads: int | None = None
    waits: str | None = None  # "futex", "recvfrom on tcp 10.0.0.1:443", …
    cpu_s: float | None = None
    parent: int | None = None
    # One thread, in a futex, with next to no processor time since its fork: it waits for a lock whose
    # owner was not copied, and can never wake.
    never_wakes: bool = False


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """This process and its host."""

    cpu_s: float | None = None
    cpu_share: float | None = None  # of one core, since the silence began
    cpu_limit: float | None = None  # cores, by the cgroup
    memory: int | None = None  # bytes, resident
    memory_limit: int | None = None  # by the cgroup
    memory_used: int | None = None  # of the cgroup
    throttled_s: float | None = None  # of the last minutes: grown since the last pressure reading
    pressure: tuple[
        tuple[str, float], ...
    ] = ()  # ("memory", % of the last 10 s in which all tasks waited)
    descriptors: int | None = None
    descriptor_limit: int | None = None
    threads: int | None = None
    children: tuple[Child, ...] = ()
    more_children: int = 0
    load: tuple[float, float, float] | None = None
    clock_jump_s: float | None = None  # of the wall clock against the monotonic one, since arming
    late_s: float | None = None  # the watchdog's own worst lateness in this silence


@dataclass(frozen=True, slots=True)
class LockWait:
    """A thread that waits for a lock."""

    thread: str
    lock: str  # "RLock 7f…", or the expression it is known by: "self.lock of logging.StreamHandler"
    place: Frame  # where it waits
    owner: str | None = None  # thread
    owner_place: Frame | None = None  # where its owner stands now
    by: str = ""  # how the owner is known: "the lock itself" or "its frames"
    kind: str = "lock"  # or "thread": no lock, but the end of the owner is waited for (Thread.join)
    ident: int | None = None  # of the threads, for names need not be unique
    owner_ident: int | None = None


@dataclass(frozen=True, slots=True)
class Watcher:
    """A process that watches pods for an executor."""

    pid: int | None  # None: it was not started, or has been closed
    namespace: str
    event_s: float | None = None  # since an event of it reached the executor; None: none has yet
    # What it left itself; None where it could not be followed into its process.
    silent_s: float | None = None  # since its last sign of life, but for pauses of the process
    doing: str | None = (
        None  # since then: "read", "connect", "resolve" or "sleep"; None: none of these
    )
    timeout_s: float | None = None  # of that, or of what it did last; None: it has none
    heard_s: float | None = None  # since the API server sent it an event; None: none has come
    heard: int = 0  # events
    # Since the executor made a pod of which no event has come; None: none was made, or one has come.
    missed_s: float | None = None
    watches: int = 0  # times it has begun its watch
    age_s: float | None = None  # since it was started


@dataclass(frozen=True, slots=True)
class ExecutorFacts:
    """An executor in numbers, read without a call to anybody."""

    name: str
    queued: int | None = None
    running: int | None = None
    open_slots: int | None = None
    task_queue: int | None = None  # jobs that wait for a pod
    oldest_s: float | None = None  # of those
    watchers: tuple[Watcher, ...] = ()


@dataclass(frozen=True, slots=True)
class Session:
    """One session of the database server, as the server has it."""

    pid: int
    state: str | None = None  # active, idle in transaction, …
    waits: str | None = None  # "Lock: transactionid"; None: it works
    since_s: float | None = None  # of its statement, or of the transaction it sits in
    application: str | None = None
    client: str | None = None  # its address
    query: str | None = None  # the first words of its statement


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What the database server says of the connection the loop waits on, asked on a second one."""

    answered: bool  # within the time it was given
    why: str | None = None  # it did not
    session: Session | None = None  # the loop's; None: not found, as behind a pooler
    blockers: tuple[Session, ...] = ()  # who holds the locks it waits for


@dataclass(frozen=True, slots=True)
class TaskGroup:
    """Tasks of an asyncio loop that stand in the same place."""

    count: int
    state: str  # running, ready (it could go on), waits, or "not read": there were too many
    names: tuple[str, ...] = ()  # of the first few
    frames: tuple[
        Frame, ...
    ] = ()  # what it awaits, innermost first; of a running one see its thread
    waits: str | None = None  # class of what it waits for: Future, Task, …
    thread: str | None = None  # in which its loop runs


@dataclass(frozen=True, slots=True)
class Iteration:
    """One turn of the loop."""

    started_ago_s: float
    duration_s: float | None  # None: it goes on
    phases: tuple[tuple[str, float, float], ...] = ()  # name, seconds after its start, duration


@dataclass(frozen=True, slots=True)
class Observed:
    """All of it, for one dump."""

    kernel: ThreadInKernel | None = None  # of the stalled thread
    process: ProcessFacts | None = None
    locks: tuple[LockWait, ...] = ()
    executors: tuple[ExecutorFacts, ...] = ()
    database: DatabaseFacts | None = None  # asked only where the loop waits for it
    iterations: tuple[Iteration, ...] = ()  # newest last
    tasks: tuple[TaskGroup, ...] = ()  # of asyncio: those of the stalled thread's loop first
    normal: tuple[
        tuple[tuple[Frame, ...], int], ...
    ] = ()  # healthy samples: a stack, and how often
    # Of the silence, in which the watchdog waited for the interpreter: some thread kept it (the GIL) to itself.
    gil_s: float | None = None
    ended_by: str | None = (
        None  # the exception that ended the loop, in words; None: it goes on, or ran out
    )

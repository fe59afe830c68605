"""Waits inside the machine: for a child process, a pipe, a lock, a file."""

from __future__ import annotations

from watchdog_hook.core.locks import cycles
from watchdog_hook.core.observed import Child, LockWait
from watchdog_hook.core.rules.rule import WIDE, Rule, span
from watchdog_hook.core.signs import (
    Case,
    both,
    calls,
    either,
    ends_by_itself,
    innermost,
    neither,
    never_woke,
    on,
    passes,
)
from watchdog_hook.core.text import frame_text

_FILE_CALLS = calls(
    "open",
    "openat",
    "openat2",
    "stat",
    "lstat",
    "fstat",
    "newfstatat",
    "statx",
    "access",
    "faccessat",
    "faccessat2",
    "fsync",
    "fdatasync",
    "close",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "getdents64",
    "readlink",
    "readlinkat",
    "truncate",
    "ftruncate",
    "fallocate",
    "utimensat",
    "chmod",
    "fchmod",
    "fchmodat",
    "chown",
    "fchownat",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "statfs",
    "fstatfs",
    "getxattr",
    "sync",
    "syncfs",
    "msync",
    "ioctl",
)
_READS_FILE = both(calls("read", "write", "pread64", "pwrite64", "readv", "writev"), on("file"))
_LOCKS_FILE = calls("flock", "fcntl")
_WAITS_FOR_CHILD = either(
    calls("wait4", "waitid"),
    innermost("/multiprocessing/popen_fork.py", "poll", "wait"),
    innermost("/subprocess.py", "_try_wait", "_wait", "wait"),
)
# Until the new process has begun its program, its parent may not go on: vfork(2).
_STARTS_PROGRAM = both(calls("vfork"), passes("/subprocess.py", "_execute_child"))
_POOL = either(
    passes("/concurrent/futures/"), passes("/multiprocessing/pool.py"), passes("/billiard/pool.py")
)
_MANAGER = passes("/multiprocessing/managers.py", "_callmethod", "_incref", "_decref", "connect")


_CHILDREN_NAMED = 3


def child_text(child: Child) -> str:
    """Return who a child is, what it does and what it waits for."""
    text = f"{child.name}, pid {child.pid}, {child.state}"
    return f"{text} in {child.waits}" if child.waits else text


def _never_woken(case: Case) -> Child | None:
    awaited = case.awaited
    if awaited is not None:
        return awaited if awaited.never_wakes else _never_woken_below(case, awaited)
    if not either(_WAITS_FOR_CHILD, on("pipe"), _MANAGER, _POOL)(case):
        return None
    return next((child for child in case.children if child.never_wakes), None)


def _never_woken_below(case: Case, child: Child) -> Child | None:
    """Return the child that an awaited one waits for in its turn, if that one can never wake."""
    for below in case.children:
        if below.parent == child.pid and (child.waits or "").endswith(f"for process {below.pid}"):
            return below if below.never_wakes else _never_woken_below(case, below)
    return None


def _inherited(case: Case) -> str:
    child = _never_woken(case)
    if child is None:
        return "a child process waits for a lock that was held when it was forked"
    what = "a child process that can never wake by itself"
    if case.awaited not in (None, child):
        what = f"{_named(case.awaited)}, which waits for one that can never wake by itself"
    elif case.awaited is None and _POOL(case):
        what = "the work of a pool of which one process can never wake by itself"
    elif case.awaited is None and on("pipe")(case):
        what = "a pipe, while a child process can never wake by itself"
    return (
        f"it waits for {what}: {_named(child)}, has one thread, which has waited for a lock since its fork"
        f" {child.age_s:.0f} s ago; the thread that would release it was not copied with it"
    )


def _named(child: Child | None) -> str:
    return "?" if child is None else f"{child.name}, pid {child.pid}"


def _child(case: Case) -> str:
    if _STARTS_PROGRAM(case):
        # The parent stands still since: nobody is younger.
        new = min(case.children, key=lambda child: child.age_s, default=None)
        which = f": {child_text(new)}" if new else ""
        return f"it starts a program, and the new process has not come to run it{which}"
    if case.awaited is not None:
        return f"it waits for a child process to end: {child_text(case.awaited)}"
    pid = case.wait.child if case.wait else None
    if pid is not None and pid > 0:
        return f"it waits for child process {pid} to end"
    known = "; ".join(child_text(child) for child in case.children[:_CHILDREN_NAMED])
    return f"it waits for a child process to end, in {case.leaf}" + (
        f"; there are: {known}" if known else ""
    )


def _pipe(case: Case) -> str:
    holders = case.descriptor.holders if case.descriptor else ()
    writes = case.wait is not None and case.wait.syscall in (
        "write",
        "writev",
        "sendfile",
        "splice",
    )
    way = "writes into a pipe that is full" if writes else "reads from a pipe that is empty"
    if holders:
        return f"it {way}; its other end is open in {' and '.join(holders)}"
    return f"it {way}, in {case.leaf}; its other end is open in none of our children"


def _manager_text(case: Case) -> str:
    manager = next((child for child in case.children if "Manager" in child.name), None)
    if manager is None:
        return f"it waits for the answer of a multiprocessing Manager, in {case.leaf}"
    if manager.state == "zombie":
        return "it waits for a multiprocessing Manager, whose process has ended"
    return f"it waits for the answer of a multiprocessing Manager: {child_text(manager)}"


def _deadlock(case: Case) -> str:
    cycle = _cycle(case)
    mine = next((n for n, wait in enumerate(cycle) if wait.thread == case.thread), 0)
    parts = [
        f"{wait.thread} waits for {wait.lock}, which {wait.owner} has"
        for wait in (*cycle[mine:], *cycle[:mine])
    ]
    if len(cycle) == 1:
        return (
            f"a deadlock of one: {cycle[0].thread} waits for {cycle[0].lock}, which it has itself"
        )
    return "a deadlock: " + "; ".join(parts)


def _cycle(case: Case) -> tuple[LockWait, ...]:
    if ends_by_itself(case):
        return ()
    found = cycles(case.seen.locks)
    return next((cycle for cycle in found if any(wait.thread == case.thread for wait in cycle)), ())


def _lock(case: Case) -> str:
    lock = case.lock
    if lock is None:
        return f"it waits for a lock, in {case.leaf}"
    left = case.wait.timeout_s if case.wait else None
    most = "" if left is None else f", for {span(left)} more at most"
    stands = f", which stands in {frame_text(lock.owner_place)}" if lock.owner_place else ""
    if lock.kind == "thread":
        return f"it waits for {lock.lock}{most}{stands}"
    if lock.owner is None:
        return f"it waits for {lock.lock}{most}; who has it cannot be seen"
    return (
        f"it waits for {lock.lock}{most}; thread {lock.owner} has it (known by {lock.by}){stands}"
    )


def _has_lock(case: Case) -> bool:
    return case.lock is not None


def _file(case: Case) -> str:
    found = case.descriptor
    name = case.wait.syscall if case.wait else "a call"
    where = f" on {found.path}" if found and found.path else ""
    mount = f" ({found.mount})" if found and found.mount else ""
    return f"the file system does not answer {name}{where}{mount}"


def _device(case: Case) -> str:
    kernel = case.seen.kernel
    at = f", in {kernel.wchan}" if kernel is not None and kernel.wchan else ""
    deep = " (state D, uninterruptible)" if kernel is not None and kernel.state == "D" else ""
    if _faults(case):
        return (
            "it touches memory of a mapped file or of swap, and the kernel does not make it available"
            f"{deep}{at}"
        )
    return f"the kernel does not let the thread go on{deep}: it waits for a device or a file system{at}"


def _faults(case: Case) -> bool:
    return case.wait is not None and case.wait.syscall == "page fault"


def _disk_sleep(case: Case) -> bool:
    return case.seen.kernel is not None and case.seen.kernel.state == "D"


def _in_a_fifo(case: Case) -> bool:
    # The kernel function in which an open() waits until somebody opens the other end (fs/pipe.c).
    wchan = case.seen.kernel.wchan if case.seen.kernel else None
    return wchan in ("wait_for_partner", "fifo_open", "pipe_wait")


def _fifo(case: Case) -> str:
    return f"it opens a FIFO whose other end nobody has open, in {case.leaf}"


def _file_lock(case: Case) -> str:
    found = case.descriptor
    where = f" of {found.path}" if found and found.path else ""
    holders = found.holders if found else ()
    return f"it waits for a lock{where} that {' and '.join(holders) or 'another process'} holds"


RULES = (
    Rule(
        "inherited-lock",
        lambda case: _never_woken(case) is not None,
        _inherited,
        "End that child (and only it) by hand: kill -9 its pid; what waits for it goes on. watchdog_hook ends"
        " no process of a pool or a Manager: nobody starts that work anew. A KubernetesJobWatcher, which its"
        " executor does start anew, is ended with [watchdog_hook] restart_watchers = True.\n"
        "It was forked while another thread held a lock. [celery] sync_parallelism = 1 needs no"
        " pool; unload plugins"
        " that start threads in the scheduler; [core] execute_tasks_new_python_interpreter = True or"
        " [core] mp_start_method = spawn avoid the bare fork.",
        raise_helps=False,
        known=("apache/airflow#15938", "apache/airflow#70690", "apache/airflow#71707"),
    ),
    Rule(
        "deadlock",
        lambda case: bool(_cycle(case)),
        _deadlock,
        "Locks taken in different orders. Only a restart helps; please report the stacks to the"
        " owner of that code.",
        raise_helps=False,
    ),
    Rule(
        "lock",
        both(_has_lock, lambda case: not _cycle(case)),
        _lock,
        "Look at what the owner waits for: its stack stands below.",
        raise_helps=False,
    ),
    Rule(
        "manager",
        both(_MANAGER, neither(lambda case: _never_woken(case) is not None)),
        _manager_text,
        "The KubernetesExecutor keeps its queues in that process. Where it is gone or stuck, only a restart of the"
        " scheduler helps: look in the pod's events for a process that was killed (out of memory).",
        raise_helps=False,
    ),
    Rule(
        "child-process",
        both(
            either(_WAITS_FOR_CHILD, _STARTS_PROGRAM),
            lambda case: _never_woken(case) is None,
        ),
        _child,
        "Look at what that child waits for. A wait without a time limit is a mistake of whoever waits.",
        confidence="medium",
        raise_helps=False,
        known=("apache/airflow#52284", "apache/airflow#67870"),
    ),
    Rule(
        "pipe",
        both(on("pipe"), neither(_MANAGER, lambda case: _never_woken(case) is not None)),
        _pipe,
        "Look at the process at the other end. A pipe that is full and that nobody reads stops whoever writes:"
        " is it the scheduler's own log?",
        confidence="medium",
        raise_helps=False,
    ),
    Rule(
        "file-lock",
        _LOCKS_FILE,
        _file_lock,
        "Look at the process that holds it; where none is named, `lslocks` on the node shows it.",
        confidence="medium",
        raise_helps=False,
    ),
    Rule(
        "fifo",
        both(_FILE_CALLS, _in_a_fifo),
        _fifo,
        "Start the process that opens the other end, or take the FIFO away.",
        raise_helps=False,
    ),
    Rule(
        "file-system",
        both(
            either(both(_FILE_CALLS, neither(_LOCKS_FILE, _in_a_fifo)), _READS_FILE),
            never_woke,
        ),
        _file,
        "Look at the mount: a network file system (NFS, CIFS, a CSI volume) whose server is away"
        " does that. In state D"
        " nothing ends the call, not even kill -9.",
        confidence="medium",
        raise_helps=False,
    ),
    Rule(
        "disk-sleep",
        both(
            either(_disk_sleep, _faults),
            never_woke,
            neither(_FILE_CALLS, _READS_FILE, _STARTS_PROGRAM),
        ),
        _device,
        "Look at the node: its disks, its network file systems, its kernel log.",
        rank=WIDE,
        raise_helps=False,
    ),
)

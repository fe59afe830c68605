"""Waits for a file: a lock on it, the other end of a FIFO, a file system or a device that does not answer."""

from __future__ import annotations

from watchdog_hook.core.rules.children import STARTS_PROGRAM
from watchdog_hook.core.rules.rule import WIDE, Rule
from watchdog_hook.core.signs import Case, both, calls, either, neither, never_woke, on

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


def _file_lock(case: Case) -> str:
    found = case.descriptor
    where = f" of {found.path}" if found and found.path else ""
    holders = found.holders if found else ()
    return f"it waits for a lock{where} that {' and '.join(holders) or 'another process'} holds"


def _in_a_fifo(case: Case) -> bool:
    # The kernel function in which an open() waits until somebody opens the other end (fs/pipe.c).
    wchan = case.seen.kernel.wchan if case.seen.kernel else None
    return wchan in ("wait_for_partner", "fifo_open", "pipe_wait")


def _fifo(case: Case) -> str:
    return f"it opens a FIFO whose other end nobody has open, in {case.leaf}"


def _file(case: Case) -> str:
    found = case.descriptor
    name = case.wait.syscall if case.wait else "a call"
    where = f" on {found.path}" if found and found.path else ""
    mount = f" ({found.mount})" if found and found.mount else ""
    return f"the file system does not answer {name}{where}{mount}"


def _disk_sleep(case: Case) -> bool:
    return case.seen.kernel is not None and case.seen.kernel.state == "D"


def _faults(case: Case) -> bool:
    return case.wait is not None and case.wait.syscall == "page fault"


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


RULES = (
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
            neither(_FILE_CALLS, _READS_FILE, STARTS_PROGRAM),
        ),
        _device,
        "Look at the node: its disks, its network file systems, its kernel log.",
        rank=WIDE,
        raise_helps=False,
    ),
)

"""System calls by number, and where their arguments name descriptors, paths and time. Tables only."""

from __future__ import annotations

import os
import struct

# Name, number on x86-64, number on aarch64: arch/x86/entry/syscalls/syscall_64.tbl and
# include/uapi/asm-generic/unistd.h of Linux. Every call that may block; `-` where a machine does not have it.
_NUMBERS = """
read 0 63, write 1 64, open 2 -, close 3 57, stat 4 -, fstat 5 80, lstat 6 -, poll 7 -, lseek 8 62,
mmap 9 222, mprotect 10 226, munmap 11 215, ioctl 16 29, pread64 17 67, pwrite64 18 68, readv 19 65,
writev 20 66, access 21 -, select 23 -, sched_yield 24 124, mremap 25 216, msync 26 227, madvise 28 233,
dup2 33 -, pause 34 -, nanosleep 35 101, sendfile 40 71, connect 42 203, accept 43 202, sendto 44 206,
recvfrom 45 207, sendmsg 46 211, recvmsg 47 212, shutdown 48 210, bind 49 200, clone 56 220, fork 57 -,
vfork 58 -, execve 59 221, exit 60 93, wait4 61 260, semop 65 193, msgsnd 69 189, msgrcv 70 188,
fcntl 72 25, flock 73 32, fsync 74 82, fdatasync 75 83, truncate 76 45, ftruncate 77 46, getdents 78 -,
chdir 80 49, fchdir 81 50, rename 82 -, mkdir 83 -, rmdir 84 -, creat 85 -, link 86 -, unlink 87 -,
symlink 88 -, readlink 89 -, chmod 90 -, fchmod 91 52, chown 92 -, fchown 93 55, lchown 94 -,
rt_sigtimedwait 128 137, rt_sigsuspend 130 133, statfs 137 43, fstatfs 138 44, sync 162 81, mount 165 40,
umount2 166 39, readahead 187 213, setxattr 188 5, lsetxattr 189 6, fsetxattr 190 7, getxattr 191 8,
lgetxattr 192 9, fgetxattr 193 10, listxattr 194 11, llistxattr 195 12, flistxattr 196 13, futex 202 98,
io_getevents 208 4, io_submit 209 2, getdents64 217 61, restart_syscall 219 128, semtimedop 220 192,
fadvise64 221 223, clock_nanosleep 230 115, exit_group 231 94, epoll_wait 232 -, mq_open 240 180,
mq_timedsend 242 182, mq_timedreceive 243 183, waitid 247 95, request_key 249 218, keyctl 250 219,
openat 257 56, mkdirat 258 34, mknodat 259 33, fchownat 260 54, newfstatat 262 79, unlinkat 263 35,
renameat 264 38, linkat 265 37, symlinkat 266 36, readlinkat 267 78, fchmodat 268 53, faccessat 269 48,
pselect6 270 72, ppoll 271 73, splice 275 76, tee 276 77, sync_file_range 277 84, vmsplice 278 75,
utimensat 280 88, epoll_pwait 281 22, fallocate 285 47, accept4 288 242, dup3 292 24, preadv 295 69,
pwritev 296 70, recvmmsg 299 243, open_by_handle_at 304 265, syncfs 306 267, sendmmsg 307 269,
process_vm_readv 310 270, renameat2 316 276, getrandom 318 278, execveat 322 281, membarrier 324 283,
copy_file_range 326 285, preadv2 327 286, pwritev2 328 287, statx 332 291, io_pgetevents 333 292,
io_uring_enter 426 426, clone3 435 435, close_range 436 436, openat2 437 437, faccessat2 439 439,
epoll_pwait2 441 441, futex_waitv 449 449, fchmodat2 452 452, futex_wait 455 455
"""
_MACHINES = ("x86_64", "aarch64")

POLLS = frozenset({"poll", "ppoll"})
SELECTS = frozenset({"select", "pselect6"})
EPOLLS = frozenset({"epoll_wait", "epoll_pwait", "epoll_pwait2"})

# Calls whose first argument is the one descriptor that they are about.
_FIRST = """
read write pread64 pwrite64 readv writev preadv pwritev preadv2 pwritev2 connect accept accept4 sendto
recvfrom sendmsg recvmsg sendmmsg recvmmsg shutdown bind fcntl flock fsync fdatasync ftruncate fstat fstatfs
fchmod fchown fchdir getdents getdents64 lseek ioctl readahead fadvise64 sync_file_range syncfs fallocate
fsetxattr fgetxattr flistxattr mq_timedsend mq_timedreceive vmsplice io_uring_enter close
"""
DESCRIPTORS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(_FIRST.split(), (0,)),
    "sendfile": (0, 1),
    "tee": (0, 1),
    "splice": (0, 2),
    "copy_file_range": (0, 2),
}

# Where a path stands, and before it the descriptor of the folder that it starts from, if there is one.
_PLAIN_PATHS = """
open stat lstat access chdir rename mkdir rmdir creat link unlink readlink chmod chown lchown statfs truncate
setxattr lsetxattr getxattr lgetxattr listxattr llistxattr execve mq_open umount2
"""
_FOLDER_PATHS = """
openat openat2 newfstatat statx unlinkat mkdirat mknodat fchownat renameat renameat2 linkat readlinkat fchmodat
fchmodat2 faccessat faccessat2 utimensat execveat
"""
PATHS: dict[str, tuple[int | None, int]] = {
    **dict.fromkeys(_PLAIN_PATHS.split(), (None, 0)),
    **dict.fromkeys(_FOLDER_PATHS.split(), (0, 1)),
    "symlink": (None, 1),
    "symlinkat": (1, 2),
    "mount": (None, 1),
}

# Which argument says for how long; the others are addresses of a timespec, that of select() of a timeval.
MILLISECONDS = {"poll": 2, "epoll_wait": 3, "epoll_pwait": 3}
DURATIONS = {
    "ppoll": 2,
    "select": 4,
    "pselect6": 4,
    "epoll_pwait2": 3,
    "nanosleep": 0,
    "rt_sigtimedwait": 2,
    "semtimedop": 3,
    "recvmmsg": 4,
    "io_getevents": 4,
    "io_pgetevents": 4,
}
# The address of a moment, and which argument names its clock; without one it is CLOCK_REALTIME. futex and
# clock_nanosleep are not here: what theirs is depends on their flags.
MOMENTS: dict[str, tuple[int, int | None]] = {
    "futex_waitv": (3, 4),
    "futex_wait": (4, 5),
    "mq_timedsend": (4, None),
    "mq_timedreceive": (4, None),
}


def _machine() -> str:
    # A 32-bit program counts its calls differently, whatever the kernel is.
    return os.uname().machine if struct.calcsize("P") == 8 else "32 bits"


def _tables() -> dict[str, dict[int, str]]:
    tables: dict[str, dict[int, str]] = {machine: {} for machine in _MACHINES}
    for row in _NUMBERS.split(","):
        name, *numbers = row.split()
        for machine, number in zip(_MACHINES, numbers, strict=True):
            if number != "-":
                tables[machine][int(number)] = name
    return tables


MACHINE = _machine()
NAMES = _tables()


def numbers(*names: str) -> dict[str, frozenset[int]]:
    """Return the numbers of these calls, by machine."""
    return {
        machine: frozenset(number for number, name in table.items() if name in names)
        for machine, table in NAMES.items()
    }


def name_of(number: int) -> str:
    """Return a call's name on this machine, or `system call 1234`."""
    return NAMES.get(MACHINE, {}).get(number, f"system call {number}")

"""The system call that another process is in, and in words what it waits on there."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass

from watchdog_hook.evidence.cgroup import content

# Calls in which children of Python programs wait: name, number on x86-64, number on aarch64 (syscall_64.tbl
# and asm-generic/unistd.h of Linux); `-` where a machine has none.
_NUMBERS = """
read 0 63, write 1 64, open 2 -, close 3 57, poll 7 -, ioctl 16 29, pread64 17 67, pwrite64 18 68, readv 19 65,
writev 20 66, select 23 -, pause 34 -, nanosleep 35 101, connect 42 203, accept 43 202, sendto 44 206,
recvfrom 45 207, sendmsg 46 211, recvmsg 47 212, wait4 61 260, msgrcv 70 188, fcntl 72 25, flock 73 32,
fsync 74 82, fdatasync 75 83, rt_sigtimedwait 128 137, rt_sigsuspend 130 133, futex 202 98, getdents64 217 61,
restart_syscall 219 128, semtimedop 220 192, clock_nanosleep 230 115, epoll_wait 232 -, waitid 247 95,
openat 257 56, newfstatat 262 79, pselect6 270 72, ppoll 271 73, epoll_pwait 281 22, accept4 288 242,
statx 332 291, epoll_pwait2 441 441
"""
# Of these the first argument is the descriptor that they wait for.
_ON_DESCRIPTOR = """
read write pread64 pwrite64 readv writev ioctl connect accept accept4 sendto recvfrom sendmsg recvmsg
fcntl flock fsync fdatasync getdents64
"""
_MACHINES = ("x86_64", "aarch64")

# man 2 futex; FUTEX_CLOCK_REALTIME only says how a timeout is meant.
_FUTEX_WAIT, _FUTEX_WAIT_BITSET = 0, 9
_FUTEX_PRIVATE, _FUTEX_CLOCK_REALTIME = 128, 256

_PATH_LENGTH = 120
_TCP_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_TCP_LINES = 20_000  # looked at for the sockets of children


def _names() -> dict[int, str]:
    machine = os.uname().machine
    if machine not in _MACHINES:
        return {}
    column = 1 + _MACHINES.index(machine)
    rows = [row.split() for row in _NUMBERS.split(",")]
    return {int(row[column]): row[0] for row in rows if row[column] != "-"}


NAMES = _names()


@dataclass(frozen=True, slots=True)
class SystemCall:
    """A system call under way, as the kernel has it."""

    number: int
    arguments: tuple[int, ...]
    place: bytes  # stack and instruction: the same wait has the same ones

    @property
    def name(self) -> str:
        """Its name, or "system call 1234"."""
        return NAMES.get(self.number, f"system call {self.number}")

    @property
    def waits_for_itself(self) -> bool:
        """
        Whether it waits without a timeout for a lock that only this very process can give away, a signal aside.

        Not so with a lock in shared memory: in a pool of processes all idle workers but one wait for theirs,
        and another process wakes them.
        """
        if self.name != "futex":
            return False
        operation, timeout = self.arguments[1], self.arguments[3]
        kind = operation & ~(_FUTEX_PRIVATE | _FUTEX_CLOCK_REALTIME)
        private = bool(operation & _FUTEX_PRIVATE)
        return private and not timeout and kind in (_FUTEX_WAIT, _FUTEX_WAIT_BITSET)


def read(pid: int, missed: dict[str, str]) -> SystemCall | None:
    """Return the system call a process's first thread is in; None when it runs, or is not to be seen."""
    try:
        file = os.open(f"/proc/{pid}/task/{pid}/syscall", os.O_RDONLY | os.O_CLOEXEC)
        try:
            words = os.read(file, 512).split()
        finally:
            os.close(file)
        if len(words) < 9:  # "running", or "-1" outside of a call
            return None
        arguments = tuple(int(word, 16) for word in words[1:7])
        return SystemCall(int(words[0]), arguments, b" ".join(words[7:9]))
    except ProcessLookupError:  # it ended meanwhile
        return None
    except (OSError, ValueError) as error:
        missed["system calls of children"] = (
            getattr(error, "strerror", None) or type(error).__name__
        )
        return None


def kernel_function(pid: int) -> str | None:
    """Return the kernel function a process's first thread sleeps in; None when it runs, or is not to be seen."""
    name = content(f"/proc/{pid}/task/{pid}/wchan").decode(errors="replace").strip()
    return None if name in ("", "0") else name


def describe(pid: int, call: SystemCall) -> str:
    """Say what a process waits on: "futex", "read on a pipe", "recvfrom on tcp 10.0.0.1:443"."""
    name = call.name
    if name == "futex":
        return _futex(call.arguments)
    if name in _ON_DESCRIPTOR.split():
        return f"{name} on {_descriptor(pid, call.arguments[0])}"
    if name in ("wait4", "waitid"):
        awaited = _signed(call.arguments[0 if name == "wait4" else 1])
        # The first argument of waitid says what kind of number the second is; 1 is a process.
        named = awaited > 0 and (name == "wait4" or call.arguments[0] == 1)
        return f"{name} for process {awaited}" if named else f"{name} for a child"
    if name.startswith("system call"):
        place = kernel_function(pid)
        return f"{name} in {place}" if place else name
    return name


def _futex(arguments: tuple[int, ...]) -> str:
    if arguments[3]:
        return "futex with a timeout"
    return "futex" if arguments[1] & _FUTEX_PRIVATE else "futex shared with other processes"


def _descriptor(pid: int, number: int) -> str:
    try:
        # The name of the link alone: neither the child's memory nor what it points to is touched.
        target = os.readlink(f"/proc/{pid}/fd/{number}")
    except OSError:
        return f"descriptor {number}"
    kind, _, rest = target.partition(":[")
    if kind == "socket":
        peer = _tcp_peer(rest.rstrip("]"))
        return f"tcp {peer}" if peer else "a socket"
    if kind == "pipe":
        return "a pipe"
    return target[:_PATH_LENGTH]


def _tcp_peer(inode: str) -> str | None:
    """Return the other end of a TCP connection of this network namespace; None for any other socket."""
    wanted = inode.encode()
    for table in _TCP_TABLES:
        try:
            with open(table, "rb") as file:
                for count, line in enumerate(file):
                    fields = line.split(None, 10)
                    if len(fields) > 9 and fields[9] == wanted:
                        return _address(fields[2].decode())
                    if count > _TCP_LINES:
                        break
        except OSError:
            continue
    return None


def _address(text: str) -> str:
    """Return host:port for what /proc/net/tcp has: 32-bit words in the machine's own order, then the port."""
    host, _, port = text.partition(":")
    words = [bytes.fromhex(host[start : start + 8]) for start in range(0, len(host), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    if len(packed) == 4:
        return f"{socket.inet_ntop(socket.AF_INET, packed)}:{int(port, 16)}"
    return f"[{socket.inet_ntop(socket.AF_INET6, packed)}]:{int(port, 16)}"


def _signed(number: int) -> int:
    number &= 0xFFFFFFFF
    return number - (1 << 32) if number >> 31 else number

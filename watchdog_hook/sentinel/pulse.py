"""
The pulse: two pages of memory in which the watchdog leaves what is needed to judge it from outside.

Every place has one writer, so no lock is needed: the loop's thread writes its turns, the watchdog's thread the
rest but for what is asked of it (whoever asks) and for the sentinel's note. A text carries a checksum, since it
may be read while it is written.
"""

from __future__ import annotations

import binascii
import mmap
import os
import struct

from watchdog_hook.descriptor import Own, beyond_standard, occupy_standard

NAME = "watchdog_hook"
MAGIC = 0x3153_5550_4B4F_4F48  # "HOOKPUS1": of this layout, and of no other
SIZE = 2 * 4096

# Of `numbers`: seconds, moments on the monotonic clock, which all processes of a machine share.
BEAT_AT = 0  # the loop's last beat, as of the watchdog's last look
TICK_AT = 1  # the watchdog's last sign of life
EXCUSED = 2  # of the silence since the beat: in which the process did not run
GRACE = (
    3  # silence that is allowed all the same: while the loop starts, and while it ends; 0 for none
)
DUMP_AFTER = 4
BACKSTOP_AFTER = 5
TERMINATE_AFTER = 6
OWN_BEAT_AT = 7  # the loop's last beat, which it writes itself: true even where the watchdog is stuck; 0 for none

# Of `words`.
MARK = 0  # MAGIC
PID = 1
STARTED = 2  # of the process, in the kernel's ticks since its own start (man proc_pid_stat)
WATCHDOG = 3  # id of the watchdog's thread, as the kernel has it
LOOP = 4  # of the loop's thread
SIGNAL = 5  # at which faulthandler writes the main thread's stack; 0 for none
BACKSTOP = 6  # descriptor, in that process, of the file into which it does, plus one; 0 for none
REQUEST = 7  # a number that changes when somebody asks for a dump
ANSWERED = 8  # the one that was answered last
SENTINEL = 9  # its pid
SIGNAL_ALL = 12  # at which faulthandler writes the stacks of all threads; 0 for none

_NUMBERS = slice(0, 256)
_WORDS = slice(256, 512)

# Texts: where each begins, and how many bytes it has.
STATE = (512, 2048)  # of the loop, as `key=value` lines: phase, incident, verdict, sentence
ANSWER = (2560, 1024)  # to a request: the incident's id and its path, as lines
# Of the sentinel, for the watchdog when it wakes, as such lines: since, cause, incident, sentence.
NOTE = (3584, 4096)
WHOSE = (7680, 512)  # loop this is, as `key=value` lines where that has a name: component, loop
_HEAD = struct.Struct("=II")  # length and checksum


class Withdrawn(ValueError):  # noqa: N818 - it is an answer
    """Nobody is watched there any more."""


class Pulse:
    """The page, and how to read and write it. `numbers` and `words` are views of it."""

    def __init__(self, memory: mmap.mmap | bytearray, fd: int = -1) -> None:
        whole = memoryview(memory)
        self.numbers = whole[_NUMBERS].cast("d")
        self.words = whole[_WORDS].cast("Q")
        self.fd = fd
        self._own = Own(fd)
        self._bytes = whole

    @classmethod
    def private(cls) -> Pulse:
        """Return one that nobody else sees."""
        return cls(bytearray(SIZE))

    @classmethod
    def shared(cls) -> Pulse:
        """Return one of this process that others can open. Raises OSError where the kernel has no memfd."""
        # Else whoever writes to a standard error that is closed would write in here: `mmap` duplicates the
        # descriptor, and takes the lowest number that is free.
        occupied = occupy_standard()
        try:
            fd = os.memfd_create(NAME, os.MFD_CLOEXEC)
            try:
                os.ftruncate(fd, SIZE)
                pulse = cls(mmap.mmap(fd, SIZE), fd)
            except BaseException:
                os.close(fd)
                raise
        finally:
            for each in occupied:
                os.close(each)
        pulse.words[PID] = os.getpid()
        pulse.words[STARTED] = started(os.getpid()) or 0
        pulse.words[MARK] = MAGIC
        return pulse

    @classmethod
    def opened(cls, path: str, *, write: bool = False) -> Pulse:
        """Return that of another process. Raises OSError; ValueError for another layout; Withdrawn."""
        fd = os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC)
        try:
            return cls.of_descriptor(fd, write=write)
        finally:
            os.close(fd)

    @classmethod
    def of_descriptor(cls, fd: int, *, write: bool = False) -> Pulse:
        """Return the one behind a descriptor, which may be closed afterwards. Raises as `opened` does."""
        # A mapping beyond the end of a file kills its reader at the first touch.
        if os.fstat(fd).st_size != SIZE:
            raise ValueError("written by another version of watchdog_hook")
        pulse = cls(mmap.mmap(fd, SIZE, access=mmap.ACCESS_WRITE if write else mmap.ACCESS_READ))
        mark = pulse.words[MARK]
        if not mark:
            raise Withdrawn("nobody is watched there any more")
        if mark != MAGIC:
            raise ValueError("written by another version of watchdog_hook")
        return pulse

    @property
    def beat_at(self) -> float:
        """When the loop was last known to be alive: a moment on the monotonic clock."""
        return max(self.numbers[BEAT_AT], self.numbers[OWN_BEAT_AT])

    def is_lost(self) -> bool:
        """Tell whether the host has closed our descriptor: whoever comes now does not find it."""
        return self.fd >= 0 and not self._own.is_ours()

    def take_again(self, holder: int) -> bool:
        """Open the same memory again through another process that has it; tell whether it could be done."""
        for path in places(holder):
            try:
                found = Own(beyond_standard(os.open(path, os.O_RDWR | os.O_CLOEXEC)))
            except OSError:
                continue
            if found.is_same_file(self._own):
                self.fd, self._own = found.fd, found
                return True
            found.close()
        return False

    def close(self) -> None:
        """Give the descriptor back. The memory stays, for a beat may still come."""
        self.fd = -1
        self._own.close()

    def write(self, place: tuple[int, int], text: str) -> None:
        """Write one of the texts; what does not fit is cut off its end."""
        begin, size = place
        data = text.encode("utf-8", "replace")[: size - _HEAD.size]
        start = begin + _HEAD.size
        self._bytes[start : start + len(data)] = data
        _HEAD.pack_into(self._bytes, begin, len(data), binascii.crc32(data))

    def read(self, place: tuple[int, int]) -> str | None:
        """Return one of the texts; None while it is being written."""
        begin, size = place
        length, checksum = _HEAD.unpack_from(self._bytes, begin)
        if length > size - _HEAD.size:
            return None
        start = begin + _HEAD.size
        data = bytes(self._bytes[start : start + length])
        return data.decode("utf-8", "replace") if binascii.crc32(data) == checksum else None


def started(pid: int) -> int | None:
    """Return when a process began, in the kernel's ticks since its own start; None when it is gone or hidden."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read(2048).rpartition(b") ")[2].split()
        return int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def places(pid: int) -> list[str]:
    """Return a path to each of a process's pulses; none where it has none or they may not be seen."""
    folder = f"/proc/{pid}/fd"
    try:
        numbers = os.listdir(folder)
    except OSError:
        return []
    found: dict[int, str] = {}
    for number in numbers:
        path = f"{folder}/{number}"
        try:
            if os.readlink(path).startswith(f"/memfd:{NAME} "):
                # Python's mmap keeps a descriptor of its own of the same memory.
                found.setdefault(os.stat(path).st_ino, path)
        except OSError:
            continue
    return list(found.values())


def holds(pid: int, inode: int) -> bool:
    """Tell whether a process still has that pulse: no program has it that another one becomes. In doubt it has."""
    folder = f"/proc/{pid}/fd"
    try:
        # A descriptor that may be seen and not read, or is closed meanwhile, leaves it open.
        links = [os.readlink(f"{folder}/{number}") for number in os.listdir(folder)]
        ours = [os.stat(path).st_ino == inode for path in places(pid)]
    except OSError:
        return True
    return not inode or not links or any(ours)


def of_process(pid: int, *, write: bool = False) -> Pulse | None:
    """Return the pulse that a process itself keeps; None where it has none, or only its parent's from a fork."""
    for path in places(pid):
        try:
            pulse = Pulse.opened(path, write=write)
        except (OSError, ValueError):
            continue
        if pulse.words[PID] == pid and pulse.words[STARTED] in (0, started(pid) or 0):
            return pulse
    return None

"""faulthandler as the last resort: stacks that need neither the interpreter (GIL) nor a working watchdog."""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import fcntl
import os
import signal
import stat
import threading
import time
from typing import TYPE_CHECKING, Any

from watchdog_hook.actions.interrupt import installed_action
from watchdog_hook.descriptor import BACKSTOP, Own, duplicate, without_waiting
from watchdog_hook.descriptor import memory as new_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Real-time signals mean nothing to anybody by themselves, and the highest are taken last.
CANDIDATES = range(signal.SIGRTMAX - 2, signal.SIGRTMAX - 12, -1)
PATIENCE = 0.1  # seconds anybody waits for an arming that is under way; that takes microseconds
MOST_TEXT = 1 << 20  # bytes kept of what was written before
LEFTOVER = 0.05  # seconds in which a thread that has ended may still be listed
LEAST = 0.05  # seconds: of the timer

# What a thread can block at most: neither SIGKILL nor SIGSTOP, nor the two that the C library keeps for itself.
_UNBLOCKABLE = {signal.SIGKILL, signal.SIGSTOP, 32, 33, 34}
_EVERY = sum(1 << (number - 1) for number in range(1, 65) if number not in _UNBLOCKABLE)

# There is one of each for the whole process, and so there is one owner among our watchdogs.
_owner: Backstop | None = None


class Backstop:
    """
    The timer, two signals and the fatal signals of faulthandler, as far as nobody else has them.

    The signals write into memory of our own: a disk that does not answer would hold up the thread that takes
    them. The timer is armed only while nobody outside watches. faulthandler walks over the frames of threads as
    they are: where these run meanwhile, as they do when a process goes on that was stopped, it reads freed memory,
    and one time in some ten the process crashes (CPython 3.10 to 3.13; python/cpython#140815). The sentinel asks
    only when it has seen that no Python code runs.
    """

    def __init__(self, after: float) -> None:
        self._after = after
        self._turn = threading.RLock()
        self._held = False
        self._fds: list[Own] = []
        self._actions: dict[int, bytes] = {}  # what the kernel calls at our signals
        self._target = -1  # of the timer; -1: it is not wanted
        self._due = 0.0  # when the timer is to fire; 0: it was never armed
        self._fatal = False
        self._originals: dict[str, Callable[..., Any]] = {}
        self._wrappers: dict[str, Callable[..., Any]] = {}
        self.file = -1  # where the signals write
        # At which the thread that takes it writes its own stack, and at which those of all; 0: none was free.
        self.signals = (0, 0)
        self.off: str | None = "not taken"  # why the timer cannot be armed; None where it can

    def take(self) -> None:
        """Take what is free, and arm nothing yet. Raises OSError where the kernel has no memory of that kind."""
        self.file = self._keep(_memory())
        self._take_fatal_signals()
        self.signals = (self._register(all_threads=False), self._register(all_threads=True))
        global _owner
        _owner = self
        if _somebody_waits():
            self.off = "a thread that is not Python's waits with all signals blocked, as faulthandler's timer does"
        else:
            self.off = None
            self._look_out()

    def speak_up(self) -> None:
        """Have the timer write to standard error from the next `arm` on: nobody outside does it for us."""
        if not self._fds:  # disarmed
            return
        try:
            self._target = self._keep(_without_waiting(2))
        except OSError as error:
            self.off = f"standard error cannot be had so that no write waits: {error.strerror}"

    def is_lost(self) -> bool:
        """Tell whether the host has closed what we write to. Its number may be a file's of the host by now."""
        return bool(self._fds) and not self._fds[0].is_ours()

    def arm(self) -> None:
        """Put the timer off once more, if it is wanted. Costs some 30 microseconds. Not where it is lost."""
        if not self._fds:
            return
        memory = self._fds[0]
        # A fork takes the timer's thread away and leaves its lock taken: a child that ends as Python does would
        # wait for that at its very end, for ever. So the timer is never armed while a fork may be under way.
        with self._in_turn() as mine:
            if mine:
                self._due = time.monotonic() + self._after
                self._start()
        if memory.size() > MOST_TEXT:
            os.ftruncate(memory.fd, 0)

    def hold(self) -> None:
        """Before a fork: stop the timer, until `go_on`."""
        self._held = True
        with self._in_turn() as mine:
            if mine:
                self._cancel()
                self._held = True  # once more: a handler that has forked meanwhile has let it go on

    def go_on(self) -> None:
        """After a fork: let the timer go on."""
        self._held = False
        if self._due:
            with self._in_turn() as mine:
                if mine:
                    self._start()

    def disarm(self, why: str = "disarmed") -> None:
        """Give everything back that is still ours. `why` is what `off` says from then on."""
        with self._in_turn():
            self._cancel()
            self._give_back(why)

    def forget(self) -> None:
        """In a forked child: the same, without a lock. The timer was stopped before the fork."""
        self._turn = threading.RLock()
        self._give_back()

    @contextlib.contextmanager
    def _in_turn(self) -> Iterator[bool]:
        """
        Let one thread at a time at the timer; tell whether it may. Waits a moment at most.

        A signal may fall into a thread's turn, and its handler fork, or stop the watchdog: so a thread may have
        its turn within its turn, and nobody waits for a handler that does not return.
        """
        turn = self._turn
        mine = turn.acquire(timeout=PATIENCE)
        try:
            yield mine
        finally:
            if mine:
                turn.release()

    def _start(self) -> None:
        if self.off is None and self._target >= 0 and not self._held:
            left = max(self._due - time.monotonic(), LEAST)
            self._originals["dump_traceback_later"](left, repeat=False, file=self._target)

    def _keep(self, fd: int) -> int:
        # The first is the memory, which witnesses for the duplicates of standard error.
        self._fds.append(Own(fd, self._fds[0] if self._fds else None))
        return fd

    def _cancel(self) -> None:
        if self.off is None and self._target >= 0:
            self._originals["cancel_dump_traceback_later"]()

    def _give_back(self, why: str = "disarmed") -> None:
        global _owner
        if _owner is self:
            _owner = None
        self.off = why
        # Once only: whoever registers with faulthandler after us has the same action.
        actions, self._actions = self._actions, {}
        for number, action in actions.items():
            if installed_action(number) == action:  # not one that somebody has put in its place
                faulthandler.unregister(number)
        self.signals = (0, 0)
        for name, wrapper in self._wrappers.items():
            if getattr(faulthandler, name) is wrapper:
                setattr(faulthandler, name, self._originals[name])
        self._wrappers = {}  # one that somebody has wrapped is silent from here on
        if self._fatal:
            self._fatal = False
            faulthandler.disable()
        fds, self._fds, self.file = self._fds, [], -1
        self._target = -1
        for fd in reversed(fds):  # the witness last
            fd.close()

    def _register(self, *, all_threads: bool) -> int:
        number = free_signal()
        if number:
            faulthandler.register(number, file=self.file, all_threads=all_threads, chain=False)
            self._actions[number] = installed_action(number)
        return number

    def _take_fatal_signals(self) -> None:
        if not faulthandler.is_enabled():
            with contextlib.suppress(OSError):  # standard error is closed
                faulthandler.enable(file=self._keep(duplicate(2)), all_threads=True)
                self._fatal = True

    def _look_out(self) -> None:
        """Notice who takes faulthandler from here on: there is one timer, and no way to ask whose it is."""

        def watch(name: str, note: Callable[[], None]) -> None:
            original = self._originals[name] = getattr(faulthandler, name)

            def noted(*args: Any, **kwargs: Any) -> Any:
                if self._wrappers:
                    note()
                return original(*args, **kwargs)

            self._wrappers[name] = noted
            setattr(faulthandler, name, noted)

        watch("dump_traceback_later", self._give_way)
        watch("cancel_dump_traceback_later", self._take_again)
        for name in ("enable", "disable"):
            watch(name, lambda: setattr(self, "_fatal", False))

    def _give_way(self) -> None:
        # Their call stops our timer by itself.
        if self.off is None:
            self.off = "somebody else has armed faulthandler's timer"

    def _take_again(self) -> None:
        if self.file >= 0:
            self.off = None


def is_taken() -> bool:
    """Tell whether another watchdog of this process has the backstop."""
    return _owner is not None


def _memory() -> int:
    fd = new_memory(BACKSTOP)
    # Everybody writes at its end, whatever was read or cut off.
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
    return fd


def _without_waiting(fd: int) -> int:
    """Return a descriptor of the same file to which a write does not wait. Raises OSError, which says why not."""
    kind = os.fstat(fd).st_mode
    if stat.S_ISREG(kind):
        return duplicate(fd)
    if stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
        return without_waiting(fd)
    raise OSError(errno.EOPNOTSUPP, "its writer may have to wait (a socket)")


def free_signal() -> int:
    """Return a real-time signal that nobody handles, ignores or blocks; 0 for none."""
    status = _status("self")
    taken = status.get("SigCgt", 0) | status.get("SigIgn", 0)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    for number in CANDIDATES:
        free = signal.getsignal(number) == signal.SIG_DFL and not taken >> (number - 1) & 1
        if free and number not in blocked:
            return number
    return 0


def _somebody_waits() -> bool:
    """
    Tell whether a thread is there that looks like faulthandler's timer.

    It blocks every signal and is unknown to `threading` (CPython's Modules/faulthandler.c, faulthandler_thread).
    A library may have such a thread too; then the timer stays off for nothing.
    """
    for _ in range(3):
        if not _strangers():
            return False
        time.sleep(LEFTOVER)
    return True


def _strangers() -> list[str]:
    known = {str(thread.native_id) for thread in threading.enumerate()}
    try:
        others = [tid for tid in os.listdir("/proc/self/task") if tid not in known]
    except OSError:
        return []
    return [
        tid for tid in others if _status(f"self/task/{tid}").get("SigBlk", 0) & _EVERY == _EVERY
    ]


def _status(who: str) -> dict[str, int]:
    """Return the signal masks of a process or thread; empty where they cannot be read."""
    try:
        with open(f"/proc/{who}/status", encoding="utf-8", errors="replace") as file:
            pairs = [line.split(":", 1) for line in file if line.startswith("Sig")]
        return {name: int(mask, 16) for name, mask in pairs if name != "SigQ"}
    except (OSError, ValueError):
        return {}

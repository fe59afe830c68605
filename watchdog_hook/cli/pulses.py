"""
The pulses of watched processes, found from outside.

What is imported here is paid by every probe: it stays with os and the pulse itself.
"""

from __future__ import annotations

import os
import time

from watchdog_hook.sentinel import pulse as places
from watchdog_hook.sentinel.pulse import Pulse, Withdrawn

# A text is written within microseconds, and its writer may lose the processor meanwhile.
AGAIN = 5  # times
PAUSE = 0.002  # seconds

NOT_LOADED = (
    "watchdog_hook is not loaded there, [watchdog_hook] enabled is False, or it is not armed yet"
)


class NotWatched(Exception):  # noqa: N818 - it is an answer
    """There is no pulse to look at. Says why, and what can be done."""


class Watched:
    """A pulse that a process keeps of a loop of its own. `alone`: it is the only one there."""

    __slots__ = ("alone", "pid", "pulse", "whose")

    def __init__(self, pid: int, pulse: Pulse, *, alone: bool = True) -> None:
        self.pid = pid
        self.pulse = pulse
        self.alone = alone
        self.whose = lines_of(pulse, places.WHOSE)  # component, loop: as far as they have names

    @property
    def name(self) -> str:
        """The process, and which of its loops where that is known or has to be told from another."""
        named = [self.whose[key] for key in ("component", "loop") if key in self.whose]
        words = self.pulse.words
        if not named and not self.alone:
            main = words[places.LOOP] == words[places.PID]
            named = ["main thread" if main else f"thread {words[places.LOOP]}"]
        return f"pid {self.pid} ({', '.join(named)})" if named else f"pid {self.pid}"

    @property
    def running(self) -> bool:
        """Whether that very process still is there, and still is watched."""
        words = self.pulse.words
        return words[places.MARK] == places.MAGIC and is_same(self.pid, words[places.STARTED])


def lines_of(pulse: Pulse, place: tuple[int, int]) -> dict[str, str]:
    """Return a text's `key=value` lines; nothing where it stays half written, its writer stopped meanwhile."""
    text = pulse.read(place)
    for _ in range(AGAIN):
        if text is not None:
            break
        time.sleep(PAUSE)
        text = pulse.read(place)
    return dict(line.partition("=")[::2] for line in (text or "").splitlines())


def is_same(pid: int, started: int) -> bool:
    """Tell whether a process is the one that began at that time, and no later one of the same number."""
    return places.started(pid) == started


def in_sight(*, write: bool = False) -> list[Watched]:
    """
    Return all pulses of the watched processes that can be looked into. Raises NotWatched where there is none.

    A process that was started by another of them is left out: it is that one's to look after.
    """
    found: dict[int, list[Watched]] = {}
    reasons = []
    for pid in _pids():
        try:
            found[pid] = _opened(pid, write=write)
        except _Hidden:
            continue
        except NotWatched as why:
            reasons.append(str(why))
    outermost = [pid for pid in found if not any(up in found for up in parents(pid))]
    if not outermost:
        raise NotWatched("; ".join(reasons) or _nobody())
    return [one for pid in outermost for one in found[pid]]


def of(pid: int, *, write: bool = False) -> list[Watched]:
    """Return all pulses of a process. Raises NotWatched where it has none, or may not be looked into."""
    try:
        return _opened(pid, write=write)
    except _Hidden:
        pass
    if not os.path.exists(f"/proc/{pid}"):
        raise NotWatched(f"there is no process {pid} in sight")
    _may_look(pid)
    for up in parents(pid):
        if places.of_process(up) is not None:
            raise NotWatched(
                f"pid {pid} is not watched: it was started by pid {up}, which is; ask that one"
            )
    raise NotWatched(f"pid {pid} is not watched: {NOT_LOADED}")


def parents(pid: int) -> list[int]:
    """Return the parent of a process, the parent of that, and so on, as far as they can be seen."""
    found: list[int] = []
    while (fields := _stat(pid)) and (pid := int(fields[1])) > 0 and pid not in found:
        found.append(pid)
    return found


def state(pid: int) -> str:
    """Return the letter the kernel has for what a process does (man proc_pid_stat); "" where it cannot be read."""
    fields = _stat(pid)
    return fields[0].decode() if fields else ""


class _Hidden(Exception):  # noqa: N818
    """No pulse of its own is to be seen there."""


def _opened(pid: int, *, write: bool) -> list[Watched]:
    unreadable = None
    found: list[Pulse] = []
    for path in places.places(pid):
        try:
            pulse = Pulse.opened(path, write=write)
        except Withdrawn:
            continue
        except ValueError as error:
            unreadable = error
            continue
        except PermissionError:
            _may_look(pid)
            raise NotWatched(f"the pulse of pid {pid} may not be opened") from None
        except OSError:  # gone meanwhile
            continue
        words = pulse.words
        # A process that was forked past our hook has its parent's.
        if is_same(pid, words[places.STARTED]) and words[places.PID] in (pid, _within(pid)):
            found.append(pulse)
    if found:
        return [Watched(pid, pulse, alone=len(found) == 1) for pulse in found]
    if unreadable is not None:
        raise NotWatched(
            f"pid {pid} is watched, and its pulse cannot be read: {unreadable}; restart it"
        )
    raise _Hidden


def _within(pid: int) -> int | None:
    """Return the number that a process has in its own container, where that is another one."""
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            numbers = file.read(4096).partition(b"\nNSpid:")[2].partition(b"\n")[0].split()
    except OSError:
        return None
    return int(numbers[-1]) if numbers else None


def _may_look(pid: int) -> None:
    try:
        owner = os.stat(f"/proc/{pid}").st_uid
        os.listdir(f"/proc/{pid}/fd")
    except PermissionError:
        raise NotWatched(
            f"pid {pid} may not be looked into by user {os.geteuid()}: run this as the user of that process"
            f" (/proc has {owner}), or as root with the capability SYS_PTRACE"
        ) from None
    except OSError:
        raise NotWatched(f"there is no process {pid} in sight") from None


def _nobody() -> str:
    hidden = sum(not os.access(f"/proc/{pid}/fd", os.R_OK) for pid in _pids())
    more = f"; {hidden} processes of other users may not be looked into" if hidden else ""
    return (
        f"no process in sight is watched by watchdog_hook: {NOT_LOADED}; `watchdog-hook doctor`, run as"
        f" the scheduler's user, tells which{more}"
    )


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def _stat(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return file.read(2048).rpartition(b") ")[2].split()
    except OSError:
        return []

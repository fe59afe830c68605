"""Where a case plays: its peers, its folder, and the watchdog that dumps it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tests.victims.peers import Remote
from watchdog_hook import Config, Watchdog, incidents
from watchdog_hook.core.diagnosis import diagnose
from watchdog_hook.core.model import Snapshot
from watchdog_hook.core.plain import to_plain
from watchdog_hook.core.signs import Case

if TYPE_CHECKING:
    from watchdog_hook.ports import Host

# Short, for a silence is waited for.
QUICK: dict[str, Any] = {
    "poll_interval": 0.1,
    "sample_after": 0.3,
    "dump_after": 1.5,
    "startup_grace": 0,
    "interrupt": "off",
}
HEARTBEAT = "executor.heartbeat (KubernetesExecutor)"

T = TypeVar("T")
Play = Callable[["Stage"], object]
CASES: dict[str, Play] = {}


def case(name: str) -> Callable[[Play], Play]:
    """Register a case under the name of its recording."""

    def register(play: Play) -> Play:
        assert name not in CASES
        CASES[name] = play
        return play

    return register


class Stage:
    """One run of one case."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._peers: list[Remote] = []  # each ends when nobody has it any more
        self._entered = contextlib.ExitStack()

    def peer(self, kind: str, **arguments: Any) -> Remote:
        """Start a peer: see tests/victims/peers.py."""
        self._peers.append(Remote(kind, **arguments))
        return self._peers[-1]

    def enter(self, context: contextlib.AbstractContextManager[T]) -> T:
        """Enter a context, and never leave it: for `watched`, where something else has to be left later."""
        return self._entered.enter_context(context)

    @contextlib.contextmanager
    def watched(
        self, phase: str | None = None, host: Host | None = None, **settings: Any
    ) -> Iterator[Watchdog]:
        """Watch this thread. What is in the block gets stuck: at the dump the case is saved and all ends."""
        self.save_dump()
        config = Config(**{**QUICK, "incident_dir": str(self.folder / "incidents"), **settings})
        with Watchdog(config, host=host) as dog:
            dog.beat(phase)
            yield dog
        raise AssertionError("this case came back before it was dumped")

    def save_dump(self) -> None:
        """Have the first dump of this process saved, and the process ended by it."""
        name = "diagnose"
        setattr(incidents, name, self._save)

    def _save(self, snapshot: Snapshot, *, silence: float, **given: Any) -> Any:
        case = Case(snapshot, silence, **given)
        (self.folder / "case.json").write_text(json.dumps(to_plain(case)), encoding="utf-8")
        finding = diagnose(snapshot, silence=silence, **given)
        said = [f"{finding.id}: {finding.sentence}"]
        said += [f"    + {other.id}: {other.sentence}" for other in finding.also]
        said += [f"    . {sign}" for sign in finding.signs]
        said += [f"    ? {what}: {why}" for what, why in snapshot.unavailable]
        (self.folder / "said.txt").write_text("\n".join(said), encoding="utf-8")
        for peer in self._peers:
            peer.close()  # else a file system's would wait for us, and we for it
        os._exit(0)


def patiently(condition: Callable[[], object]) -> None:
    """Return once a condition holds."""
    end = time.monotonic() + 30
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("this never came to be")
        time.sleep(0.01)


def connected(host: str, port: int) -> socket.socket:
    """Return a connection without any timeout."""
    return socket.create_connection((host, port))


def sleeping(pid: int) -> bool:
    """Tell whether a process, of one thread, sleeps in the kernel."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "SD"


def main() -> None:
    """Play one case in this process."""
    from tests.victims import cases

    name, folder = sys.argv[1], Path(sys.argv[2])
    cases.load()
    CASES[name](Stage(folder))

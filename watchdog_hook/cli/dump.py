"""
The verb dump: what every thread of a watched process does now.

The hook is asked through its pulse, and makes the dump itself. Where it does not answer, or is not there, the
stacks are taken from outside.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from watchdog_hook.cli import FINE, PROBLEM, UsageError, pulses, show, store
from watchdog_hook.cli.console import visible
from watchdog_hook.cli.from_outside import NoStacks, by_faulthandler, by_py_spy
from watchdog_hook.cli.pulses import NotWatched, Watched
from watchdog_hook.sentinel import pulse as places

PATIENCE = (
    45.0  # seconds for a hook that looks: its disk may have ten, the log two, the database four
)
LATE = 15.0  # seconds without a look after which the hook is not waited for
LEAST = 5.0  # seconds it is waited for at least
PAUSE = 0.05


class Unanswered(Exception):  # noqa: N818 - it is an answer
    """The hook does not make the dump. Says why."""


def run(pid: int | None, *, as_json: bool) -> int:
    """Print a dump of a process. Return 1 if none could be had, or it cannot be read here."""
    try:
        one = _chosen(pid)
    except NotWatched as why:
        _say(f"{why}.")
        if pid is None or not Path(f"/proc/{pid}").exists():
            return PROBLEM
        return _from_outside(pid, None, as_json=as_json)
    try:
        incident, path = ask(one)
    except Unanswered as why:
        _say(f"{why}. Its stacks are taken from outside.")
        return _from_outside(one.pid, one, as_json=as_json)
    return _show(one.pid, incident, path, as_json=as_json)


def _chosen(pid: int | None) -> Watched:
    if pid is not None:
        return pulses.of(pid, write=True)
    found = pulses.in_sight(write=True)
    if len(found) > 1:
        pids = ", ".join(str(one.pid) for one in sorted(found, key=lambda one: one.pid))
        raise UsageError(f"several processes here are watched ({pids}): say --pid PID")
    return found[0]


def ask(one: Watched) -> tuple[str, str]:
    """
    Have a process's hook make a dump; return the incident's id and its path there. Raises Unanswered.

    The request is a number in the shared memory, which the hook sees at its next look. No signal is sent.
    """
    numbers, words = one.pulse.numbers, one.pulse.words
    before = words[places.ANSWERED]
    words[places.REQUEST] = _other_than(before, words[places.REQUEST])
    began = time.monotonic()
    told = False
    while words[places.ANSWERED] == before:
        now = time.monotonic()
        if not one.running:
            raise Unanswered(f"pid {one.pid} has ended, or is not watched any more")
        late = now - max(numbers[places.TICK_AT], min(began, one.pulse.beat_at))
        if now - began >= LEAST and late >= LATE:
            raise Unanswered(f"the hook of pid {one.pid} has not looked for {late:.0f} s")
        if now - began >= PATIENCE:
            raise Unanswered(
                f"the hook of pid {one.pid} looks, and has not answered within {PATIENCE:.0f} s"
            )
        if not told and now - began >= 0.3 and sys.stderr.isatty():
            told = True
            _say(f"asked pid {one.pid} for a dump; its hook looks every three seconds ...")
        time.sleep(PAUSE)
    text = one.pulse.read(places.ANSWER)
    while text is None:  # while the next answer is being written
        time.sleep(PAUSE)
        text = one.pulse.read(places.ANSWER)
    incident, _, path = text.partition("\n")
    return incident, path


def _other_than(*numbers: int) -> int:
    number = time.monotonic_ns()
    while number in numbers:
        number += 1
    return number


def _show(pid: int, incident: str, path: str, *, as_json: bool) -> int:
    """Print an incident's files: as that process sees them, which may be in another container."""
    seen = Path(path) if path.startswith("/") else Path("cwd", path)
    for root in (Path(f"/proc/{pid}", "root" if path.startswith("/") else "."), Path("/")):
        folder = root / str(seen).lstrip("/")
        if _is_readable(folder):
            stored = store.load(folder)
            _say(f"incident {incident}, files in {path}")
            return show.show_one(stored, as_json=as_json, as_dumped=True)
    _say(
        f"the hook of pid {pid} has made the dump: incident {incident}. Its files cannot be read here ({path});"
        " the dump is in that process's log, too."
    )
    return PROBLEM


def _is_readable(folder: Path) -> bool:
    try:
        return (folder / "dump.txt").is_file()
    except OSError:
        return False


def _from_outside(pid: int, one: Watched | None, *, as_json: bool) -> int:
    for name in ("faulthandler", "py-spy"):
        try:
            if name == "py-spy":
                text = by_py_spy(pid)
            elif one is not None:
                text = by_faulthandler(one)
            else:
                continue
        except NoStacks as why:
            _say(f"{why}." if name in str(why) else f"{name}: {why}.")
            continue
        _print(pid, name, text, as_json=as_json)
        return FINE
    return PROBLEM


def _print(pid: int, source: str, text: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"pid": pid, "source": source, "text": text}, indent=2))
        return
    text = f"Stacks of pid {pid} by {source}:\n\n{text.rstrip()}\n"
    sys.stdout.write(visible(text) if sys.stdout.isatty() else text)


def _say(text: str) -> None:
    print(visible(text), file=sys.stderr, flush=True)

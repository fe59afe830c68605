"""
The verb dump: what every thread of a watched process does now.

The hook is asked through its pulse, and makes the dump itself. Where it does not answer, or is not there, the
stacks are taken from outside.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from watchdog_hook.cli import FINE, PROBLEM, UsageError, pulses, show, store
from watchdog_hook.cli.console import visible
from watchdog_hook.cli.from_outside import NoStacks, by_faulthandler, by_py_spy
from watchdog_hook.cli.pulses import NotWatched, Watched
from watchdog_hook.cli.request import Request, Unanswered, say
from watchdog_hook.sentinel import pulse as places

if TYPE_CHECKING:
    from collections.abc import Iterator

    from watchdog_hook.cli.store import Stored


class Stacks(NamedTuple):
    """What was had from outside."""

    pid: int
    source: str
    text: str


def run(pid: int | None, *, as_json: bool) -> int:
    """Print a dump of each loop of a process. Return 1 if one could not be had, or cannot be read here."""
    try:
        found = _chosen(pid)
    except NotWatched as why:
        say(f"{why}.")
        if pid is None or not Path(f"/proc/{pid}").exists():
            return PROBLEM
        return _print_all(iter([_from_outside(pid, None)]), 1, as_json=as_json)
    return _print_all(_answers(found), len(found), as_json=as_json)


def _chosen(pid: int | None) -> list[Watched]:
    """Return the pulses of one process."""
    if pid is not None:
        return pulses.of(pid, write=True)
    found = pulses.in_sight(write=True)
    pids = sorted({one.pid for one in found})
    if len(pids) > 1:
        some = ", ".join(map(str, pids))
        raise UsageError(f"several processes here are watched ({some}): say --pid PID")
    return found


def _answers(found: list[Watched]) -> Iterator[Stored | Stacks | None]:
    """Ask all watchdogs of a process, and give what each answers; None, once said, for what cannot be had."""
    silent = []
    for request in [Request(one) for one in found]:  # all at once: they dump side by side
        try:
            incident, path = request.answer()
        except Unanswered as why:
            silent.append(request.one)
            say(f"{why}. Its stacks are taken from outside.")
        else:
            yield _stored(request.one, incident, path)
    if silent:
        # Once: they are those of the process. Only one of its watchdogs has what faulthandler gives.
        has_signal = (one for one in found if one.pulse.words[places.SIGNAL])
        yield _from_outside(silent[0].pid, next(has_signal, silent[0]))


def _stored(one: Watched, incident: str, path: str) -> Stored | None:
    """Return an incident's files: as that process sees them, which may be in another container."""
    seen = Path(path) if path.startswith("/") else Path("cwd", path)
    for root in (Path(f"/proc/{one.pid}", "root" if path.startswith("/") else "."), Path("/")):
        folder = root / str(seen).lstrip("/")
        if _is_readable(folder):
            stored = store.load(folder)
            say(f"incident {incident}, files in {path}")
            return stored
    say(
        f"the hook of {one.name} has made the dump: incident {incident}. Its files cannot be read here ({path});"
        " the dump is in that process's log, too."
    )
    return None


def _is_readable(folder: Path) -> bool:
    try:
        return (folder / "dump.txt").is_file()
    except OSError:
        return False


def _from_outside(pid: int, one: Watched | None) -> Stacks | None:
    for name in ("faulthandler", "py-spy"):
        try:
            if name == "py-spy":
                return Stacks(pid, name, by_py_spy(pid))
            if one is not None:
                return Stacks(pid, name, by_faulthandler(one))
        except NoStacks as why:
            say(f"{why}." if name in str(why) else f"{name}: {why}.")
    return None


def _print_all(answers: Iterator[Stored | Stacks | None], loops: int, *, as_json: bool) -> int:
    """Print them as they come; for a program in the end, of several loops as a list."""
    code = FINE
    told: list[dict[str, Any]] = []
    printed = False
    for answer in answers:
        if answer is None:
            code = PROBLEM
        elif as_json:
            told.append(_plain(answer))
            code = max(code, PROBLEM if told[-1].get("damage") else FINE)
        else:
            if printed:
                print()
            printed = True
            code = max(code, _print(answer))
            sys.stdout.flush()
    if told:
        print(json.dumps(told if loops > 1 else told[0], indent=2))
    return code


def _plain(answer: Stored | Stacks) -> dict[str, Any]:
    if isinstance(answer, Stacks):
        return answer._asdict()
    plain = show.plain(answer)
    for each in plain.get("damage", ()):
        say(f"{answer.id}: {each}")
    return plain


def _print(answer: Stored | Stacks) -> int:
    if not isinstance(answer, Stacks):
        return show.show_one(answer, as_dumped=True)
    text = f"Stacks of pid {answer.pid} by {answer.source}:\n\n{answer.text.rstrip()}\n"
    sys.stdout.write(visible(text) if sys.stdout.isatty() else text)
    return FINE

"""Whose code a frame is: Airflow's, the user's, this package's, or a library's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from watchdog_hook.core.signs import _AIRFLOW, _INSTALLED, _OURS, _STDLIB

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from watchdog_hook.core.model import Frame

AIRFLOW, YOURS, HOOK, LIBRARY = "airflow", "yours", "hook", "library"
_SCRIPT = re.compile(r"/bin/[^/.]+$")  # what pip made to start a command
_COMMAND_LINE = re.compile(r"/airflow/(?:cli/|__main__\.py)")


def owner(file: str) -> str:
    """Return whose code a file is: `airflow`, `yours`, `hook` (this package and wrapt) or `library`."""
    installed = _INSTALLED.search(file)
    if _OURS.search(file):
        return HOOK
    if _AIRFLOW.search(file) or (installed and installed.group(1).startswith("airflow/")):
        return AIRFLOW
    if not file or installed or _STDLIB.search(file) or _SCRIPT.search(file):
        return LIBRARY
    return YOURS


def is_own(frame: Frame) -> bool:
    """Tell whether a frame is the caller's own code: Airflow's or the user's, no library's."""
    return owner(frame.file) in (AIRFLOW, YOURS)


def places(frames: Iterable[Frame]) -> Iterator[str]:
    """
    Return the own frames of a stack, innermost first, as `function file`: the same on every host.

    Without lines, without the qualified names that Python has from 3.11 on, without the folders before
    Airflow's package or before the user's last one, each place once where it calls itself. Frames of
    Airflow's command line and what started it are left out: they differ by how it was started.
    """
    before = ""
    for frame in frames:
        if _COMMAND_LINE.search(frame.file):
            return
        if not is_own(frame):
            continue
        place = f"{frame.function.rpartition('.')[2]} {_stable(frame.file)}"
        if place != before:
            yield place
        before = place


def outer(frames: Iterable[Frame]) -> int:
    """Return how many of a stack's frames, counted from the outermost, only started Airflow."""
    stack = list(frames)
    inner = next((n for n, f in enumerate(stack) if _COMMAND_LINE.search(f.file)), len(stack))
    return len(stack) - inner


def _stable(file: str) -> str:
    installed, airflow = _INSTALLED.search(file), _AIRFLOW.search(file)
    if installed:
        return installed.group(1)
    if airflow:
        return file[airflow.start() + 1 :]
    return "/".join(file.split("/")[-2:])

"""The hook's own lines in a scheduler's log, read back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LINE = re.compile(r"watchdog_hook: (?=event=)")
_PAIR = re.compile(r'([\w.]+)=("(?:[^"\\]|\\.)*"|[^\s"]*)(?:\s+|$)')

_COLOUR_ENDS = "\x1b[0m"  # Airflow 2.9 colours its log, also in a file


@dataclass(frozen=True)
class Event:
    """One record of the hook: its name, its facts, and where in the log it stands."""

    name: str
    facts: dict[str, str]
    at: int
    line: str


def read_events(text: str, offset: int = 0) -> Iterator[Event]:
    """
    Find the hook's log records. `offset` is where in the log `text` begins.

    The first line of a dump stands there twice: it goes to standard error before the log record does,
    in case that one gets stuck. Such a bare line is no record, and neither is one that is still being written.
    """
    for match in _LINE.finditer(text):
        if match.start() == 0 or text[match.start() - 1] == "\n":
            continue
        if (end := text.find("\n", match.end())) < 0:
            break
        line = text[match.end() : end].removesuffix(_COLOUR_ENDS)
        facts: dict[str, str] = {}
        position = 0
        while pair := _PAIR.match(line, position):
            name, value = pair.groups()
            facts[name] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
            position = pair.end()
        yield Event(facts.pop("event"), facts, offset + match.start(), line)

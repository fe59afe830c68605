"""What of a recording is this machine's: its paths, and numbers that differ from run to run."""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
SITE = f"/opt/venv/lib/{VERSION}/site-packages"

_PIDS = ("pid", "native_id", "parent", "child")
_IDENTS = ("ident", "owner_ident", "thread_ident")
_FIRST_PID = 101
_PID_TEXT = re.compile(r"\bpid (\d+)|\bprocess (\d+)")
_KEPT = ("duration_s", "pid")  # None says something there: it goes on; there is no process
_EMPTY: tuple[Any, ...] = (None, [], "")


class Scrub:
    """Replaces the same with the same, all through one recording."""

    def __init__(self, folder: str) -> None:
        self._pids: dict[int, int] = {}
        self._idents: dict[int, int] = {}
        home = re.escape(folder)
        self._paths = [
            (re.compile(rf"{home}/airflow(?=/|$)"), "/opt/airflow"),
            (re.compile(home), "/opt/victim/work"),
            (re.compile(re.escape(f"{ROOT}/watchdog_hook")), f"{SITE}/watchdog_hook"),
            (re.compile(rf"{re.escape(str(ROOT))}/tests/(?:\w+/)*"), "/opt/victim/"),
            (re.compile(r"/\S*?/lib/python3\.\d+/site-packages"), SITE),
            (re.compile(re.escape(sysconfig.get_path("stdlib"))), f"/usr/lib/{VERSION}"),
            (re.compile(re.escape(str(Path(sys.executable).parent))), "/opt/venv/bin"),
            (re.compile(r"\btests\.victims\.cases\."), "victim."),
            (re.compile(r"/mnt/dags-\w+"), "/opt/airflow/dags"),
            (re.compile(r"/\S*/pymp-\w+"), "/run/pymp-a1b2c3"),
        ]

    def of(self, value: Any, name: str = "") -> Any:
        """Return a plain value without what is this machine's, and without what is empty."""
        if isinstance(value, dict):
            if name == "reading":
                value = {**value, "position": [1, 2, 3], "stack": 4}
            # Addresses; no rule looks at them.
            clean = {key: self.of(item, key) for key, item in value.items() if key != "arguments"}
            return {key: item for key, item in clean.items() if key in _KEPT or item not in _EMPTY}
        if isinstance(value, list):
            return [self.of(item, name) for item in value]
        if isinstance(value, bool):
            return value
        if isinstance(value, int):
            return self._number(value, name)
        return self._text(value) if isinstance(value, str) else value

    def _number(self, value: int, name: str) -> int:
        if name in _PIDS and value > 0:
            return self._pids.setdefault(value, _FIRST_PID + len(self._pids))
        if name in _IDENTS:
            return self._idents.setdefault(value, 1 + len(self._idents))
        return value

    def _text(self, text: str) -> str:
        for pattern, instead in self._paths:
            text = pattern.sub(instead, text)
        return _PID_TEXT.sub(self._pid_text, text)

    def _pid_text(self, found: re.Match[str]) -> str:
        number = found[1] or found[2]
        return found[0].replace(number, str(self._number(int(number), "pid")))

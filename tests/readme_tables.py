"""
Write the README's tables from the code: `python3 tests/readme_tables.py`.

The settings come from `watchdog_hook.config`, the causes and their remedies from the rules of
`watchdog_hook.core.diagnosis`. tests/unit/test_readme.py compares, and says which table is old.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"

sys.path.insert(0, str(ROOT))  # run as a script, it finds the package beside it

from watchdog_hook.config import KNOBS, Knob  # noqa: E402
from watchdog_hook.core.diagnosis import RULES, Rule  # noqa: E402
from watchdog_hook.core.model import (  # noqa: E402
    CallRecord,
    Frame,
    Peer,
    Snapshot,
    ThreadReading,
    ThreadStack,
)
from watchdog_hook.core.signs import Case  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

# Where the sample thread of a rule's sentence stands, for the rules that name the place.
LEAVES = {
    "name-service": Frame("getaddrinfo", "/usr/lib/python3.12/socket.py", 976),
    "socket": Frame(
        "DefaultDialect.do_execute", "/x/site-packages/sqlalchemy/engine/default.py", 952
    ),
    "unknown": Frame("Popen.wait", "/usr/lib/python3.12/multiprocessing/popen_fork.py", 40),
}
READ = Frame("SSLSocket.read", "/usr/lib/python3.12/ssl.py", 1105)
UNDER = (
    Frame("pod_mutation_hook", "/opt/airflow/config/airflow_local_settings.py", 12),
    Frame("pod_mutation_hook", "/x/site-packages/airflow/settings.py", 219),
)
POST = CallRecord("POST /api/v1/namespaces/{namespace}/pods", "10.0.0.1:443", "MainThread", 31.0)
OTHER = CallRecord("ask the server", "10.0.0.7:443", "MainThread", 31.0)
CALLS = {"connect": OTHER, "tls-handshake": OTHER, "socket": None, "unknown": None}
ANSWERED = ("kubernetes-trickle", "kubernetes-half-answer")


def settings() -> str:
    """Return the table of options."""
    rows = ["| option | default | unit | what it does |", "|---|---|---|---|"]
    return "\n".join([*rows, *(_option(one) for one in KNOBS.values())])


def _option(one: Knob) -> str:
    default = one.default_text or "empty"
    example = f" Example: `{one.example}`." if one.example else ""
    return f"| `{one.name}` | `{default}` | {one.unit} | {one.text}{example} |"


def causes() -> str:
    """Return each rule: its id, its sentence about a sample, its remedy."""
    return "\n\n".join(_cause(rule) for rule in RULES)


def _cause(rule: Rule) -> str:
    reading = ThreadReading(
        position=(0, 0, 0),
        stack=0,
        leaf=None,
        peer=Peer("10.0.0.7", 5432) if rule.id == "socket" else None,
        received_ago_s=4.0 if rule.id in ANSWERED else None,
    )
    stack = ThreadStack(1, "MainThread", (LEAVES.get(rule.id, READ), *UNDER))
    case = Case(Snapshot((stack,)), 31.0, call=CALLS.get(rule.id, POST), reading=reading)
    remedy = "\n".join(f"    {line}" for line in rule.remedy.splitlines())
    return f"**`{rule.id}`** ({rule.confidence} confidence): “{rule.says(case)}.”\n\n{remedy}"


TABLES: dict[str, Callable[[], str]] = {"settings": settings, "causes": causes}


def written(name: str, text: str) -> str:
    """Return what the README has between the marks of a table."""
    found = re.search(_between(name), text, re.S)
    if found is None:
        raise LookupError(f"README.md has no marks for the table of {name}")
    return found[2].strip("\n")


def with_tables(text: str) -> str:
    """Return the README's text with every table as the code has it now."""
    for name, table in TABLES.items():
        written(name, text)
        fresh = table()
        text = re.sub(
            _between(name),
            lambda found, fresh=fresh: f"{found[1]}\n{fresh}\n{found[3]}",
            text,
            flags=re.S,
        )
    return text


def _between(name: str) -> str:
    return rf"(<!-- begin {name} -->)(.*?)(<!-- end {name} -->)"


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")

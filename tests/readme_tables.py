"""
Write the README's tables from the code: `python3 tests/readme_tables.py`.

The settings come from `watchdog_hook.config`, the causes and their remedies from the rules of
`watchdog_hook.core.diagnosis`. tests/unit/test_readme.py compares, and says which table is old.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"

sys.path.insert(0, str(ROOT))  # run as a script, it finds the package beside it

from watchdog_hook.config import KNOBS, Knob  # noqa: E402
from watchdog_hook.core.plain import from_plain  # noqa: E402
from watchdog_hook.core.rules import RULES, Rule  # noqa: E402
from watchdog_hook.core.signs import Case  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

STACKS = ROOT / "tests" / "stacks"


def settings() -> str:
    """Return the table of options."""
    rows = ["| option | default | unit | what it does |", "|---|---|---|---|"]
    return "\n".join([*rows, *(_option(one) for one in KNOBS.values())])


def _option(one: Knob) -> str:
    default = one.default_text or "empty"
    example = f" Example: `{one.example}`." if one.example else ""
    return f"| `{one.name}` | `{default}` | {one.unit} | {one.text}{example} |"


def causes() -> str:
    """Return each rule: its id, what it said of the evidence recorded for it, its remedy."""
    return "\n\n".join(_cause(rule) for rule in RULES)


def _cause(rule: Rule) -> str:
    remedy = "\n".join(f"    {line}" for line in rule.remedy.splitlines())
    recorded = STACKS / f"{rule.id}.json"
    said = ""
    if recorded.exists():
        case = from_plain(Case, json.loads(recorded.read_text(encoding="utf-8")))
        said = f": “{rule.says(case)}.”" if case else ""
    return f"**`{rule.id}`** ({rule.confidence} confidence){said}\n\n{remedy}"


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

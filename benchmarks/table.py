"""The one table: groups of lines, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.figures import Line

WIDTH = 62  # of the first column
LEGEND = (
    "95 %: interval of the median by order statistics. A bound is what the figure stays below;"
    " met? and not met?: the spread reaches across it."
)


def render(groups: Mapping[str, Sequence[Line]]) -> str:
    """Return the table."""
    rows = []
    for name, lines in groups.items():
        rows.append(f"{name}")
        for line in lines:
            rows.append("  " + _row(line).rstrip())
            if line.figure is not None and line.note:
                rows.append(f"      {line.note}")
    head = f"  {'':{WIDTH}}{'figure':>12}  {'spread':<36}{'bound':>10}"
    return "\n".join([head, *rows, "", LEGEND])


def _row(line: Line) -> str:
    if line.figure is None:
        return f"{line.what:{WIDTH}}  {line.note}"
    spread = ""
    if line.spread is not None:
        low, high = (_number(end) for end in line.spread)
        spread = f"{low} .. {high} ({line.spread_is})"
    bound = "" if line.bound is None else f"< {_number(line.bound)} {line.unit}".rstrip()
    figure = f"{_number(line.figure)} {line.unit}".rstrip()
    return f"{line.what:{WIDTH}}{figure:>12}  {spread:<36}{bound:>10}  {_verdict(line)}"


def _verdict(line: Line) -> str:
    if line.met is None:
        return ""
    return ("met" if line.met else "not met") + ("" if line.certain else "?")


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1_000_000:
        return str(int(value))
    digits = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1
    return f"{value:.{digits}f}"

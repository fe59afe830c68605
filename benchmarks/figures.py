"""What is measured becomes lines of one table: a figure, its spread, its bound, and whether it is met."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class NotMeasured(Exception):  # noqa: N818 - it is news, not an error
    """What a figure needs is not here; the text says what."""


@dataclass(frozen=True)
class Line:
    """
    One line of the table.

    `spread` is the interval around the figure, and `spread_is` says which. `bound` is what the figure
    should stay below; None for a figure that stands there for comparison only.
    """

    what: str
    figure: float | None = None
    unit: str = ""
    spread: tuple[float, float] | None = None
    spread_is: str = ""
    bound: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Tell whether the bound is kept; None where there is none, or no figure."""
        if self.figure is None or self.bound is None:
            return None
        return self.figure < self.bound

    @property
    def certain(self) -> bool:
        """Tell whether the whole spread lies on the figure's side of the bound."""
        if self.bound is None or self.spread is None:
            return True
        return all((end < self.bound) is self.met for end in self.spread)

    def as_json(self) -> dict[str, Any]:
        """Return the line for `--json`."""
        return {**asdict(self), "met": self.met, "certain": self.certain}


def interval_of_median(values: Sequence[float]) -> tuple[float, float]:
    """
    Return the 95 % interval of the median by order statistics: nothing is assumed of the distribution.

    Below six values there is no such interval; then it is their range.
    """
    ordered, count = sorted(values), len(values)
    left_out, tail = 0, 0.0
    for rank in range(count):
        tail += math.comb(count, rank) / 2**count
        if tail > 0.025 or 2 * (rank + 1) >= count:
            break
        left_out = rank + 1
    first = max(0, left_out - 1)
    return ordered[first], ordered[-1 - first]


def median_line(
    what: str, values: Sequence[float], unit: str, bound: float | None = None, note: str = ""
) -> Line:
    """Return the median of several values with its 95 % interval."""
    few = len(values) < 6
    spread_is = f"{'range' if few else '95 %'} of {len(values)}"
    return Line(
        what,
        statistics.median(values),
        unit,
        interval_of_median(values),
        spread_is,
        bound,
        note,
    )


def worst_line(
    what: str, values: Sequence[float], unit: str, bound: float | None = None, note: str = ""
) -> Line:
    """Return the worst of several values, with their least and their median as its spread."""
    spread = (min(values), statistics.median(values))
    return Line(what, max(values), unit, spread, f"least .. median of {len(values)}", bound, note)


def interleaved(
    one: Callable[[], float], other: Callable[[], float], pairs: int
) -> list[tuple[float, float]]:
    """Take the two turns about, A B B A A B …, so that neither has the quieter moments of the machine."""
    found = []
    for number in range(pairs):
        if number % 2:
            second = other()
            found.append((one(), second))
        else:
            first = one()
            found.append((first, other()))
    return found

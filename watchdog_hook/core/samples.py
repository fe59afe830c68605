"""Where the time went: the samples of a silence as a table, and what of a stack is not there on healthy days."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from watchdog_hook.core.text import SENTENCE, clean, frame_text, plain_number, short_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watchdog_hook.core.model import Frame, Sample

    Normal = Sequence[tuple[tuple[Frame, ...], int]]

# The columns of py-spy's `top`, one blank further in: a line of a record begins with one.
HEADER = "   %Own   %Total  OwnTime  TotalTime  Function (filename)"
_NAMED = 4  # functions of the healthy samples
_OURS = ("/watchdog_hook/", "/wrapt/")  # wrappers: what they call says more


@dataclass(frozen=True, slots=True)
class Row:
    """One function: for how long it was the innermost, and for how long anywhere on the stack."""

    function: str
    own: float  # share of the time, 0 to 1
    total: float
    own_s: float
    total_s: float


def spans(samples: Sequence[Sample]) -> tuple[float, ...]:
    """
    Return for each sample the seconds it stands for: until the next look.

    The last one stands for none, since the dump is made at its look. The silence before the first one was not
    looked at and is nobody's.
    """
    if not samples:
        return ()
    times = [sample.at_s for sample in samples]
    return (*(max(0.0, after - before) for before, after in pairwise(times)), 0.0)


def table(samples: Sequence[Sample]) -> tuple[Row, ...]:
    """
    Return what the samples say of each function, the one with the most time of its own first.

    A function counts once in a sample, however often it recurs in it. Where no time lies between the samples,
    each of them has the same share.
    """
    lasted = spans(samples)
    whole = sum(lasted)
    own: dict[str, list[float]] = {}
    total: dict[str, list[float]] = {}
    for sample, seconds in zip(samples, lasted, strict=True):
        share = seconds / whole if whole > 0 else 1 / len(samples)
        functions = list(dict.fromkeys(map(function_text, sample.frames)))
        for found, counted in ((own, functions[:1]), (total, functions)):
            for function in counted:
                sums = found.setdefault(function, [0.0, 0.0])
                sums[0] += share
                sums[1] += seconds
    rows = (
        Row(name, own.get(name, [0.0])[0], all_[0], own.get(name, [0.0, 0.0])[1], all_[1])
        for name, all_ in total.items()
    )
    return tuple(sorted(rows, key=lambda row: (-row.own, -row.total)))


def lines(samples: Sequence[Sample], most: int | None = None) -> list[str]:
    """Return the table as text, in the layout of py-spy's `top`; of `most` functions, or of all."""
    if not samples:
        return []
    first, last, count = samples[0].at_s, samples[-1].at_s, len(samples)
    since, until = plain_number(first), plain_number(last)
    when = f"at {until} s" if count == 1 else f"between {since} s and {until} s"
    rows = table(samples)
    shown = rows if most is None else rows[:most]
    more = [f"   ... {len(rows) - len(shown)} more functions"] if len(shown) < len(rows) else []
    return [
        f" Where the time went, in {count} sample{'s' * (count > 1)} {when} of silence:",
        HEADER,
        *(
            f" {100 * row.own:6.2f}% {100 * row.total:6.2f}% {_time(row.own_s):>7}s"
            f" {_time(row.total_s):>8}s   {row.function}"
            for row in shown
        ),
        *more,
    ]


def is_new(frames: Sequence[Frame], normal: Normal) -> tuple[bool, ...]:
    """Return for each frame whether its function is in no healthy sample; False where there are none."""
    if not normal:
        return (False,) * len(frames)
    known = {(frame.function, frame.file) for stack, _ in normal for frame in stack}
    return tuple((frame.function, frame.file) not in known for frame in frames)


def against_normal(frames: Sequence[Frame], normal: Normal, turn: str | None = None) -> list[str]:
    """
    Return where the loop is on healthy days, and the outermost frame that was never there, each in a line.

    `turn` says how long a turn of it takes. Nothing without a healthy sample.
    """
    count = sum(times for _, times in normal)
    if not count:
        return []
    innermost: dict[str, int] = {}
    for stack, times in normal:
        if stack:
            name = function_text(stack[0])
            innermost[name] = innermost.get(name, 0) + times
    named = sorted(innermost.items(), key=lambda item: -item[1])[:_NAMED]
    told = [turn] if turn else []
    told += ["innermost " + ", ".join(f"{100 * n / count:.0f} % {name}" for name, n in named)]
    normally = f" Normally ({count} healthy sample{'s' * (count > 1)}): {'; '.join(told)}."
    new = [frame for frame, is_ in zip(frames, is_new(frames, normal), strict=True) if is_]
    if new:
        telling = [frame for frame in new if not any(part in frame.file for part in _OURS)] or new
        verdict = (
            f" New since the healthy picture: {frame_text(telling[-1])};"
            " + marks what was in no healthy sample."
        )
    else:
        verdict = " Nothing is new since the healthy picture: each function of the stack was in a healthy sample."
    return [clean(normally, SENTENCE), clean(verdict, SENTENCE)]


def function_text(frame: Frame) -> str:
    """Return a frame as `function (file)`, without its line: what is one row of the table."""
    return clean(frame.function + (f" ({short_path(frame.file)})" if frame.file else ""))


def _time(seconds: float) -> str:
    """Return seconds as py-spy shows them: fewer decimals the more there are."""
    digits = 0 if seconds > 1000 else 1 if seconds >= 100 else 2 if seconds >= 1 else 3
    return f"{seconds:.{digits}f}"

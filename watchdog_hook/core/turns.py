"""The flight recorder as text: the last turns of the loop, each with the time of its phases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchdog_hook.core.text import WIDTH, clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from watchdog_hook.core.observed import Iteration

    Phase = tuple[str, float, float]  # name, seconds after the turn's start, duration

_ROUNDING = 0.002  # seconds: times come back from JSON in milliseconds
_LEAST = 0.005  # seconds: less is not shown as a part of a turn
_DEEP = 5  # phases in one another that are told apart


def lines(iterations: Sequence[Iteration], most: int | None = None) -> list[str]:
    """
    Return one line for each turn, the present one last; of those before it `most`, or all.

    A phase inside another one stands in brackets after it, so that the others add up to the turn. A short list
    (`most`) has inner phases for the present turn only, and leaves out what took no time.
    """
    ended = [each for each in iterations if each.duration_s is not None]
    if not ended and not any(each.phases for each in iterations):
        return []
    left_out = 0 if most is None else max(0, len(ended) - most)
    shown = [*ended[left_out:], *(each for each in iterations if each.duration_s is None)]
    heading = " Turns of the loop, newest last"
    if ended:
        lasted = [each.duration_s or 0.0 for each in ended]
        heading += f" ({len(ended)} before this one: median {_median(lasted):.2f} s, longest {max(lasted):.2f} s)"
    return [f"{heading}:", *(f"    {_turn(each, inner=most is None)}" for each in shown)]


def usual_turn(iterations: Sequence[Iteration]) -> str | None:
    """Return how long a turn takes and its phases in it, each in the median; None where no turn has ended."""
    ended = [each for each in iterations if each.duration_s is not None]
    if not ended:
        return None
    times: dict[str, list[float]] = {}
    for each in ended:
        for name, (seconds, _) in _folded(_outermost(each.phases)).items():
            times.setdefault(name, []).append(seconds)
    # In a turn without it a phase took no time.
    usual = {
        name: _median([*found, *[0.0] * (len(ended) - len(found))]) for name, found in times.items()
    }
    parts = ", ".join(
        f"{name} {seconds:.2f}" for name, seconds in usual.items() if seconds >= _LEAST
    )
    whole = _median([each.duration_s or 0.0 for each in ended])
    return f"a turn takes {whole:.2f} s" + (f" ({parts})" if parts else "")


def _turn(turn: Iteration, inner: bool) -> str:
    outermost = _outermost(turn.phases)
    if turn.duration_s is None:
        open_at = turn.started_ago_s - _ROUNDING
        parts = [_present(phase, within, open_at) for phase, within in outermost]
        return clean(
            f"this turn, {turn.started_ago_s:.2f} s so far: {', '.join(parts) or 'in no phase'}",
            WIDTH,
        )
    if inner:
        parts = [_with_inner(phase, within) for phase, within in outermost]
        told = sum(phase[2] for phase, _ in outermost)
    else:
        long = {name: found for name, found in _folded(outermost).items() if found[0] >= _LEAST}
        parts = [f"{name} {seconds:.2f}{_times(times)}" for name, (seconds, times) in long.items()]
        told = sum(seconds for seconds, _ in long.values())
    if turn.duration_s - told >= _LEAST and parts:
        parts.append(f"else {turn.duration_s - told:.2f}")
    return clean(f"turn {turn.duration_s:.2f} s: {', '.join(parts) or 'no phase of note'}", WIDTH)


def _present(phase: Phase, within: Sequence[Phase], open_at: float, deep: int = _DEEP) -> str:
    """Return a phase of the turn that goes on; one that goes on itself says so, and in which one inside it is."""
    name, start, lasted = phase
    if start + lasted < open_at:
        return f"{name} {lasted:.2f}"
    inside = [each for each in _outermost(within) if each[0][1] + each[0][2] >= open_at]
    deeper = f" > {_present(*inside[-1], open_at, deep - 1)}" if inside and deep else " so far"
    return f"{name} {lasted:.2f}{deeper}"


def _with_inner(phase: Phase, within: Sequence[Phase], deep: int = _DEEP) -> str:
    parts = [_with_inner(*each, deep - 1) for each in _outermost(within)] if deep else []
    return f"{phase[0]} {phase[2]:.2f}" + (f" ({', '.join(parts)})" if parts else "")


def _outermost(phases: Iterable[Phase]) -> list[tuple[Phase, list[Phase]]]:
    """Return the phases that lie in no other one, each with those inside it."""
    found: list[tuple[Phase, list[Phase]]] = []
    for phase in sorted(phases, key=lambda each: (each[1], -each[2])):
        end = found[-1][0][1] + found[-1][0][2] if found else 0.0
        if found and phase[1] < end and phase[1] + phase[2] <= end + _ROUNDING:
            found[-1][1].append(phase)
        else:
            found.append((phase, []))
    return found


def _folded(outermost: Iterable[tuple[Phase, object]]) -> dict[str, tuple[float, int]]:
    """Return seconds and times by name: several executors may be in one phase one after the other."""
    found: dict[str, tuple[float, int]] = {}
    for (name, _, lasted), _ in outermost:
        seconds, times = found.get(name, (0.0, 0))
        found[name] = seconds + lasted, times + 1
    return found


def _times(times: int) -> str:
    return f" ({times} x)" if times > 1 else ""


def _median(values: Sequence[float]) -> float:
    # Not that of `statistics`, which imports half a library with it.
    return sorted(values)[(len(values) - 1) // 2]

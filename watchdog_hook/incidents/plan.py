"""What will be done about an incident, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchdog_hook.core import ladder

if TYPE_CHECKING:
    from watchdog_hook.config import Config
    from watchdog_hook.core.model import InFlight

_PLANS = {"turning": "nothing; the loop turns.", "asked": "nothing; this is no stall."}


def plan_of(config: Config, flight: InFlight | None, how: str, component: str | None) -> str:
    """
    Say what will be done about this, as far as that is decided now.

    `how` and `component` as core.signs.Case has them.
    """
    if how in _PLANS:
        return _PLANS[how]
    steps = []
    if component is not None:
        steps.append("nothing is interrupted here: that is for calls of the scheduler")
    elif not config.may_interrupt:
        steps.append("nothing is interrupted ([watchdog_hook] interrupt = off)")
    elif flight is not None and flight.guarded:
        limit = min(config.interrupt_after, flight.limit or config.interrupt_after)
        steps.append(
            f"the call gets {flight.error.__name__} once it has been silent for {limit:g} s,"
            f" or open for {ladder.OVERLONG * limit:g} s in all"
        )
    else:
        steps.append("nothing here may be interrupted: no guarded call is in flight")
    if config.terminate_after:
        steps.append(f"the process exits with 75 after {config.terminate_after:g} s of silence")
    return "; ".join(steps) + "."

"""Our own failures inside the host: said once, then that part is off. The host goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from watchdog_hook.core.model import StuckCallTimeout

T = TypeVar("T")


class Unavailable(Exception):  # noqa: N818 - it says what cannot be
    """What a part needs is not to be had here. Says what that is, and what is off without it."""


class FailOpen:
    """
    Runs parts of ours. The first failure of a part is said once, with its traceback; then it is off.

    Only our own bookkeeping goes through here, never the host's call: a timeout that we raise into that
    call has to pass, and so has whatever the call itself raises.
    """

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        self._say = say or _log
        self.off: set[str] = set()

    def run(self, name: str, part: Callable[..., T], *args: Any, **kwargs: Any) -> T | None:
        """Return what the part returns; None when it fails or is off. Never raises but for a timeout of ours."""
        if name in self.off:
            return None
        try:
            return part(*args, **kwargs)
        except StuckCallTimeout:
            raise
        except Unavailable as why:
            self._put_off(name, str(why))
            return None
        except Exception:  # noqa: BLE001 - whatever is wrong in us must not reach the host
            self.broke(name)
            return None

    def broke(self, name: str) -> None:
        """Put a part off because of the exception being handled, and say so."""
        import traceback

        lines = (f"\n {line}" for line in traceback.format_exc().splitlines())
        self._put_off(name, "off until the next start", "".join(lines))

    def _put_off(self, name: str, outcome: str, trace: str = "") -> None:
        self.off.add(name)
        try:
            self._say(
                f'watchdog_hook: event=part_off part="{name}" outcome="{outcome};'
                f' Airflow is not affected"{trace}'
            )
        except Exception:  # noqa: BLE001, S110 - nothing is left to say it with
            pass


def _log(text: str) -> None:
    import logging

    logging.getLogger("watchdog_hook").error(text)

"""One row per cause, read from top to bottom. Each says only what its evidence shows."""

from __future__ import annotations

from watchdog_hook.core.rules import broker, database, event_loop, kubernetes, waits, whole
from watchdog_hook.core.rules.rule import Rule as Rule

RULES: tuple[Rule, ...] = (
    *event_loop.RULES,
    *whole.FIRST,
    *kubernetes.RULES,
    *database.RULES,
    *broker.RULES,
    *waits.RULES,
    *whole.REST,
)

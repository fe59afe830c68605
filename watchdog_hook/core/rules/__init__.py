"""One row per cause, read from top to bottom. Each says only what its evidence shows."""

from __future__ import annotations

from watchdog_hook.core.rules import (
    broker,
    children,
    database,
    event_loop,
    executors,
    files,
    kubernetes,
    locks,
    loop,
    resources,
    unbounded,
    wide,
)
from watchdog_hook.core.rules.rule import Rule as Rule

RULES: tuple[Rule, ...] = (
    *event_loop.RULES,
    *loop.RULES,
    *executors.RULES,
    *resources.FIRST,
    *unbounded.RULES,
    *resources.REST,
    *kubernetes.RULES,
    *database.RULES,
    *broker.RULES,
    *locks.RULES,
    *children.RULES,
    *files.RULES,
    *wide.RULES,
)

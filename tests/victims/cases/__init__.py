"""How to get stuck: one function a recording, by area."""

from __future__ import annotations

import importlib
import pkgutil


def load() -> None:
    """Register every case."""
    for found in pkgutil.iter_modules(__path__, f"{__name__}."):
        importlib.import_module(found.name)

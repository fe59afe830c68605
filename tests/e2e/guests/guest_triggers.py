"""Two triggers: one that waits as it should, one that stops all others."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent


class Patient(BaseTrigger):
    """Waits, and lets others run."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = Path(folder)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what makes it again."""
        return f"guest_triggers.{type(self).__name__}", {"folder": str(self.folder)}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Say so, and wait for a day."""
        (self.folder / f"patient-{id(self)}").touch()
        await asyncio.sleep(86400)
        yield TriggerEvent(True)


class Blocking(Patient):
    """Waits as long as there is a FIFO, and lets nobody run."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for whoever opens the other end, in a call that blocks."""
        (self.folder / f"blocking-{id(self)}").touch()
        while not (self.folder / "wait").exists():
            await asyncio.sleep(0.1)
        os.close(os.open(self.folder / "wait", os.O_RDONLY))
        yield TriggerEvent(True)

"""The loop of asyncio, held by one of its tasks, or with nothing to do."""

from __future__ import annotations

import asyncio
import selectors
import socket
import time
from collections.abc import AsyncIterator

from tests.victims.stage import Stage, case

PHASE = "event loop"


async def patient() -> AsyncIterator[int]:
    """As the run of a trigger that waits as it should."""
    while True:
        await asyncio.sleep(3600)
        yield 1


async def consumed() -> None:
    async for _ in patient():
        pass


async def hasty() -> None:
    """As the run of a trigger that does not."""
    await asyncio.sleep(0.01)
    time.sleep(3600)


async def trigger(others: int) -> None:
    tasks = [asyncio.create_task(consumed(), name=f"patient {n}") for n in range(others)]
    tasks.append(asyncio.create_task(hasty(), name="hasty"))
    await asyncio.gather(*tasks)


@case("event-loop-blocked")
@case("not-event-loop-waits--blocked")
def blocked(stage: Stage) -> None:
    with stage.watched(PHASE):
        asyncio.run(trigger(others=3))


@case("event-loop-blocked--callback")
def callback(stage: Stage) -> None:
    """No task has the thread, but a function that was to be called soon."""

    async def main() -> None:
        asyncio.get_running_loop().call_soon(time.sleep, 3600)
        await asyncio.sleep(7200)

    with stage.watched(PHASE):
        asyncio.run(main())


@case("event-loop-blocked--greenback")
def in_a_greenlet(stage: Stage) -> None:
    """A portal was asked for, as Airflow 3 does for each trigger: below it the stack has no loop any more."""
    import greenback

    async def portal() -> None:
        await greenback.ensure_portal()
        await hasty()

    async def main() -> None:
        waits = asyncio.create_task(consumed(), name="patient 0")
        await asyncio.gather(waits, asyncio.create_task(portal(), name="hasty"))

    with stage.watched(PHASE):
        asyncio.run(main())


@case("event-loop-waits")
@case("not-event-loop-blocked--waits")
def waits(stage: Stage) -> None:
    """It turns; its only task waits for what nobody will say."""

    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with stage.watched(PHASE):
        asyncio.run(main())


@case("not-event-loop-waits--selector")
def selector(stage: Stage) -> None:
    """Somebody's own loop around the same call."""
    with stage.watched(PHASE), selectors.DefaultSelector() as selector, socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        selector.register(sock, selectors.EVENT_READ)
        selector.select(3600)

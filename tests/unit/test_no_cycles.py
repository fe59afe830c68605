"""An exception that passes through us is gone once it has been handled, and so are the frames it held."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import urllib3

from watchdog_hook.failopen import FailOpen
from watchdog_hook.integrations.kubernetes import ApiCalls
from watchdog_hook.integrations.patch import entry
from watchdog_hook.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Held:
    """Something in a frame of the host."""


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def left_behind(call: Callable[[], Any]) -> bool:
    """Make a call that raises, and tell whether what its frames held is still there."""
    seen: list[weakref.ref[Held]] = []

    def host() -> None:
        held = Held()
        seen.append(weakref.ref(held))
        call()

    try:
        host()
    except BaseException:
        pass
    return seen[0]() is not None


def test_the_host_frames_are_free_after_an_exception_has_passed_a_wrapper():
    def fails(*_: Any) -> None:
        raise SystemExit

    wrapper = entry("x", lambda wrapped, _, args, kwargs: wrapped(*args, **kwargs), FailOpen(print))

    assert not left_behind(lambda: wrapper(fails, None, (), {}))


def test_the_host_frames_are_free_after_a_broken_call():
    calls = ApiCalls(Watchdog())
    calls.depth = 1

    def fails(*_: Any, **__: Any) -> None:
        raise urllib3.exceptions.ProtocolError

    class Server:
        breaker = type("Breaker", (), {"limit": None})
        allows = answered = failed = lambda self: True

    instance = object()
    calls._servers[id(instance)] = Server()  # type: ignore[assignment]

    assert not left_behind(lambda: calls.request(fails, instance, ("GET", "https://h/api/v1"), {}))

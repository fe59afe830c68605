"""The guard with a real watchdog, real sockets and real signals."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from watchdog_hook import Config, StuckCallTimeout, Watchdog
from watchdog_hook.actions.interrupt import SIGNAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.linux


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(
        poll_interval=0.02,
        sample_after=0.05,
        dump_after=0.1,
        interrupt_after=0.2,
        startup_grace=0,
        incident_dir=str(tmp_path),
    )


@pytest.fixture
def mute() -> Iterator[Callable[[], socket.socket]]:
    """Connections to a server that accepts, and says nothing."""
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def connect() -> socket.socket:
            ours = socket.create_connection(server.getsockname())
            kept.extend((ours, server.accept()[0]))
            return ours

        yield connect
        for end in kept:
            end.close()


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[str]:
    return [text for text in caplog.messages if f"event={name} " in text]


def in_thread(target: Callable[[], Any]) -> Any:
    """Run in another thread; return what came out of it, an exception too."""
    found: list[Any] = []

    def catching() -> None:
        try:
            found.append(target())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=catching, daemon=True)
    thread.start()
    thread.join(50)
    return found[0] if found else "still stuck"


def test_a_stuck_call_of_the_main_thread_is_ended_by_the_signal(config, mute, caplog):
    with Watchdog(config) as dog:
        dog.beat()
        with pytest.raises(StuckCallTimeout) as caught, dog.guard("ask"):
            mute().recv(1)
        dog.beat()

        assert caught.value.call == "ask"
        assert caught.value.age_s >= config.interrupt_after
    (line,) = events(caplog, "interrupt")
    assert "lever=signal" in line
    assert str(caught.value.incident) in line


def test_a_stuck_call_of_another_thread_is_ended_by_the_shutdown(config, mute, caplog):
    with Watchdog(config) as dog:

        def ask() -> None:
            with dog.guard("ask"):
                mute().recv(1)

        found = in_thread(ask)

        assert isinstance(found, StuckCallTimeout)
        assert found.call == "ask"
        assert dog.book.in_flight() == ()
    (line,) = events(caplog, "interrupt")
    assert "lever=shutdown" in line


def test_the_dump_is_there_before_the_interrupt(config, mute, caplog, tmp_path):
    with Watchdog(config) as dog:
        dog.beat()
        with pytest.raises(StuckCallTimeout) as caught, dog.guard("ask"):
            mute().recv(1)

        dump = (tmp_path / str(caught.value.incident) / "dump.txt").read_text()
        assert "test_the_dump_is_there_before_the_interrupt" in dump
        dog.beat()
    order = [
        text.split()[1] for text in caplog.messages if text.startswith("watchdog_hook: event=")
    ]
    assert (
        order.index("event=stall_began")
        < order.index("event=dump")
        < order.index("event=interrupt")
    )


def test_a_call_without_a_guard_is_dumped_and_left_alone(config, mute, caplog):
    line = mute()
    dumped = threading.Event()

    class Dumped(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "event=dump " in record.getMessage():
                dumped.set()

    handler = Dumped()
    logging.getLogger("watchdog_hook").addHandler(handler)
    try:
        with Watchdog(config) as dog:
            dog.beat()
            line.settimeout(config.interrupt_after * 5)
            with pytest.raises(TimeoutError):
                line.recv(1)
            assert dumped.wait(30)
    finally:
        logging.getLogger("watchdog_hook").removeHandler(handler)
    assert events(caplog, "interrupt") == []
    assert events(caplog, "no_lever") == []


def test_after_an_interrupt_the_next_call_is_like_any_other(config, mute):
    with Watchdog(config) as dog:
        for _ in range(3):
            dog.beat()
            with pytest.raises(StuckCallTimeout), dog.guard("ask"):
                mute().recv(1)
            ours, theirs = socket.socketpair()
            with ours, theirs, dog.guard("ask"):
                theirs.send(b"!")
                assert ours.recv(1) == b"!"


def test_a_timeout_passes_through_code_that_swallows_other_errors(config, mute):
    with Watchdog(config) as dog:
        dog.beat()

        def ask() -> None:
            with dog.guard("ask"):
                try:
                    mute().recv(1)
                except (OSError, TimeoutError):
                    pytest.fail("libraries retry those")

        with pytest.raises(StuckCallTimeout):
            ask()


def test_a_call_that_swallows_the_timeout_still_ends_as_one(config, mute):
    with Watchdog(config) as dog:
        dog.beat()

        def ask() -> None:
            with dog.guard("ask"), contextlib.suppress(Exception):
                mute().recv(1)

        with pytest.raises(StuckCallTimeout):
            ask()


def test_the_exit_of_the_process_is_stronger_than_the_timeout(config, mute):
    with Watchdog(config) as dog:

        def ask() -> None:
            with dog.guard("ask"):
                try:
                    mute().recv(1)
                except StuckCallTimeout:
                    raise SystemExit(3) from None

        found = in_thread(ask)

    assert isinstance(found, SystemExit)
    assert found.code == 3


def test_an_outer_guard_that_was_shot_at_leaves_nothing_of_the_inner_ones():
    book = Watchdog(Config()).book
    from watchdog_hook.core.model import Call

    outer = book.enter(Call("outer", kind="guard"), guarded=True)
    inner = book.enter(Call("inner", kind="guard"), guarded=True)
    outer.fired = True
    book.leave(outer)

    assert book.in_flight() == ()
    assert inner.closed


def test_a_handler_that_was_there_gets_signals_that_are_not_ours_and_comes_back(config):
    seen: list[int] = []
    before = signal.signal(SIGNAL, lambda number, frame: seen.append(number))
    try:
        own = signal.getsignal(SIGNAL)
        with Watchdog(config):
            assert signal.getsignal(SIGNAL) != own
            signal.raise_signal(SIGNAL)

            assert seen == [SIGNAL]
        assert signal.getsignal(SIGNAL) == own
    finally:
        signal.signal(SIGNAL, before)


def test_a_foreign_handler_that_took_the_signal_makes_us_use_the_other_lever(config, mute, caplog):
    with Watchdog(config) as dog:
        ours = signal.getsignal(SIGNAL)
        signal.signal(SIGNAL, signal.SIG_IGN)
        try:
            dog.beat()
            with pytest.raises(StuckCallTimeout), dog.guard("ask"):
                mute().recv(1)
        finally:
            signal.signal(SIGNAL, ours)
        dog.beat()
    (line,) = events(caplog, "interrupt")
    assert "lever=shutdown" in line


def test_a_datagram_socket_is_never_shut_down(config, caplog):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, Watchdog(config) as dog:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(config.interrupt_after * 5)

        def ask() -> None:
            with dog.guard("ask"):
                sock.recv(1)

        assert isinstance(in_thread(ask), TimeoutError)
    assert events(caplog, "interrupt") == []

"""Which thread waits for which lock, and who has it: against real threads that really wait."""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import multiprocessing
import queue
import subprocess
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from watchdog_hook.core.locks import cycles
from watchdog_hook.evidence import bytecode, known_locks, locks, stacks, values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from watchdog_hook.core.observed import LockWait

GLOBAL = threading.Lock()


class Stage:
    """Threads that stand where they were told to, until the test is over."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.threads: list[threading.Thread] = []
        self._ends: list[Callable[[], object]] = []

    def enter(self, name: str, play: Callable[[], object]) -> int:
        def quietly() -> None:
            with contextlib.suppress(Exception):
                play()

        thread = threading.Thread(target=quietly, name=name, daemon=True)
        thread.start()
        self.threads.append(thread)
        return thread.ident or 0

    def hold(self, name: str, lock: Any) -> int:
        """Have a thread hold a lock, in a function whose frames say nothing of it but its `with`."""
        has = threading.Event()

        def holder() -> None:
            with lock:
                has.set()
                self.over.wait()

        ident = self.enter(name, holder)
        assert has.wait(20)
        return ident

    def at_end(self, end: Callable[[], object]) -> None:
        self._ends.append(end)

    def close(self) -> None:
        self.over.set()
        for end in self._ends:
            end()
        for thread in self.threads:
            thread.join(20)


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.close()


def wait_of(ident: int) -> LockWait:
    """Look until this thread waits. It was sent to, so it will."""
    while True:
        for wait in locks.waits():
            if wait.ident == ident:
                return wait


def until_in(ident: int, function: str) -> None:
    while function not in [frame.function.rpartition(".")[2] for frame in stacks.stack_of(ident)]:
        pass
    while stacks.stack_of(ident)[0].function.rpartition(".")[2] not in (function, "wait"):
        pass


class Registry:
    shared = threading.Lock()

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self.over = threading.Event()
        self.there = threading.Event()

    def slow(self) -> None:
        with self._lock:
            self.work()

    def slow_by_hand(self) -> None:
        self._lock.acquire()
        try:
            self.work()
        finally:
            self._lock.release()

    def slow_in_a_row(self) -> None:
        self._lock.acquire()
        self.work()
        self._lock.release()

    def given_back(self) -> None:
        with self._lock:
            pass
        self.work()

    def given_back_by_hand(self) -> None:
        self._lock.acquire()
        try:
            pass
        finally:
            self._lock.release()
        self.work()
        self._lock.acquire()
        self._lock.release()

    def nested(self) -> None:
        with contextlib.nullcontext(), self._lock:
            try:
                with open("/dev/null"):
                    self.work()
            except OSError:
                raise

    def tried(self) -> None:
        if not self._lock.acquire(timeout=0.001):
            self.work()
            return
        self._lock.release()

    def work(self) -> None:
        self.there.set()
        self.over.wait()

    def ask(self) -> None:
        with self._lock:
            pass


class TestOwners:
    def test_the_owner_of_an_rlock_is_named_by_the_lock(self, stage):
        lock = threading.RLock()
        owner = stage.hold("has it", lock)
        waiter = stage.enter("wants it", Registry(lock).ask)

        wait = wait_of(waiter)

        assert (wait.thread, wait.owner, wait.owner_ident) == ("wants it", "has it", owner)
        assert wait.by == "the lock itself"
        assert wait.lock == f"self._lock of {__name__}.Registry"
        assert wait.place.function.endswith("ask")
        assert wait.owner_place is not None
        assert wait.kind == "lock"

    @pytest.mark.parametrize("way", ["slow", "slow_by_hand", "slow_in_a_row", "nested"])
    def test_the_holder_of_a_plain_lock_is_named_by_its_frames(self, stage, way):
        registry = Registry(threading.Lock())
        stage.at_end(registry.over.set)
        owner = stage.enter("has it", getattr(registry, way))
        assert registry.there.wait(20)

        wait = wait_of(stage.enter("wants it", registry.ask))

        assert (wait.owner, wait.owner_ident, wait.by) == ("has it", owner, "its frames")
        assert wait.owner_place is not None
        assert wait.owner_place.file == threading.__file__

    @pytest.mark.parametrize("way", ["given_back", "given_back_by_hand", "tried"])
    def test_who_only_had_a_lock_or_did_not_get_it_is_not_named(self, stage, way):
        registry = Registry(threading.Lock())
        stage.at_end(registry.over.set)
        if way == "tried":
            registry._lock.acquire()
        stage.enter("has it no more", getattr(registry, way))
        assert registry.there.wait(20)
        if way != "tried":
            registry._lock.acquire()  # by this thread, in a way that no frame shows
        stage.at_end(registry._lock.release)

        wait = wait_of(stage.enter("wants it", registry.ask))

        assert (wait.owner, wait.owner_ident, wait.by) == (None, None, "")

    def test_of_two_that_may_have_a_plain_lock_none_is_named(self, stage):
        registry = Registry(threading.Lock())
        stage.at_end(registry.over.set)
        stage.enter("has it", registry.slow)
        assert registry.there.wait(20)
        passed = threading.Event()

        def passes_it_on() -> None:
            with registry._lock:
                passed.set()
                stage.over.wait()

        registry._lock.release()  # as code does that hands a lock over
        stage.enter("got it", passes_it_on)
        assert passed.wait(20)

        wait = wait_of(stage.enter("wants it", registry.ask))

        assert (wait.owner, wait.by) == (None, "")

    def test_an_owner_that_has_ended_is_said_to_have(self, stage):
        lock, go = threading.RLock(), threading.Event()

        def ask() -> None:
            go.wait()
            while not stage.over.is_set():
                lock.acquire(timeout=0.5)

        # First the one that waits: it must not get the number of the one that ended.
        waiter = stage.enter("wants it", ask)
        thread = threading.Thread(target=lock.acquire)
        thread.start()
        thread.join()
        go.set()

        wait = wait_of(waiter)

        assert wait.owner == f"thread {thread.ident}, which has ended"
        assert (wait.owner_ident, wait.owner_place) == (thread.ident, None)

    def test_globals_locals_and_class_attributes_are_found_too(self, stage):
        local = threading.Lock()

        def ask_global() -> None:
            with GLOBAL:
                pass

        def ask_local() -> None:
            local.acquire(True, 20)

        def ask_of_class() -> None:
            with Registry.shared:
                pass

        for lock in (GLOBAL, local, Registry.shared):
            stage.hold("has it", lock)

        waits = [wait_of(stage.enter("x", ask)) for ask in (ask_global, ask_local, ask_of_class)]

        names = [wait.lock for wait in waits]
        assert names[0] == f"GLOBAL of {__name__}"
        assert names[1].startswith("local of ")
        assert names[1].endswith("ask_local")
        assert names[2] == f"Registry.shared of {__name__}.Registry"
        assert {wait.owner for wait in waits} == {"has it"}

    def test_in_the_code_of_a_class_a_name_may_mean_its_own_and_is_not_followed(self, stage):
        own = threading.Lock()
        names = {"LOCK": GLOBAL, "OWN": own, "__name__": "script"}
        for lock in (GLOBAL, own):
            stage.hold("has it", lock)
        of_module = stage.enter("module", lambda: exec("with LOCK: pass", names))
        of_class = stage.enter(
            "class", lambda: exec("class X:\n  LOCK = OWN\n  with LOCK: pass", names)
        )
        wait = wait_of(of_module)
        while stacks.stack_of(of_class)[0].function != "X":
            pass

        assert (wait.lock, wait.owner) == ("LOCK of script", "has it")
        assert of_class not in [wait.ident for wait in locks.waits()]

    def test_a_lock_in_a_slot_is_found_and_a_property_is_not_run(self, stage):
        lock, ran = threading.Lock(), []

        class Slotted:
            __slots__ = ("lock",)

        class Proper:
            @property
            def lock(self) -> Any:
                ran.append(threading.get_ident())
                return lock

            def __getattr__(self, name: str) -> Any:
                ran.append(threading.get_ident())
                raise AttributeError(name)

        slotted, proper = Slotted(), Proper()
        slotted.lock = lock
        stage.hold("has it", lock)

        def ask(thing: Any) -> None:
            with thing.lock:
                pass

        wait = wait_of(stage.enter("slot", lambda: ask(slotted)))
        other = stage.enter("property", lambda: ask(proper))
        until_in(other, "ask")

        assert wait.lock == f"thing.lock of {values.full_name(Slotted)}"
        assert other not in [wait.ident for wait in locks.waits()]
        assert set(ran) == {other}

    def test_a_lock_taken_twice_by_one_thread_is_its_own_owner(self, stage):
        registry = Registry(threading.Lock())

        def twice() -> None:
            with registry._lock:
                registry.ask()

        ident = stage.enter("twice", twice)
        wait = wait_of(ident)
        stage.at_end(registry._lock.release)

        assert (wait.owner, wait.by) == ("twice", "its frames")
        assert [len(circle) for circle in cycles([wait])] == [1]

    def test_a_thread_of_ours_is_no_waiter_but_is_an_owner(self, stage):
        registry = Registry(threading.Lock())
        stage.hold("watchdog-hook-log", registry._lock)
        stage.enter("watchdog-hook-disk", registry.ask)

        wait = wait_of(stage.enter("wants it", registry.ask))
        waiters = {wait.ident for wait in locks.waits()}

        assert wait.owner == "watchdog-hook-log"
        assert waiters == {wait.ident}


class TestDeadlock:
    @pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
    def test_two_threads_that_wait_for_each_other_are_a_circle(self, stage, make):
        first, second, both = make(), make(), threading.Barrier(2)

        def cross(mine: Any, other: Any) -> None:
            with mine:
                both.wait()
                while not stage.over.is_set():
                    other.acquire(timeout=0.5)

        idents = [
            stage.enter("one", lambda: cross(first, second)),
            stage.enter("two", lambda: cross(second, first)),
        ]

        while not (circles := cycles(locks.waits())):
            pass

        assert [sorted(wait.ident for wait in circle) for circle in circles] == [sorted(idents)]
        assert {wait.by for wait in circles[0]} == {
            "its frames" if make is threading.Lock else "the lock itself"
        }

    def test_a_join_can_close_a_circle(self, stage):
        registry = Registry(threading.Lock())
        asks = threading.Thread(target=registry.ask, name="asks", daemon=True)

        def joins() -> None:
            with registry._lock:
                asks.start()
                while not stage.over.is_set():
                    asks.join(0.5)

        ident = stage.enter("joins", joins)
        # A look that began before that thread did sees it without its name.
        while "asks" not in [wait.thread for wait in locks.waits()]:
            pass
        while not (circles := cycles(locks.waits())):
            pass

        (circle,) = circles
        joined = next(wait for wait in circle if wait.ident == ident)
        assert (joined.kind, joined.owner) == ("thread", "asks")
        assert joined.lock == "the end of thread asks"
        assert joined.place.function.endswith("joins")


class TestEvents:
    def test_waits_for_an_event_are_no_waits_for_a_lock(self, stage):
        condition, plain = threading.Condition(), threading.Condition(threading.Lock())
        event, semaphore = threading.Event(), threading.Semaphore(0)
        queues = [queue.Queue(), queue.LifoQueue(), queue.SimpleQueue()]
        full: queue.Queue[int] = queue.Queue(1)
        full.put(1)

        def wait_for(condition: threading.Condition, timeout: float | None) -> None:
            with condition:
                condition.wait(timeout)

        plays: list[tuple[Callable[[], object], Callable[[], object], str]] = [
            (lambda: wait_for(condition, None), lambda: notify(condition), "wait"),
            (lambda: wait_for(condition, 60), lambda: notify(condition), "wait"),
            (lambda: wait_for(plain, None), lambda: notify(plain), "wait"),
            (event.wait, event.set, "wait"),
            (semaphore.acquire, semaphore.release, "wait"),
            *((queue.get, lambda queue=queue: queue.put(1), "get") for queue in queues[:2]),
            (queues[2].get, lambda: queues[2].put(1), "quietly"),
            (lambda: full.put(2), full.get, "put"),
        ]

        def notify(condition: threading.Condition) -> None:
            with condition:
                condition.notify_all()

        idents = []
        for number, (play, end, function) in enumerate(plays):
            idents.append(stage.enter(f"waits {number}", play))
            stage.at_end(end)
            until_in(idents[-1], function)

        assert set(idents).isdisjoint(wait.ident for wait in locks.waits())

    def test_who_waits_in_a_condition_has_given_its_lock_away(self, stage):
        registry = Registry(threading.Lock())
        condition = threading.Condition(registry._lock)

        def waits() -> None:
            with condition:
                condition.wait()

        def end() -> None:
            with condition:
                condition.notify_all()

        waiting = stage.enter("waits for a notify", waits)
        until_in(waiting, "wait")
        stage.at_end(end)
        owner = stage.hold("has it", condition)

        wait = wait_of(stage.enter("wants it", registry.ask))

        assert (wait.owner, wait.owner_ident) == ("has it", owner)

    @pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
    def test_who_was_notified_waits_for_the_lock_of_the_condition(self, stage, make):
        condition = threading.Condition(make())

        def waits() -> None:
            with condition:
                condition.wait()

        def notifies() -> None:
            with condition:
                condition.notify_all()
                stage.over.wait()

        waiting = stage.enter("was notified", waits)
        until_in(waiting, "wait")
        owner = stage.enter("notified", notifies)

        wait = wait_of(waiting)

        assert (wait.owner, wait.owner_ident) == ("notified", owner)
        assert wait.lock.startswith("condition of ")
        assert wait.place.function.endswith("waits")


class TestLibraries:
    def test_a_handler_of_logging_is_named_as_one(self, stage):
        entered = threading.Event()

        class Stuck(logging.StreamHandler):  # type: ignore[type-arg]
            def emit(self, record: logging.LogRecord) -> None:
                entered.set()
                stage.over.wait()

        handler = Stuck()
        record = logging.makeLogRecord({"msg": "secret"})
        owner = stage.enter("writes", lambda: handler.handle(record))
        assert entered.wait(20)

        wait = wait_of(stage.enter("logs", lambda: handler.handle(record)))

        assert wait.lock == "handler lock of Stuck"
        assert (wait.owner, wait.owner_ident) == ("writes", owner)
        assert wait.place.function.endswith("handle")

    def test_a_lock_of_multiprocessing_is_called_one_and_has_no_owner(self, stage):
        context = multiprocessing.get_context("spawn")
        registry = Registry(context.Lock())
        registry._lock.acquire()
        stage.at_end(registry._lock.release)

        wait = wait_of(stage.enter("wants it", registry.ask))

        assert wait.lock == f"multiprocessing lock self._lock of {__name__}.Registry"
        assert (wait.owner, wait.by) == (None, "")
        assert wait.place.function.endswith("ask")

    def test_an_rlock_in_python_tells_its_owner_too(self, stage):
        registry = Registry(threading._RLock())
        owner = stage.hold("has it", registry._lock)

        wait = wait_of(stage.enter("wants it", registry.ask))

        assert (wait.owner, wait.owner_ident, wait.by) == ("has it", owner, "the lock itself")
        assert wait.lock == f"self._lock of {__name__}.Registry"

    def test_an_import_that_waits_for_an_import_names_the_module(
        self, stage, tmp_path, monkeypatch
    ):
        module = f"slow_module_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{module}.py").write_text("import builtins\nbuiltins.slow_import()\n")
        monkeypatch.syspath_prepend(tmp_path)
        entered = threading.Event()

        def slow_import() -> None:
            entered.set()
            stage.over.wait()

        import builtins

        monkeypatch.setattr(builtins, "slow_import", slow_import, raising=False)
        owner = stage.enter("imports", lambda: importlib.import_module(module))
        assert entered.wait(20)

        wait = wait_of(stage.enter("imports too", lambda: importlib.import_module(module)))

        assert wait.lock == f"import lock of {module}"
        assert (wait.owner, wait.owner_ident, wait.by) == ("imports", owner, "the lock itself")


class TestLeavesNoTrace:
    def test_locals_are_neither_kept_alive_nor_changed(self, stage):
        lock = threading.Lock()
        stage.hold("has it", lock)
        dropped, seen = threading.Event(), threading.Event()

        class Thing:
            pass

        refs: list[weakref.ref[Thing]] = []

        def waiter() -> None:
            thing = Thing()
            refs.append(weakref.ref(thing))
            with contextlib.suppress(TimeoutError):
                lock.acquire(timeout=0.05)
                while not seen.is_set():
                    lock.acquire(timeout=0.05)
            del thing
            dropped.set()
            stage.over.wait()

        ident = stage.enter("wants it", waiter)
        wait_of(ident)
        seen.set()
        assert dropped.wait(20)
        gc.collect()

        assert refs[0]() is None

    def test_a_function_that_looks_at_its_own_locals_is_left_alone(self, stage):
        registry = Registry(threading.Lock())
        stage.hold("has it", registry._lock)
        found: list[set[str]] = []
        there, seen = threading.Event(), threading.Event()

        def waiter() -> None:
            lock = registry._lock
            own = locals()
            later = 1
            there.set()
            while not seen.is_set():
                lock.acquire(timeout=0.1)
            found.append(set(own))
            assert later

        stage.enter("wants it", waiter)
        assert there.wait(20)
        for _ in range(10):
            locks.waits()
        seen.set()
        stage.threads[-1].join(20)

        assert "later" not in found[0]

    def test_no_lock_is_taken_by_looking(self, stage):
        lock = threading.RLock()
        stage.hold("has it", lock)
        ident = stage.enter("wants it", Registry(lock).ask)
        wait_of(ident)
        before = repr(lock)
        for _ in range(100):
            locks.waits()

        assert repr(lock) == before


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock, threading._RLock])
def test_a_lock_that_is_free_or_ones_own_is_not_waited_for(make):
    lock, me = make(), threading.get_ident()

    assert not known_locks.taken(known_locks.lock_of(lock), me)
    with lock:
        assert known_locks.taken(known_locks.lock_of(lock), me + 1)
        assert make is threading.Lock or not known_locks.taken(known_locks.lock_of(lock), me)


class TestPaths:
    def test_an_expression_that_may_be_either_of_two_has_no_path(self):
        def either(one: Any, two: Any) -> None:
            with one.lock if one else two.lock:
                pass
            (one.lock or two.lock).acquire()
            one.locks[0].acquire()

        asked = {each.path for each in bytecode.sites(either.__code__).at.values()}

        assert asked <= {()}

    def test_every_code_of_the_standard_library_here_can_be_read(self):
        # Each once: many a name means the same function.
        codes = {
            function.__code__
            for name, module in list(sys.modules.items())
            if name.partition(".")[0] in sys.stdlib_module_names
            for function in list(vars(module).values())
            if type(function) is type(wait_of)
        }
        for code in codes:
            found = bytecode.sites(code)
            for offset in range(0, len(code.co_code), 2):
                bytecode.held(found, offset)

        assert len(codes) > 500


def test_a_process_without_a_wait_has_none():
    code = """
        import threading
        from watchdog_hook.evidence import locks
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        print(locks.waits())
    """
    import os
    import textwrap

    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert out.stdout.strip() == "()"

"""Patches are taken off as they were put on, and a mistake of ours in any of them costs the host nothing."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("wrapt")

from watchdog_hook import Config, StuckCallTimeout, Watchdog
from watchdog_hook.failopen import FailOpen
from watchdog_hook.integrations.airflow import kubernetes_executor
from watchdog_hook.integrations.airflow.kubernetes_executor import KubernetesExecutors
from watchdog_hook.integrations.airflow.loop import BOUNDARIES, TIMERS, Loop
from watchdog_hook.integrations.airflow.recovery import Recovery
from watchdog_hook.integrations.kubernetes import ApiCalls
from watchdog_hook.integrations.patch import Patches, entry
from watchdog_hook.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable


class HostError(Exception):
    """What the host's own call raises."""


class Mistake(Exception):
    """What only we can have raised."""


def through(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    return wrapped(*args, **kwargs)


def fresh() -> type:
    class Owner:
        def method(self, number: int = 1) -> int:
            return number * 2

    return Owner


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def fail(said: list[str]) -> FailOpen:
    return FailOpen(said.append)


class TestOnAndOff:
    def test_off_restores_the_very_object(self, fail):
        owner = fresh()
        original = vars(owner)["method"]
        patches = Patches(fail)
        assert patches.wrap(owner, "method", through)
        assert vars(owner)["method"] is not original
        patches.remove()

        assert vars(owner)["method"] is original

    def test_twice_on_is_once_on(self, fail):
        owner, calls = fresh(), []

        def counted(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            calls.append(1)
            return wrapped(*args, **kwargs)

        patches = Patches(fail)
        patches.wrap(owner, "method", counted)
        patches.wrap(owner, "method", counted)

        assert owner().method(2) == 4
        assert calls == [1]

    def test_an_inherited_method_is_wrapped_where_it_is_defined(self, fail):
        owner = fresh()
        child = type("Child", (owner,), {})
        Patches(fail).wrap(child, "method", through)

        assert "method" not in vars(child)
        assert hasattr(vars(owner)["method"], "__wrapped__")

    def test_a_function_that_an_object_has_of_its_own_is_wrapped_there_alone(self, fail):
        seen: list[str] = []

        def noting(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            seen.append("ours")
            return wrapped(*args, **kwargs)

        def beat() -> str:
            return "beat"

        one, other = SimpleNamespace(heartbeat=beat), SimpleNamespace(heartbeat=beat)
        patches = Patches(fail)

        assert patches.wrap_own(one, "heartbeat", noting)
        assert not patches.wrap_own(one, "nothing", noting)
        assert (one.heartbeat(), other.heartbeat(), seen) == ("beat", "beat", ["ours"])
        patches.quiet()
        assert (one.heartbeat(), seen) == ("beat", ["ours"])
        patches.remove()
        assert one.heartbeat is beat

    def test_what_is_not_there_is_not_wrapped(self, fail):
        assert not Patches(fail).wrap(fresh(), "no_such_method", through)

    def test_two_purposes_lie_around_one_another(self, fail):
        owner, order = fresh(), []

        def named(name: str) -> Any:
            def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
                order.append(name)
                return wrapped(*args, **kwargs)

            return wrapper

        patches = Patches(fail)
        original = vars(owner)["method"]
        patches.wrap(owner, "method", named("first"))
        patches.wrap(owner, "method", named("second"), "another purpose")
        owner().method()

        assert order == ["second", "first"]
        patches.remove()
        assert vars(owner)["method"] is original

    def test_in_a_child_every_wrapper_is_quiet(self, fail):
        owner = fresh()
        patches = Patches(fail)

        def loud(*_: Any) -> Any:
            pytest.fail("called")

        patches.wrap(owner, "method", loud)
        patches.quiet()

        assert owner().method(2) == 4

    @given(st.lists(st.sampled_from(["apply", "remove", "foreign wrap"]), max_size=12))
    def test_whatever_others_do_the_original_is_called_once(self, steps):
        owner, fail = fresh(), FailOpen()
        patches = Patches(fail)
        for step in steps:
            if step == "apply":
                patches.wrap(owner, "method", through)
            elif step == "remove":
                patches.remove()
            else:
                inner = owner.method
                owner.method = lambda self, number=1, inner=inner: inner(self, number)

            assert owner().method(3) == 6


class TestMistakes:
    """`entry`, through which every wrapper goes."""

    def call(self, fail: FailOpen, wrapper: Any, host: Callable[[], Any]) -> Any:
        return entry("part", wrapper, fail)(host, None, (), {})

    def test_before_the_call_the_call_is_made_now(self, fail, said):
        def broken(*_: Any) -> Any:
            raise Mistake

        assert self.call(fail, broken, lambda: "answer") == "answer"
        assert len(said) == 1

    def test_after_the_call_its_answer_passes_and_it_is_not_made_again(self, fail):
        calls = []

        def broken(wrapped: Any, *_: Any) -> Any:
            wrapped()
            raise Mistake

        def host() -> str:
            calls.append(1)
            return "answer"

        assert self.call(fail, broken, host) == "answer"
        assert calls == [1]

    def test_what_the_call_raised_passes_with_its_own_cause(self, fail):
        def broken(wrapped: Any, *_: Any) -> Any:
            try:
                wrapped()
            except HostError:
                raise Mistake from None

        cause = KeyError("the host's own")

        def host() -> Any:
            raise HostError from cause

        with pytest.raises(HostError) as caught:
            self.call(fail, broken, host)

        assert caught.value.__cause__ is cause
        assert not isinstance(caught.value.__context__, Mistake)
        assert fail.off == {"part"}

    def test_what_the_host_raises_is_no_mistake_of_ours(self, fail, said):
        def host() -> Any:
            raise HostError

        with pytest.raises(HostError):
            self.call(fail, through_one, host)

        assert said == []

    @pytest.mark.parametrize("passing", [StuckCallTimeout, SystemExit, KeyboardInterrupt])
    def test_timeouts_and_exits_pass(self, fail, said, passing):
        def raising(*_: Any) -> Any:
            raise passing

        with pytest.raises(passing):
            self.call(fail, raising, lambda: "answer")

        assert said == []


def through_one(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    return wrapped(*args, **kwargs)


# --- every entry from the host, one at a time, made to raise ---------------------------------------------


class Sabotaged(Patches):
    """Breaks the wrapper of one method, before or after the host's call."""

    def __init__(self, fail: FailOpen, victim: str = "", when: str = "before") -> None:
        super().__init__(fail)
        self.names: list[str] = []
        self._victim = victim
        self._when = when

    def wrap(self, owner: type, name: str, wrapper: Any, purpose: str = "") -> bool:
        def broken(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            if self._when == "after":
                wrapper(wrapped, instance, args, kwargs)
            raise Mistake

        where = f"{name} {purpose}".strip()
        on = super().wrap(owner, name, broken if where == self._victim else wrapper, purpose)
        if on:
            self.names.append(where)
        return on


def counting(names: list[str]) -> type:
    """Return a class of the host whose methods count their calls and answer with their name."""

    def method(name: str) -> Any:
        def call(self: Any, *args: Any, **kwargs: Any) -> str:
            self.calls.append(name)
            if self.raising:
                raise HostError(name)
            return name

        return call

    def init(self: Any, raising: bool = False) -> None:
        self.calls, self.raising = [], raising

    return type("Host", (), {"__init__": init, **{name: method(name) for name in names}})


LOOP = ["_do_scheduling", *BOUNDARIES, *TIMERS]
EXECUTOR = ["heartbeat", "start", "end", "clear_not_launched_queued_tasks"]
KUBERNETES = [
    "start",
    "execute_async",
    "_change_state",
    "try_adopt_task_instances",
    "adopt_launched_task",
]
SCHEDULER = [
    "run_next",
    "run_next_batch",
    "_build_pod_request",
    "process_watcher_task",
    "delete_pod",
    "patch_pod_executor_done",
]


class Scene:
    """Everything that is wrapped in a scheduler, on classes of the test's own."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, said: list[str], victim: str, when: str
    ) -> None:
        self.dog = Watchdog(Config(), clock=ManualClock())
        self.dog.fail = FailOpen(said.append)
        self.runner = counting(LOOP)
        self.executor = counting(list(dict.fromkeys(EXECUTOR + KUBERNETES)))
        self.scheduler = counting(SCHEDULER)
        package = "airflow.providers.cncf.kubernetes.executors.kubernetes_executor"
        for name, content in (
            (package, {"KubernetesExecutor": self.executor}),
            (f"{package}_utils", {"AirflowKubernetesScheduler": self.scheduler}),
        ):
            module = ModuleType(name)
            vars(module).update(content)
            monkeypatch.setitem(sys.modules, name, module)
        self.calls = ApiCalls(self.dog)
        self.patches = Sabotaged(self.dog.fail, victim, when)
        loop = Loop(self.dog, self.calls)
        assert loop.patch(self.patches, self.runner(), [self.executor()])
        monkeypatch.setattr(kubernetes_executor, "Recovery", lambda *_: None)
        KubernetesExecutors(self.dog, self.calls).patch(self.patches)

    def owner(self, name: str) -> type:
        return next(
            owner for owner in (self.runner, self.executor, self.scheduler) if name in vars(owner)
        )


def names_wrapped() -> list[str]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        return Scene(monkeypatch, [], "", "before").patches.names


NAMES = names_wrapped()


def test_every_entry_that_design_names_is_among_those_that_are_broken_here():
    of_recovery = {"start recovery", "run_next recovery", "delete_pod recovery"}
    assert {"_do_scheduling", "heartbeat", *of_recovery} <= set(NAMES)
    assert len(NAMES) >= len({*LOOP, *EXECUTOR, *KUBERNETES, *SCHEDULER})


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("raising", [False, True], ids=["answers", "raises"])
@pytest.mark.parametrize("victim", NAMES)
def test_a_broken_entry_costs_the_host_nothing(monkeypatch, said, victim, raising, when):
    scene = Scene(monkeypatch, said, victim, when)
    name = victim.split()[0]
    host = scene.owner(name)(raising)
    for _ in range(3):
        if raising:
            with pytest.raises(HostError):
                getattr(host, name)("argument")
        else:
            assert getattr(host, name)("argument") == name

    assert host.calls == [name] * 3
    mistakes = 0 if raising and when == "after" else 1  # what the host raises comes first
    assert len(said) == mistakes
    scene.patches.remove()
    assert not hasattr(vars(scene.owner(name))[name], "__wrapped__")


@pytest.mark.parametrize("passing", [StuckCallTimeout, SystemExit])
@pytest.mark.parametrize("victim", sorted({name.split()[0] for name in NAMES}))
def test_timeouts_of_another_kind_and_exits_pass_every_entry(monkeypatch, said, victim, passing):
    scene = Scene(monkeypatch, said, "", "before")
    host = scene.owner(victim)()

    def leaving(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise passing

    wrapped = vars(scene.owner(victim))[victim]
    while hasattr(wrapped.__wrapped__, "__wrapped__"):
        wrapped = wrapped.__wrapped__
    wrapped.__wrapped__ = leaving
    with pytest.raises(passing):
        getattr(host, victim)("argument")

    assert said == []


class Rest:
    """Plays the client's RESTClientObject."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.raises: BaseException | None = None

    def request(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append(args)
        if self.raises is not None:
            raise self.raises
        return SimpleNamespace(status=200, close=lambda: "closed", release_conn=lambda: "released")


def guarded_calls(fail: FailOpen) -> tuple[Watchdog, ApiCalls, Rest]:
    dog = Watchdog(Config(request_timeout=5), clock=ManualClock())
    dog.fail = fail
    calls, rest = ApiCalls(dog), Rest()
    client = SimpleNamespace(
        rest_client=rest, configuration=SimpleNamespace(host="https://k8s:6443")
    )
    calls.own(client)
    calls.depth = 1
    return dog, calls, rest


PARTS = [
    "describe",
    "enter",
    "leave",
    "_limit",
    "_outcome",
    "_follow",
    "_bytes_of",
    "answered",
    "failed",
    "allows",
]


@pytest.mark.parametrize("raising", [False, True], ids=["answers", "raises"])
@pytest.mark.parametrize("preload", [True, False], ids=["read", "streamed"])
@pytest.mark.parametrize("part", PARTS)
def test_a_broken_part_of_the_call_costs_the_host_nothing(
    monkeypatch, said, fail, part, preload, raising
):
    from watchdog_hook.integrations import kubernetes

    dog, calls, rest = guarded_calls(fail)
    for owner in (kubernetes, dog, calls, kubernetes.Server):
        if hasattr(owner, part):
            monkeypatch.setattr(owner, part, mistaken)
            break
    request = entry("request", calls.request, fail)
    if raising:
        rest.raises = HostError()
    for _ in range(3):
        arguments = (rest.request, rest, ("GET", "https://k8s:6443/api/v1/pods"))
        options = {"_preload_content": preload}
        if raising:
            with pytest.raises(HostError):
                request(*arguments, options)
        else:
            response = request(*arguments, options)
            assert response.status == 200
            assert (response.release_conn(), response.close()) == ("released", "closed")

    assert len(rest.calls) == 3
    assert len(said) <= 1
    assert all("Mistake" in text for text in said)
    # A call that could not be left must not look like one that is stuck, to be shot at.
    assert "book" in fail.off or not any(flight.guarded for flight in dog.book.in_flight())


def mistaken(*_: Any, **__: Any) -> Any:
    raise Mistake


class TestTheExecutorsOwnObjects:
    @pytest.fixture
    def executor(self) -> Any:
        queue: list[Any] = []
        return SimpleNamespace(
            kube_client=SimpleNamespace(
                api_client=SimpleNamespace(
                    rest_client=Rest(), configuration=SimpleNamespace(host="https://k8s:6443")
                ),
                create_namespaced_pod=lambda **kwargs: ("created", kwargs),
            ),
            task_queue=SimpleNamespace(
                put=lambda job, *_: queue.append(job), get_nowait=lambda: queue.pop(0)
            ),
        )

    def test_a_creation_goes_through_when_ours_is_broken(self, executor, fail, said, monkeypatch):
        dog, calls, _ = guarded_calls(fail)
        recovery = Recovery(dog, calls, executor)
        recovery.creation.key = "key"
        monkeypatch.setattr(recovery.creation, "_create", mistaken)
        body = {"metadata": {"name": "pod"}}
        for _ in range(2):
            answer = executor.kube_client.create_namespaced_pod(body=body, namespace="default")

            assert answer == ("created", {"body": body, "namespace": "default"})
        assert len(said) == 1

    @pytest.mark.parametrize("part", ["put", "taken"])
    def test_jobs_are_queued_when_ours_is_broken(self, executor, fail, said, monkeypatch, part):
        dog, calls, _ = guarded_calls(fail)
        recovery = Recovery(dog, calls, executor)
        monkeypatch.setattr(recovery.jobs, part, mistaken)
        for number in range(3):
            executor.task_queue.put(("key", number))
        found = [executor.task_queue.get_nowait() for _ in range(3)]

        assert found == [("key", 0), ("key", 1), ("key", 2)]
        assert len(said) == 1

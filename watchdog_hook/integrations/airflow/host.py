"""What only Airflow knows: its metrics, its secrets masker, its versions, who waits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from watchdog_hook.core.observed import DatabaseFacts, Descriptor, ExecutorFacts
from watchdog_hook.integrations.airflow import places
from watchdog_hook.integrations.airflow.database import MetadataDatabase
from watchdog_hook.ports import Host

if TYPE_CHECKING:
    from watchdog_hook.integrations.airflow.kubernetes_executor import KubernetesExecutors
    from watchdog_hook.integrations.airflow.watchers import Watchers
    from watchdog_hook.integrations.kubernetes import ApiCalls

T = TypeVar("T")

# Tokens that no masker was told of: a JSON web token, and what follows the word Bearer.
TOKENS = re.compile(r"eyJ[\w-]{5,}\.[\w-]+\.[\w-]*|(?<=[Bb]earer )\S+")
PREFIX = "watchdog_hook."


class AirflowHost(Host):
    """Everything is imported in the main thread at arming time: the watchdog's thread imports nothing."""

    def __init__(
        self, runner: Any, executors: list[Any], component: str | None = None, job: object = None
    ) -> None:
        job = getattr(getattr(runner, "job", None), "id", job)
        self.job_id = None if job is None else str(job)
        self.component = component
        self._executors = executors
        self._database = _tried(MetadataDatabase)
        celery = any("Celery" in type(executor).__name__ for executor in executors)
        self._broker = _tried(places.broker) if celery else None
        self._stats = _stats()
        self._redact = _redactor()
        self._versions = _versions()
        self.calls: ApiCalls | None = None
        self.kubernetes: KubernetesExecutors | None = None
        self.watchers: Watchers | None = None

    def versions(self) -> dict[str, str]:
        """Return the versions of Airflow, its Kubernetes provider and its client."""
        return self._versions

    def mask(self, text: str) -> str:
        """Return the text without the secrets that Airflow knows, and without anything like a token."""
        # In pieces, at the ends of lines: one expression over a dump of megabytes would hold the GIL for its
        # whole length. Our texts have no secret of several lines: line breaks in what comes from outside are gone.
        return "".join(TOKENS.sub("***", self._redact(piece)) for piece in pieces(text))

    def waiting(self) -> int | None:
        """Return how many task instances wait in the executors, read without a call to anybody."""
        if self.component is not None:
            return None  # that one has none
        queued = sum(len(getattr(executor, "queued_tasks", ())) for executor in self._executors)
        in_kubernetes = self.kubernetes.recoveries if self.kubernetes else ()
        return queued + sum(recovery.queue.waiting for recovery in in_kubernetes)

    def executors(self) -> tuple[ExecutorFacts, ...]:
        """Return the executors in numbers: their own attributes, and what our recovery has counted."""
        return tuple(self._facts(executor) for executor in self._executors)

    def _facts(self, executor: Any) -> ExecutorFacts:
        facts = ExecutorFacts(
            type(executor).__name__,
            queued=_count(executor, "queued_tasks"),
            running=_count(executor, "running"),
            open_slots=_open_slots(executor),
        )
        for recovery in self.kubernetes.recoveries if self.kubernetes else ():
            if recovery.executor is executor:
                waiting, oldest = recovery.queue.facts()
                facts = replace(facts, task_queue=waiting, oldest_s=oldest)
        watchers = self.watchers.of(executor) if self.watchers else ()
        return replace(facts, watchers=watchers)

    def named(self, descriptor: Descriptor) -> str | None:
        """Return which of Airflow's own servers a connection leads to."""
        if self._database is not None and self._database.leads_here(descriptor):
            return "the metadata database (host of sql_alchemy_conn)"
        if self._broker is not None and self._broker.is_end_of(descriptor):
            return "the broker (host of broker_url)"
        if places.is_nameserver(descriptor):
            return "a nameserver"
        if descriptor.remote in [str(server.peer) for server in self._servers()]:
            return "the Kubernetes API"
        return None

    def database(self, descriptor: Descriptor) -> DatabaseFacts | None:
        """Ask the metadata database about the connection the loop waits on."""
        return None if self._database is None else self._database.ask(descriptor)

    def forget(self) -> None:
        """In a forked child: no thread and no lock of the parent's."""
        if self._database is not None:
            self._database.reset_after_fork()
        if self.watchers is not None:
            self.watchers.forget()

    def gauge(self, name: str, value: float) -> None:
        """Send a gauge."""
        self._stats.gauge(PREFIX + name, value, **self._tagged(None))

    def incr(self, name: str, tags: dict[str, str] | None = None) -> None:
        """Count one."""
        self._stats.incr(PREFIX + name, **self._tagged(tags))

    def timing(self, name: str, seconds: float) -> None:
        """Send a duration; as a timedelta, since a number's unit depends on version and setting."""
        self._stats.timing(PREFIX + name, timedelta(seconds=seconds), **self._tagged(None))

    def _tagged(self, tags: dict[str, str] | None) -> dict[str, Any]:
        if self.component is not None:
            tags = {**(tags or {}), "component": self.component}
        return {"tags": tags} if tags else {}

    def breaker_open(self) -> bool:
        """Tell whether an API server is being left alone."""
        return any(not server.breaker.allows for server in self._servers())

    def tick(self, now: float) -> None:
        """Have the servers that are left alone probed, and look at the watchers of pods."""
        for server in self._servers():
            server.tick(now)
        if self.watchers is not None:
            self.watchers.tick(now)

    def working(self) -> bool:
        """Tell whether a probe is setting up its connection, with OpenSSL's locks."""
        return any(server.probing for server in self._servers())

    def _servers(self) -> Any:
        return self.calls.servers if self.calls else ()


def _tried(make: Callable[[], T]) -> T | None:
    # Without it a report only does not know that server by name.
    try:
        return make()
    except Exception:  # noqa: BLE001 - whatever this Airflow's settings are
        return None


def _count(executor: Any, name: str) -> int | None:
    try:
        return len(getattr(executor, name))
    except Exception:  # noqa: BLE001 - an executor of another kind
        return None


def _open_slots(executor: Any) -> int | None:
    try:
        return int(executor.slots_available) if executor.parallelism else None
    except Exception:  # noqa: BLE001 - an executor of another kind
        return None


def pieces(text: str, size: int = 32 * 1024) -> Iterator[str]:
    """Return a text in parts of about this size, each but the last ending with a line."""
    start = 0
    while len(text) - start > size:
        end = (
            text.rfind("\n", start, start + size) + 1
            or text.find("\n", start + size) + 1
            or len(text)
        )
        yield text[start:end]
        start = end
    yield text[start:]


def _stats() -> Any:
    try:
        from airflow.observability import stats  # 3.3

        return stats
    except ImportError:
        from airflow.stats import Stats

        return Stats


def _redactor() -> Callable[[str], str]:
    for name in (
        "airflow._shared.secrets_masker",
        "airflow.sdk.execution_time.secrets_masker",
        "airflow.utils.log.secrets_masker",
    ):
        try:
            module = __import__(name, fromlist=["redact"])
            redact = module.redact
        except (ImportError, AttributeError):
            continue
        return lambda text, redact=redact: str(redact(text))  # type: ignore[misc]
    return lambda text: text


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in (
        "apache-airflow",
        "apache-airflow-providers-cncf-kubernetes",
        "kubernetes",
        "urllib3",
    ):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

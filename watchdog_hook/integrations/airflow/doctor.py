"""What of Airflow and its Kubernetes executor decides whether the watchdog can work. Changes nothing."""

from __future__ import annotations

import copy
import importlib.metadata
import inspect
import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from watchdog_hook.config import Config

OLDEST, NEWEST = (2, 7), (3, 3)
PATIENCE = 5  # seconds for one question to the API server
LONGEST = 15  # seconds for all of them; resolving a name knows no limit of its own
LOADING = "import watchdog_hook\n\nwatchdog_hook.install()"
PROVIDER = "apache-airflow-providers-cncf-kubernetes"
SECTION = "kubernetes_executor"


@dataclass(frozen=True)
class Check:
    """One line of the doctor's: what was looked at, how it is, why that matters, what would help."""

    level: Literal["ok", "warn", "problem"]
    what: str
    why: str
    remedy: str = ""


def checks(config: Config) -> Iterator[Check]:
    """Look at Airflow here. A check that fails says so and leaves the others alone."""
    yield from _safely("Airflow", version)
    if not installed():
        return
    yield from _safely("executor", executor)
    yield from _safely("airflow_local_settings", local_settings)
    if not uses_kubernetes():
        return
    yield from _safely("_request_timeout", lambda: request_timeout(config))
    yield from _safely("task_publish_max_retries", lambda: publish_retries(config))
    yield from _safely("get pods", get_pods)


def _safely(what: str, check: Callable[[], Check]) -> Iterator[Check]:
    try:
        yield check()
    except Exception as error:  # noqa: BLE001 - a doctor that dies of one finding helps nobody
        reason = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        yield Check("warn", what, f"could not find out ({reason})")


def installed() -> bool:
    """Tell whether this Python has Airflow."""
    return (_version("apache-airflow") or _version("apache-airflow-core")) is not None


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _conf() -> Any:
    from airflow.configuration import conf

    return conf


def version() -> Check:
    """Tell whether the hook is tried with this Airflow."""
    found = _version("apache-airflow") or _version("apache-airflow-core")
    if found is None:
        return Check(
            "warn",
            "Airflow is not installed here",
            "only `with Watchdog(Config(...))` can be used",
            "run the doctor with the scheduler's own Python",
        )
    short = tuple(int(part) for part in found.split(".")[:2])
    if OLDEST <= short <= NEWEST:
        return Check("ok", f"Airflow {found}", "the hook is tried with 2.7 to 3.3")
    return Check(
        "warn",
        f"Airflow {found}",
        "the hook is tried with 2.7 to 3.3 only; what it does not recognise it leaves alone",
        "look for the line event=armed in the scheduler's log",
    )


def uses_kubernetes() -> bool:
    """Tell whether one of the configured executors makes Kubernetes calls."""
    try:
        return "Kubernetes" in (_conf().get("core", "executor") or "")
    except Exception:  # noqa: BLE001 - said by executor()
        return False


def executor() -> Check:
    """Tell what the executor leaves to do."""
    name = _conf().get("core", "executor")
    if not uses_kubernetes():
        return Check(
            "ok",
            f"[core] executor is {name}",
            "stalls are noticed and dumped; it makes no Kubernetes calls that could be interrupted",
        )
    provider = _version(PROVIDER)
    if provider is None:
        return Check(
            "problem",
            f"[core] executor is {name}, but {PROVIDER} is not installed",
            "this scheduler cannot start",
            f"pip install {PROVIDER}",
        )
    return Check("ok", f"[core] executor is {name}", f"with {PROVIDER} {provider}")


def local_settings() -> Check:
    """Tell whether airflow_local_settings has called install()."""
    import airflow.settings  # noqa: F401 - this is what imports airflow_local_settings

    module = sys.modules.get("airflow_local_settings")
    where = getattr(module, "__file__", None)
    if any(type(finder).__module__.startswith("watchdog_hook.") for finder in sys.meta_path):
        return Check(
            "ok",
            f"install() was called{f' by {where}' if where else ''}",
            "the watchdog is armed when a scheduler starts here",
        )
    if module is None:
        return Check(
            "problem",
            "there is no airflow_local_settings.py",
            "nothing loads the watchdog",
            f"put this into airflow_local_settings.py, in $AIRFLOW_HOME/config or on PYTHONPATH:\n{LOADING}",
        )
    return Check(
        "problem",
        f"{where} does not call watchdog_hook.install()",
        "nothing loads the watchdog; another file of that name would come later on sys.path",
        f"add to it:\n{LOADING}",
    )


def request_timeout(config: Config) -> Check:
    """Tell which of the executor's calls have no read timeout."""
    text = _conf().get(SECTION, "kube_client_request_args", fallback="") or "{}"
    arguments = json.loads(text)
    own = arguments.get("_request_timeout") if isinstance(arguments, dict) else None
    bare = unreached()
    if config.request_timeout is not None:
        return Check(
            "ok",
            f"[watchdog_hook] request_timeout is {config.as_text()['request_timeout']}",
            f"it reaches every call of the executor that has none; [{SECTION}] kube_client_request_args "
            f"alone would not reach {', '.join(bare)}",
        )
    remedy = "set [watchdog_hook] request_timeout, 10,60 say: it reaches those too"
    if not own:
        return Check(
            "warn",
            f"no _request_timeout in [{SECTION}] kube_client_request_args",
            "every call of the executor may wait for ever; the watchdog ends the stuck ones after "
            f"interrupt_after ({config.interrupt_after:g} s)",
            remedy,
        )
    return Check(
        "warn",
        f"_request_timeout is {own} in [{SECTION}] kube_client_request_args",
        f"it does not reach {', '.join(bare)}",
        remedy,
    )


def unreached() -> list[str]:
    """Return the calls of the installed executor that kube_client_request_args does not reach."""
    from airflow.providers.cncf.kubernetes.executors import kubernetes_executor as module

    calls = ["patch_namespaced_pod (adopted, finished and revoked pods)"]
    # Read from the source that is installed: providers changed this more than once.
    lists = getattr(module.KubernetesExecutor, "_list_pods", None)
    source = inspect.getsource(lists) if lists is not None else ""
    if source and "kube_client_request_args" not in source:
        calls.append("the lists of adoption and of completed pods")
    if "DynamicClient" in source:
        calls.append("the discovery before each list")
    calls.append("the watcher's list after an answer 410")
    return calls


def publish_retries(config: Config) -> Check:
    """Tell what happens to a task whose pod could not be created, apart from what the hook does."""
    text = str(_conf().get(SECTION, "task_publish_max_retries", fallback="0"))
    what = f"[{SECTION}] task_publish_max_retries is {text}"
    if int(text) != 0:
        return Check("ok", what, "Airflow itself tries again after some refusals of the API server")
    if config.may_interrupt and config.requeue_connection_errors:
        return Check(
            "ok",
            what,
            "a refusal, for a quota say, fails the task; after no answer the hook puts it back",
        )
    return Check(
        "warn",
        what,
        "a connection that breaks while a pod is created fails the task or the scheduler",
        f"set it to 3, or let the hook put such tasks back: interrupt = {Config().as_text()['interrupt']}, "
        "requeue_connection_errors = True",
    )


def get_pods() -> Check:
    """Tell whether the executor's account may read a pod: what a retry of a creation is decided by."""
    answers: list[Check] = []

    def ask() -> None:
        from airflow.providers.cncf.kubernetes.kube_client import get_kube_client
        from airflow.providers.cncf.kubernetes.kube_config import KubeConfig

        configured = KubeConfig()
        namespaces: list[str | None] = [configured.kube_namespace]
        if configured.multi_namespace_mode:
            namespaces = list(configured.multi_namespace_mode_namespace_list or [None])
        answers.extend(_safely("get pods", lambda: may_get_pods(get_kube_client(), namespaces)))

    # A thread that may be left behind: a name that does not resolve keeps it for minutes.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(LONGEST)
    if answers:
        return answers[0]
    return Check(
        "warn",
        "get pods: could not find out",
        f"the API server did not answer within {LONGEST} s",
        "look at the scheduler's way to it: name, network policy, load balancer",
    )


def may_get_pods(core: Any, namespaces: list[str | None]) -> Check:
    """Ask the API server, by a review of our own access or else by reading a pod that is not there."""
    from kubernetes import client

    configuration = copy.copy(core.api_client.configuration)
    configuration.retries = 0  # one question, one answer: ten retries would be ten times PATIENCE
    api = client.ApiClient(configuration)
    denied = [name or "all namespaces" for name in namespaces if not _may_get(client, api, name)]
    if not denied:
        where = ", ".join(name or "all namespaces" for name in namespaces)
        return Check(
            "ok", f"the executor's account may get pods in {where}", "a retry can be decided"
        )
    return Check(
        "warn",
        f"the executor's account may not get pods in {', '.join(denied)}",
        "after a creation without an answer the pod is looked up by a list instead",
        'add the verb "get" for "pods" to the role of the scheduler\'s service account',
    )


def _may_get(client: Any, api: Any, namespace: str | None) -> bool:
    asked = client.V1SelfSubjectAccessReview(
        spec=client.V1SelfSubjectAccessReviewSpec(
            resource_attributes=client.V1ResourceAttributes(
                namespace=namespace, verb="get", resource="pods"
            )
        )
    )
    try:
        review = client.AuthorizationV1Api(api).create_self_subject_access_review(
            asked, _request_timeout=PATIENCE
        )
        return bool(review.status.allowed)
    except client.ApiException:
        pass  # some clusters forbid even this question
    try:
        client.CoreV1Api(api).read_namespaced_pod(
            "watchdog-hook-doctor", namespace or "default", _request_timeout=PATIENCE
        )
    except client.ApiException as error:
        if error.status in (401, 403):
            return False
        if error.status != 404:
            raise
    return True

"""A pod whose creation got no answer: what is known of it, and how it is looked for."""

from __future__ import annotations

from typing import Any

CONFLICT = 409
INVALID = (400, 422)  # the pod itself is wrong, and will be the next time too

# What tells that a pod is that of our job and no other; the last only where the provider sets it.
IDENTITY = ("dag_id", "task_id", "run_id", "try_number", "map_index", "ti_id")


class OutcomeUnknown(BaseException):
    """
    A creation ended without an answer. Never leaves `run_next`.

    Not an Exception: the provider logs the whole pod for those, on Airflow 3 with the workload's token.
    """

    def __init__(
        self, error: BaseException, name: str, namespace: str, answered: str | None = None
    ) -> None:
        self.error = error
        self.name = name
        self.namespace = namespace
        self.why = (
            answered  # what the server said, where it answered, yet not what became of the pod
        )
        self.counts = answered is None  # against requeue_limit
        super().__init__()


def read_pod(executor: Any, name: str, namespace: str) -> Any:
    """Return the pod of that name; None if there is none. Lists where the account may not `get`."""
    from kubernetes.client import ApiException

    client = executor.kube_client
    arguments = executor.kube_config.kube_client_request_args or {}
    try:
        return client.read_namespaced_pod(name, namespace, **arguments)
    except ApiException as error:
        if error.status == 404:
            return None
        if error.status != 403:
            raise
    found = client.list_namespaced_pod(
        namespace, field_selector=f"metadata.name={name}", **arguments
    )
    return found.items[0] if found.items else None


def same_pod(found: dict[str, str], wanted: dict[str, str]) -> bool:
    """Tell by their labels whether two pods are of the same try of the same task instance."""
    return all(found.get(name) == wanted.get(name) for name in IDENTITY) and "dag_id" in found

"""Finished pods: their deletion or patch without an answer is owed, and made good once the server answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from watchdog_hook.integrations.kubernetes import ApiCalls

TRIES = 10  # error answers to one of them, after which it is left as it is
PER_LOOP = 8  # made good in one loop


@dataclass
class Owed:
    """A finished pod whose deletion or patch got no answer."""

    method: str
    errors: int = 0


class FinishedPods:
    """Those of one executor."""

    def __init__(self, calls: ApiCalls, executor: Any) -> None:
        self._calls = calls
        self._executor = executor
        # Inside _change_state, whose failures go back into the queue it drains.
        self.changing_state = False
        self.owed: dict[tuple[str, str], Owed] = {}  # by namespace and name of the pod

    def change_state(self, wrapped: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Stand in for `_change_state`: note that we are inside it."""
        self.changing_state = True
        try:
            return wrapped(*args, **kwargs)
        finally:
            self.changing_state = False

    def finish(self, wrapped: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """
        Stand in for `delete_pod` and `patch_pod_executor_done`.

        In `revoke_task` the exception goes on up: absorbed there, the task would be rescheduled beside its
        old pod.
        """
        if not self.changing_state:
            return wrapped(*args, **kwargs)
        return self._finish(wrapped, *args, **kwargs)

    def make_good(self) -> None:
        """Do again some of what is owed."""
        for pod, owed in list(self.owed.items())[:PER_LOOP]:
            self._again(pod, owed)

    def _again(self, pod: tuple[str, str], owed: Owed) -> None:
        namespace, name = pod
        del self.owed[pod]
        try:
            method = getattr(self._executor.kube_scheduler, owed.method)
            self._finish(method, pod_name=name, namespace=namespace)
        except Exception:  # noqa: BLE001 - an error answer; it waits behind the others for its next turn
            owed.errors += 1
            if owed.errors < TRIES:
                self.owed[pod] = owed

    def _finish(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """
        Delete or patch a finished pod; without an answer it is owed, and the task's state changes all the same.

        `_change_state` puts a failed result back into the very queue that `sync` is draining, so with a mute
        server one `sync` would never end.
        """
        lost = object()
        given = dict(zip(("pod_name", "namespace"), args, strict=False)) | kwargs
        if self._calls.boundary(method.__name__, lost, method, args, kwargs) is lost:
            self.owed[given["namespace"], given["pod_name"]] = Owed(method.__name__)

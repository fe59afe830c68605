"""The pods: what was created, changed and deleted, with every event since the beginning."""

from __future__ import annotations

import base64
import binascii
import copy
import json
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fakes.kube_api.selectors import Pod, Selector

TaskTry = tuple[str, str, str, str, str]


class Refused(Exception):
    """An answer other than 2xx, as the real API server words it."""

    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "details": details,
            "code": code,
        }


@dataclass(frozen=True)
class Event:
    """One change. `before` is None for a new pod, `gone` says that `pod` is no longer there."""

    version: int
    pod: Pod
    before: Pod | None = None
    gone: bool = False

    def seen_through(self, matches: Selector) -> dict[str, Any] | None:
        """
        Return the change as a watch with this selector sees it, or None.

        A pod that a patch moves out of the selector is DELETED for that watch, without a deletion
        timestamp: this is how one scheduler learns that another has adopted its pod.
        """
        was = self.before is not None and matches(self.before)
        now = not self.gone and matches(self.pod)
        if not was and not now:
            return None
        word = "MODIFIED" if was and now else "ADDED" if now else "DELETED"
        return {"type": word, "object": self.pod}


class Pods:
    """All namespaces. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pods: dict[tuple[str, str], Pod] = {}
        self._events: list[Event] = []
        self._created: list[Pod] = []
        self._version = 1000

    def create(self, namespace: str, body: Pod) -> Pod:
        """Add a pod, Pending; 409 where the name exists, 403 where its workload's token is old."""
        pod = copy.deepcopy(body)
        metadata = pod.setdefault("metadata", {})
        name = metadata.get("name") or metadata.get("generateName", "pod-") + uuid.uuid4().hex[:5]
        if metadata.get("namespace", namespace) != namespace:
            raise Refused(
                400, "BadRequest", "the namespace of the object does not match the request"
            )
        if expired := _expired_token(pod):
            message = (
                f'pods "{name}" is forbidden: the token of its workload expired {expired:.0f} s ago'
            )
            raise Refused(403, "Forbidden", message, name=name, kind="pods")
        with self._changed:
            if (namespace, name) in self._pods:
                message = f'pods "{name}" already exists'
                raise Refused(409, "AlreadyExists", message, name=name, kind="pods")
            metadata.update(name=name, namespace=namespace, uid=str(uuid.uuid4()))
            metadata["creationTimestamp"] = _now()
            pod.update(
                kind="Pod", apiVersion="v1", status={"phase": "Pending", "qosClass": "BestEffort"}
            )
            pod.setdefault("spec", {})
            self._put(pod)
            self._created.append(pod)
            return pod

    def get(self, namespace: str, name: str) -> Pod:
        """Return one pod; 404 where it does not exist."""
        with self._changed:
            try:
                return self._pods[namespace, name]
            except KeyError:
                message = f'pods "{name}" not found'
                raise Refused(404, "NotFound", message, name=name, kind="pods") from None

    def list(self, namespace: str | None, matches: Selector) -> tuple[int, list[Pod]]:
        """Return the version and the pods of a namespace, or of all."""
        with self._changed:
            pods = [pod for (where, _), pod in self._pods.items() if namespace in (None, where)]
            return self._version, [pod for pod in pods if matches(pod)]

    def patch(self, namespace: str, name: str, change: Any) -> Pod:
        """Merge into one pod. Lists are replaced as a whole, also in a strategic merge."""
        with self._changed:
            before = self.get(namespace, name)
            pod = _merged(before, change)
            self._put(pod, before)
            return pod

    def delete(self, namespace: str, name: str) -> Pod:
        """Mark one pod as being deleted, then take it away."""
        pod = self.mark_deleting(namespace, name)
        with self._changed:
            del self._pods[namespace, name]
            self._put(_merged(pod, {}), pod, gone=True)
        return pod

    def mark_deleting(self, namespace: str, name: str) -> Pod:
        """Set the deletion timestamp and leave the pod there, as a node that takes its time."""
        change = {"metadata": {"deletionTimestamp": _now(), "deletionGracePeriodSeconds": 0}}
        return self.patch(namespace, name, change)

    def events_after(self, version: int, timeout: float) -> tuple[int, list[Event]]:
        """Return the events after that version; wait for the first up to `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._version > version, timeout)
            fresh: list[Event] = []
            for event in reversed(self._events):
                if event.version <= version:
                    break
                fresh.insert(0, event)
            return self._version, fresh

    def wait_for(self, condition: Callable[[], Any], timeout: float) -> bool:
        """Wait for a condition that depends on the pods alone."""
        with self._changed:
            return bool(self._changed.wait_for(condition, timeout))

    def created(self) -> Iterator[Pod]:
        """Return every pod that ever came to be, the deleted too."""
        with self._changed:
            return iter(list(self._created))

    def per_try(self) -> Counter[TaskTry]:
        """Count the pods that ever came to be, by the try of the task instance they were for."""
        return Counter(task_try(pod) for pod in self.created())

    def _put(self, pod: Pod, before: Pod | None = None, *, gone: bool = False) -> None:
        self._version += 1
        pod["metadata"]["resourceVersion"] = str(self._version)
        if not gone:
            self._pods[pod["metadata"]["namespace"], pod["metadata"]["name"]] = pod
        self._events.append(Event(self._version, pod, before, gone))
        self._changed.notify_all()


def task_try(pod: Pod) -> TaskTry:
    """Return (dag, task, run, try number, map index) as the executor notes them on its pods."""
    notes = pod["metadata"].get("annotations") or {}
    names = ("dag_id", "task_id", "run_id", "try_number")
    dag_id, task_id, run_id, try_number = (notes.get(name, "") for name in names)
    return dag_id, task_id, run_id, try_number, notes.get("map_index", "-1")


def _merged(old: Pod, change: Any) -> Pod:
    """Return a copy of `old` with a merge patch in it; what an event holds must never change."""
    merged = copy.deepcopy(old)
    _merge(merged, change)
    return merged


def _merge(target: dict[str, Any], change: dict[str, Any]) -> None:
    for key, value in change.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            if not isinstance(target.get(key), dict):
                target[key] = {}
            _merge(target[key], value)
        else:
            target[key] = copy.deepcopy(value)


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _expired_token(pod: Pod) -> float:
    """Return for how long the token in the pod's arguments has been expired; 0 if there is none."""
    for container in pod.get("spec", {}).get("containers") or []:
        for argument in [*(container.get("command") or []), *(container.get("args") or [])]:
            expiry = _expiry(argument)
            if expiry is not None and expiry < time.time():
                return time.time() - expiry
    return 0.0


def _expiry(argument: str) -> float | None:
    try:
        token = json.loads(argument)["token"]
        claims = token.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, binascii.Error):
        return None

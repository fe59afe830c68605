"""
The Kubernetes API of the tests: pods over HTTPS for the real clients, and silence on command.

    with KubeApi() as api:
        trap = api.set_fault(Fault.REQUEST, on="create", times=1)
        ...  # a scheduler with api.kubeconfig creates a pod
        trap.wait()  # it now waits for an answer that never comes
        api.clear()

Nothing ever runs in its pods: they stay Pending until a test calls `set_phase`.
"""

from __future__ import annotations

from tests.fakes.kube_api.api import KubeApi
from tests.fakes.kube_api.faults import Fault, Trap
from tests.fakes.kube_api.requests import Request

__all__ = ["Fault", "KubeApi", "Request", "Trap"]

"""
A process whose calls get stuck and are ended, again and again: `python -m benchmarks.stuck WHERE COUNT`.

WHERE is `main` or `worker`, for a read under `dog.guard` in that thread, or `api`, for a Kubernetes
call under a boundary in the main thread. Prints the milliseconds from decision to exception as JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.stopwatch import TimedDeeds
from watchdog_hook import Config, StuckCallTimeout, Watchdog


def main() -> None:
    """Let calls get stuck."""
    parser = argparse.ArgumentParser()
    parser.add_argument("where", choices=["main", "worker", "api"])
    parser.add_argument("count", type=int)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--kubeconfig")
    arguments = parser.parse_args()
    logging.basicConfig(filename=arguments.folder / "log", level=logging.INFO)
    config = Config(
        poll_interval=0.02,
        sample_after=0.03,
        dump_after=0.06,
        interrupt_after=0.1,
        startup_grace=0.06,
        breaker_after=1_000_000,
        incident_dir=str(arguments.folder / "incidents"),
        incident_retention=3,
    )
    actions = TimedDeeds(config)
    took: list[float] = []
    with Watchdog(config, actions=actions) as dog:
        if arguments.where == "api":
            stuck, error = api_call(dog, arguments.kubeconfig), error_of_calls()
        else:
            stuck, error = guarded_read(dog), StuckCallTimeout

        def repeat() -> None:
            while len(took) < arguments.count:
                try:
                    stuck()
                except error:
                    took.append(1000 * (time.monotonic() - actions.decided))

        if arguments.where == "worker":
            worker = threading.Thread(target=repeat, daemon=True)
            worker.start()
            while worker.is_alive():
                dog.beat()
                time.sleep(0.01)
        else:
            repeat()
    print(json.dumps(took))


def guarded_read(dog: Watchdog) -> Callable[[], None]:
    """Return a read, under guard, from a server that never answers."""
    server = socket.create_server(("127.0.0.1", 0))

    def stuck() -> None:
        # A connection each: the lever for other threads than the main one shuts it down.
        with socket.create_connection(server.getsockname(), timeout=5) as client:
            client.settimeout(None)
            accepted, _ = server.accept()
            with accepted:
                dog.beat()
                with dog.guard("read"):
                    client.recv(1)
        raise RuntimeError("the read came back")

    return stuck


def api_call(dog: Watchdog, kubeconfig: str) -> Callable[[], None]:
    """Return a call to an API server that reads it and says nothing."""
    from kubernetes import client, config
    from kubernetes.client.rest import RESTClientObject

    from benchmarks.calls import pod
    from watchdog_hook.integrations.kubernetes import ApiCalls
    from watchdog_hook.integrations.patch import Patches

    core = client.CoreV1Api(config.new_client_from_config(kubeconfig))
    calls = ApiCalls(dog)
    calls.own(core.api_client)
    calls.depth = 1  # as inside a boundary
    Patches(dog.fail).wrap(RESTClientObject, "request", calls.request)

    def stuck() -> None:
        dog.beat()
        core.create_namespaced_pod("here", pod("never"))
        raise RuntimeError("the call came back")

    return stuck


def error_of_calls() -> Any:
    """Return what a Kubernetes call that was ended raises."""
    from watchdog_hook.integrations.kubernetes import StuckApiCall

    return StuckApiCall


if __name__ == "__main__":
    main()

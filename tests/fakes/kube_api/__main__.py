"""Serve until Ctrl-C, for poking at it by hand: `python -m tests.fakes.kube_api`."""

from __future__ import annotations

import argparse
import threading

from tests.fakes.kube_api import Fault, KubeApi


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.kube_api", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one (default)")
    parser.add_argument("--fault", choices=[fault.name.lower() for fault in Fault])
    parser.add_argument("--on", default="any", help="create, list, get, patch, delete, watch, any")
    arguments = parser.parse_args()
    with KubeApi(port=arguments.port) as api:
        print(f"export KUBECONFIG={api.kubeconfig}  # {api.url}", flush=True)
        if arguments.fault:
            api.set_fault(Fault[arguments.fault.upper()], on=arguments.on)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()

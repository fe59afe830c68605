"""What the hook counts arrives where Airflow sends its own metrics."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

from tests.e2e.ordeal import QUICK, Ordeal
from tests.fakes.kube_api import Fault

if TYPE_CHECKING:
    from tests.e2e.conftest import Start
    from tests.fakes.kube_api import KubeApi


def test_a_stall_can_be_seen_in_statsd(start: Start, api: KubeApi):
    seen: dict[str, str] = {}
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    # Airflow sends a packet for each number: none of them may find it full while the reader has no turn.
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    server.bind(("127.0.0.1", 0))

    def collect() -> None:
        while packet := server.recv(65536):
            for line in packet.decode().splitlines():
                name, _, value = line.partition(":")
                if "watchdog_hook" in name:
                    seen[name.partition("watchdog_hook.")[2].partition(",")[0]] = value

    reader = threading.Thread(target=collect)
    reader.start()
    try:
        scheduler = start(
            {
                **QUICK,
                "metrics.statsd_on": True,
                "metrics.statsd_host": "127.0.0.1",
                "metrics.statsd_port": server.getsockname()[1],
            }
        )
        ordeal = Ordeal(scheduler, api)
        ordeal.release()
        ordeal.wait_for_pods(timeout=120)
        trap = api.set_fault(Fault.REQUEST, on="create", times=1)
        ordeal.release()
        trap.wait()
        scheduler.wait_event("stall_ended")
        ordeal.wait_for_pods()

        expected = {"silence", "breaker_open", "stalls", "interrupts", "requeues", "stall_duration"}
        scheduler.wait_for(lambda: expected <= set(seen), 30, f"{expected}, not {set(seen)}")
        assert seen["stalls"] == "1|c"
        assert seen["interrupts"] == "1|c"
        assert seen["requeues"] == "1|c"
        assert seen["silence"].endswith("|g")
        # StatsD's timings are milliseconds, whatever Airflow's own setting is.
        assert 2000 < float(seen["stall_duration"].partition("|")[0]) < 60000
    finally:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", server.getsockname())  # an empty packet ends the reader
        reader.join(10)
        server.close()

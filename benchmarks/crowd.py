"""
A process that falls silent on command, with many threads: `python -m benchmarks.crowd THREADS`.

Reads commands from standard input: `stall` beats once and lets the watchdog dump, `pause SINCE UNTIL`
asks for the longest time for which the busy thread did not run. Answers in JSON, each on a line that
begins with `answer`: what is imported may print as well.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.stopwatch import TimedDeeds, TimedEvidence
from watchdog_hook import Config, Watchdog

FUNCTIONS = 300  # from which each thread's stack takes its own forty
NOTICED = 0.0005  # seconds: a shorter pause is no pause


def main() -> None:
    """Start the crowd, then do as told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("threads", type=int)
    parser.add_argument("--depth", type=int, default=40)
    parser.add_argument("--poll", type=float, default=1.0)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--airflow", action="store_true", help="with Airflow's secrets masker")
    arguments = parser.parse_args()
    config = Config(
        poll_interval=arguments.poll,
        sample_after=0.5,
        dump_after=1,
        startup_grace=1,
        incident_dir=str(arguments.folder / "incidents"),
        incident_retention=3,
    )
    host = airflow_host() if arguments.airflow else None
    # After Airflow has made its own arrangements.
    logging.basicConfig(filename=arguments.folder / "log", level=logging.INFO, force=True)
    evidence = TimedEvidence()
    actions = TimedDeeds(config, host.mask if host else None)
    functions = make_functions()
    start_crowd(functions, arguments.threads - 1, arguments.depth - 3)
    busy = Busy()
    busy.start()
    with Watchdog(config, evidence=evidence, actions=actions, host=host) as dog:
        chain = random.Random(0).sample(functions, arguments.depth - 2)
        descend(chain, lambda: obey(dog, evidence, actions, busy))


def obey(dog: Watchdog, evidence: TimedEvidence, actions: TimedDeeds, busy: Busy) -> None:
    """Do what standard input says, forty frames deep. Waiting for it is the stall."""
    silent_since = 0.0

    def answer(value: object) -> None:
        sys.__stdout__.write(f"answer {json.dumps(value)}\n")  # type: ignore[union-attr]
        sys.__stdout__.flush()  # type: ignore[union-attr]

    def dumped(at: float) -> None:
        threshold = silent_since + dog.config.dump_after
        answer({"threshold": threshold, "began": evidence.gathered, "finished": at})

    answer("ready")
    actions.on_dumped = dumped
    for line in sys.stdin:
        word, *numbers = line.split()
        if word == "stall":
            silent_since = time.monotonic()
            dog.beat("reading")
        elif word == "pause":
            answer(busy.longest(*map(float, numbers)))


class Busy(threading.Thread):
    """Does nothing but look at the clock, and keeps every gap it finds."""

    def __init__(self) -> None:
        super().__init__(name="busy", daemon=True)
        self.gaps: list[tuple[float, float]] = []

    def run(self) -> None:
        """Look at the clock for ever."""
        now, gaps = time.monotonic, self.gaps
        last = now()
        while True:
            here = now()
            if here - last > NOTICED:
                gaps.append((last, here))
            last = here

    def longest(self, since: float, until: float) -> float:
        """Return the longest gap that overlaps this stretch, in seconds."""
        inside = [there - here for here, there in list(self.gaps) if there > since and here < until]
        return max(inside, default=0.0)


def make_functions() -> list[Callable[..., Any]]:
    """Return many functions that each call the next of a chain, with a code object of their own."""
    source = "\n".join(
        f"def worker_{number}(chain, last):\n"
        f"    return chain[0](chain[1:], last) if chain else last()\n"
        for number in range(FUNCTIONS)
    )
    names: dict[str, Any] = {}
    exec(compile(source, "/opt/airflow/plugins/crowd/workers.py", "exec"), names)
    return [names[f"worker_{number}"] for number in range(FUNCTIONS)]


def descend(chain: list[Callable[..., Any]], last: Callable[[], Any]) -> Any:
    """Call `last` under one frame for each function."""
    return chain[0](chain[1:], last)


def start_crowd(functions: list[Callable[..., Any]], count: int, depth: int) -> None:
    """Start idle threads, no two with the same stack."""
    threading.stack_size(512 * 1024)
    for_ever, waiting, chance = threading.Event(), threading.Semaphore(0), random.Random(count)

    def wait() -> None:
        waiting.release()
        for_ever.wait()

    for number in range(count):
        chain = chance.sample(
            functions, depth - 3
        )  # run, _bootstrap and the wait are frames as well
        threading.Thread(
            target=descend, args=(chain, wait), name=f"pool-{number}", daemon=True
        ).start()
    for _ in range(count):
        waiting.acquire()
    threading.stack_size(0)


def airflow_host() -> Any:
    """Return Airflow's side of the watchdog, with a few secrets to look for."""
    from watchdog_hook.integrations.airflow.host import AirflowHost

    # The same masker that the host asks: Airflow 3 has several, each with secrets of its own.
    for place in (
        "airflow._shared.secrets_masker",
        "airflow.sdk.execution_time.secrets_masker",
        "airflow.utils.log.secrets_masker",
    ):
        try:
            module = __import__(place, fromlist=["mask_secret"])
        except ImportError:
            continue
        for number in range(20):
            module.mask_secret(f"correct-horse-{number}")
        break
    return AirflowHost(SimpleNamespace(job=None), [])


if __name__ == "__main__":
    main()

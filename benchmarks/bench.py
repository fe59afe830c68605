#!/usr/bin/env python3
"""
Measure what the hook costs, and print one table of figures beside the bounds they are held against.

Needs only what the package needs; lines on a scheduler need Apache Airflow with its Kubernetes
provider and trustme in the same environment, the lines beside py-spy need py-spy on PATH. Talks to
127.0.0.1 only. Half an hour for all of it; figures are best taken on a machine that has
nothing else to do. The exit code does not tell whether a bound is met: it is 1 only when something
broke while it was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:1] = [str(CHECKOUT)]

from benchmarks.figures import Line, NotMeasured  # noqa: E402
from benchmarks.table import render  # noqa: E402

# In the order of the table; each is a `measure` in the module beside it.
PARTS = {
    "beat": ("calls", "A beat"),
    "book": ("calls", "The book around one Kubernetes call"),
    "import": ("startup", "import watchdog_hook; watchdog_hook.install()"),
    "probe": ("probe", "A Kubernetes probe"),
    "idle": ("idle", "The watchdog while nothing is wrong"),
    "sentinel": ("sentinel", "The sentinel beside a watchdog while nothing is wrong"),
    "recorder": ("recorder", "Samples and the flight recorder while nothing is wrong"),
    "scheduler": ("scheduler", "A scheduler's processor time per loop"),
    "dump": ("dump", "The dump"),
    "gather": ("gather", "Gathering the evidence for a dump"),
    "interrupt": ("interrupt", "From the decision to interrupt to the exception in the caller"),
    "memory": ("scheduler", "Memory of a scheduler against a twin without the hook"),
}


@dataclass(frozen=True)
class Effort:
    """How much is measured, and where progress goes."""

    quick: bool = False

    def __call__(self, full: int, quick: int) -> int:
        """Return how many times something is done."""
        return quick if self.quick else full

    def say(self, text: str) -> None:
        """Show progress, on standard error."""
        print(f"  {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Measure what was asked for and print it."""
    arguments = parse_arguments()
    names = arguments.only or list(PARTS)
    effort = Effort(arguments.quick)
    about = describe()
    groups: dict[str, list[Line]] = {}
    broken = False
    for name in names:
        module, title = PARTS[name]
        print(f"{name} ...", file=sys.stderr, flush=True)
        lines = groups.setdefault(title, [])
        began = time.monotonic()
        try:
            for line in getattr(import_module(f"benchmarks.{module}"), f"measure_{name}")(effort):
                lines.append(line)
        except NotMeasured as why:
            lines.append(Line(name, note=f"not measured: {why}"))
        except Exception as error:
            broken = True
            lines.append(Line(name, note=f"broke: {type(error).__name__}: {error}"))
            if arguments.trace:
                raise
        effort.say(f"{name}: {time.monotonic() - began:.0f} s")
    about["load"] = f"{about['load']} before, {load()} after"
    if arguments.json:
        tables = {title: [line.as_json() for line in lines] for title, lines in groups.items()}
        print(json.dumps({"about": about, "lines": tables}, indent=2))
    else:
        print("; ".join(f"{what} {value}" for what, value in about.items()) + "\n")
        print(render(groups))
    return int(broken)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        choices=list(PARTS),
        help="measure this part; may be given several times: " + ", ".join(PARTS),
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds: minutes, wider spreads")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--trace", action="store_true", help="stop at what breaks, with its trace")
    return parser.parse_args()


def describe() -> dict[str, str]:
    """Return what the figures were taken on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"Python": platform.python_version()}
    for name, shown in (
        ("apache-airflow", "Airflow"),
        ("apache-airflow-providers-cncf-kubernetes", "its Kubernetes provider"),
        ("kubernetes", "kubernetes"),
    ):
        try:
            found[shown] = version(name)
        except PackageNotFoundError:
            found[shown] = "none"
    found["processors"] = str(os.cpu_count())
    found["load"] = load()
    return found


def load() -> str:
    """Return the load of the last minute."""
    return f"{os.getloadavg()[0]:.2f}"


if __name__ == "__main__":
    sys.exit(main())

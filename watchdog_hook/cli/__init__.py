"""The command line: what a person or a program may ask beside the running scheduler. It changes nothing."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from rich_argparse import RichHelpFormatter

FINE, PROBLEM, USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 fine, 1 a problem was found, 2 usage."""
    parser = build_parser()
    asked = parser.parse_args(arguments)
    try:
        if asked.command == "doctor":
            from watchdog_hook.cli import doctor

            return doctor.run(asked.incident_dir, as_json=asked.json)
        from watchdog_hook.cli import incidents

        directory = incidents.directory(asked.incident_dir)
        if asked.command == "incidents":
            return incidents.show_all(directory, as_json=asked.json)
        return incidents.show_one(directory, asked.incident, as_json=asked.json)
    except UsageError as error:
        parser.exit(USAGE, f"{parser.prog}: {error}\n")
    except BrokenPipeError:
        # The reader, `head` say, has seen enough. Nothing is left to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE


class UsageError(Exception):
    """What was asked for cannot be meant. Says what can."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print JSON for a program")
    shared.add_argument(
        "--incident-dir",
        metavar="DIR",
        help="where the incidents are; without it, as Airflow's configuration says",
    )
    parser = argparse.ArgumentParser(
        prog="watchdog-hook",
        description="Look at what watchdog_hook saw, and at whether it can do its work here.",
        epilog="Exit codes: 0 fine, 1 a problem was found, 2 usage.",
        formatter_class=RichHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    verbs.add_parser(
        "doctor",
        parents=[shared],
        formatter_class=RichHelpFormatter,
        help="check settings, rights and levers",
        description=(
            "Say which settings are in force and where each came from, whether the watchdog would arm "
            "here, and what it could do. Run it where the scheduler runs, as the same user."
        ),
    )
    verbs.add_parser(
        "incidents",
        parents=[shared],
        formatter_class=RichHelpFormatter,
        help="list the incidents",
        description="List the incidents that are kept, the newest last.",
    )
    show = verbs.add_parser(
        "show",
        parents=[shared],
        formatter_class=RichHelpFormatter,
        help="show one incident",
        description="Show one incident in full. Of a damaged one, what can be read.",
    )
    show.add_argument(
        "incident", metavar="INCIDENT", help="its id, the beginning of its id, or latest"
    )
    return parser

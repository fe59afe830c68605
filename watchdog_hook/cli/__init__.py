"""The command line: what a person or a program may ask beside the running scheduler. It changes nothing."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from rich_argparse import RichHelpFormatter

FINE, PROBLEM, USAGE = 0, 1, 2
AS_JSON = "print JSON for a program"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 fine, 1 a problem was found, 2 usage."""
    parser = build_parser()
    asked = parser.parse_args(arguments)
    if asked.command == "show" and asked.force and asked.html is None:
        parser.error("--force says that --html FILE may be overwritten, and there is no --html")
    try:
        if asked.command == "doctor":
            from watchdog_hook.cli import doctor

            return doctor.run(asked.incident_dir, as_json=asked.json)
        from watchdog_hook.cli import incidents

        directory = incidents.directory(asked.incident_dir)
        if asked.command == "incidents":
            return incidents.show_all(directory, each=asked.all, as_json=asked.json)
        stored = incidents.find(directory, asked.incident)
        if asked.html is not None:
            from watchdog_hook.cli import page

            return page.show(stored, asked.html, force=asked.force)
        from watchdog_hook.cli import show

        return show.show_one(stored, as_json=asked.json, as_dumped=asked.dump)
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
    doctor = verbs.add_parser(
        "doctor",
        parents=[shared],
        formatter_class=RichHelpFormatter,
        help="check settings, rights and levers",
        description=(
            "Say which settings are in force and where each came from, whether the watchdog would arm "
            "here, and what it could do. Run it where the scheduler runs, as the same user."
        ),
    )
    doctor.add_argument("--json", action="store_true", help=AS_JSON)
    listing = verbs.add_parser(
        "incidents",
        parents=[shared],
        formatter_class=RichHelpFormatter,
        help="list the incidents",
        description=(
            "List the incidents that are kept: those of one kind in one place together, with how often, "
            "since when and how long, the newest last."
        ),
    )
    listing.add_argument("--all", action="store_true", help="list each incident in a line")
    listing.add_argument("--json", action="store_true", help=f"{AS_JSON}, each incident by itself")
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
    form = show.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help=AS_JSON)
    form.add_argument(
        "--dump", action="store_true", help="print dump.txt as it was written, later dumps too"
    )
    form.add_argument(
        "--html",
        metavar="FILE",
        help=(
            "write one page for a browser that needs nothing else; - is standard output. "
            "A file that is there stays as it is"
        ),
    )
    show.add_argument("--force", action="store_true", help="with --html: overwrite FILE")
    return parser

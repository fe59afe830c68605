"""
The command line: what a person or a program may ask beside the running scheduler. It changes nothing; `dump` asks
the scheduler's own hook for one.

A probe starts it every few seconds: what only some verbs need is imported by them.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence

FINE, PROBLEM, USAGE = 0, 1, 2
AS_JSON = "print JSON for a program"
CODES = "Exit codes: 0 fine, 1 a problem was found, 2 usage."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 fine, 1 a problem was found, 2 usage."""
    parser = build_parser()
    asked = parser.parse_args(arguments)
    if asked.command == "show" and asked.force and asked.html is None:
        parser.error("--force says that --html FILE may be overwritten, and there is no --html")
    try:
        if asked.command == "live":
            from watchdog_hook.cli import live

            silence = live.MAX_SILENCE if asked.max_silence is None else asked.max_silence
            return live.run(asked.pid, silence, as_json=asked.json)
        if asked.command == "dump":
            from watchdog_hook.cli import dump

            return dump.run(asked.pid, as_json=asked.json)
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


class _Parser(argparse.ArgumentParser):
    """Brings in colours once there is something to print with them: that costs more than a probe does."""

    def format_help(self) -> str:
        self._colour()
        return super().format_help()

    def format_usage(self) -> str:
        self._colour()
        return super().format_usage()

    def _colour(self) -> None:
        from rich_argparse import RichHelpFormatter

        self.formatter_class = RichHelpFormatter


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    shared = _Parser(add_help=False)
    shared.add_argument(
        "--incident-dir",
        metavar="DIR",
        help="where the incidents are; without it, as Airflow's configuration says",
    )
    parser = _Parser(
        prog="watchdog-hook",
        description="Look at what watchdog_hook saw, and at whether it can do its work here.",
        epilog=CODES,
    )
    verbs = parser.add_subparsers(
        # Without `prog` the usage is formatted here, to begin those of the verbs.
        prog=parser.prog,
        dest="command",
        metavar="COMMAND",
        required=True,
    )
    doctor = verbs.add_parser(
        "doctor",
        parents=[shared],
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
    _add_live(verbs)
    _add_dump(verbs)
    return parser


def _add_live(verbs: argparse._SubParsersAction[_Parser]) -> None:
    live = verbs.add_parser(
        "live",
        help="tell whether the loop turns; for a probe",
        description=(
            "Tell in one line whether a watched loop turns, and of a stall what the hook found. For a Kubernetes"
            " exec probe: it reads the memory that the hook shares, and imports no Airflow. Of several watched"
            " loops, in one process or more, each has a line, the worst first, and all have to turn. A process"
            " that another of them started is that one's to look after."
        ),
        epilog=(
            "Exit codes: 0 each turns, 1 one has been silent for longer than is allowed, or nothing is watched"
            " (the line says which), 2 usage."
        ),
    )
    live.add_argument(
        "--pid", type=_pid, metavar="PID", help="the process; without it, what is watched here"
    )
    live.add_argument(
        "--max-silence",
        type=_seconds,
        metavar="SECONDS",
        help=(
            "silence of the loop that is a failure; 240 by default. By then the hook, with its defaults, has"
            " ended what it can end: a call silent for 60 s, one open for 180 s. With another interrupt_after"
            " take four times that. Starting may take startup_grace"
        ),
    )
    live.add_argument("--json", action="store_true", help=AS_JSON)


def _add_dump(verbs: argparse._SubParsersAction[_Parser]) -> None:
    dump = verbs.add_parser(
        "dump",
        help="have a dump made now, and print it",
        description=(
            "Ask the hook of a running process for a full dump, and print it: one for each loop that is watched"
            " there. A healthy loop goes on, and the dump says that it is healthy. Where the hook does not answer,"
            " faulthandler is asked for the main thread's stack, if that process has left a signal for it; then"
            " py-spy, if it is here, also of a process without the hook."
        ),
        epilog=(
            "Exit codes: 0 there are stacks, 1 of a loop there are none (standard error says why), 2 usage."
        ),
    )
    dump.add_argument(
        "--pid",
        type=_pid,
        metavar="PID",
        help="the process; without it, the one that is watched here",
    )
    dump.add_argument(
        "--json",
        action="store_true",
        help=f"{AS_JSON}: incident.json, or the stacks from outside; of several loops a list",
    )


def _pid(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 1 << 31:
        raise argparse.ArgumentTypeError(f"{text!r} is no process id")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds

"""The console that the verbs print to, and texts that cannot harm it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from rich.console import Console


def make_console() -> Console:
    """Return the console of standard output: without colours where it is no terminal, or NO_COLOR is set."""
    terminal = sys.stdout.isatty()
    return Console(
        # A pipe has no width: rich would fold a table at 80 columns, and no program could read it.
        width=None if terminal else 240,
        highlight=False,
        # By itself rich keeps bold and dim under NO_COLOR, which are escape sequences all the same.
        color_system=None if os.environ.get("NO_COLOR") else "auto",
    )


@contextlib.contextmanager
def stdout_is_stderr() -> Iterator[None]:
    """Send what Airflow and its plugins print while they load to standard error, not into our JSON."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def visible(text: object) -> str:
    """
    Return a text with everything that is not printable as its escape, line breaks and tabs aside.

    A thread's name comes from outside: it must not move the cursor, turn the direction of writing round,
    or be what no encoding can write.
    """
    given = str(text)
    if given.isprintable():
        return given
    return "".join(
        char if char.isprintable() or char in "\n\t" else _escape(char) for char in given
    )


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")

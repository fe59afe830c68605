"""Stacks that others took, as values: faulthandler's text, and what py-spy prints."""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, which takes memory to import
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    # As incident.json has it: ident, native_id, name, and frames (function, file, line), innermost first.
    Stack = dict[str, Any]

MOST_FRAMES = 300
SIGNALLED = "by signal"  # what one thread wrote of itself
CURRENT = "current"  # of all threads, the one that wrote them


def of_faulthandler(text: str) -> list[Stack]:
    """Return the stacks in the order of the text; the names SIGNALLED and CURRENT tell who wrote them."""
    found: list[Stack] = []
    for line in text.splitlines():
        if line.startswith(("Thread 0x", "Current thread 0x")):
            digits = line.partition("0x")[2].partition(" ")[0]
            ident = int(digits, 16) if set(digits) <= set("0123456789abcdef") and digits else 0
            name = CURRENT if line.startswith("C") else "?"
            found.append({"ident": ident, "native_id": None, "name": name, "frames": []})
        elif line.startswith("Stack (most recent call first)"):
            found.append({"ident": 0, "native_id": None, "name": SIGNALLED, "frames": []})
        elif line.startswith('  File "') and found:
            file, _, rest = line[8:].rpartition('", line ')
            number, _, function = rest.partition(" in ")
            line_number = int(number) if number.isdecimal() else 0
            found[-1]["frames"].append({"function": function, "file": file, "line": line_number})
    return [stack for stack in found if stack["frames"]]


def of_py_spy(text: str) -> list[Stack]:
    """Return the stacks of py-spy's JSON, frames only: neither values nor the command line. Raises ValueError."""
    import json

    found = []
    for thread in json.loads(text):
        stack = {
            "ident": thread.get("thread_id") or 0,
            "native_id": thread.get("os_thread_id"),
            "name": thread.get("thread_name") or "?",
            "frames": [_frame(frame) for frame in thread.get("frames", ())[:MOST_FRAMES]],
        }
        if thread.get("owns_gil"):
            stack["name"] += " (holds the interpreter)"
        found.append(stack)
    return found


def first(stacks: Iterable[Stack], native_id: int) -> list[Stack]:
    """Return the stacks with that of one thread in front."""
    return sorted(stacks, key=lambda stack: stack["native_id"] != native_id)


def folded(found: Iterable[Stack]) -> list[str]:
    """Return stacks as lines, equal ones once with their count."""
    groups: dict[str, int] = {}
    for stack in found:
        body = "\n".join(lines(stack)[1:])
        groups[body] = groups.get(body, 0) + 1
    shown = []
    for body, count in groups.items():
        shown += ["1 thread:" if count == 1 else f"{count} threads:", *body.split("\n")]
    return shown


def lines(stack: Stack) -> list[str]:
    """Return a stack as a report shows it: a heading, and a line for each frame."""
    return [
        f"{stack['name']}, thread {stack['native_id'] or hex(stack['ident'])}, innermost frame first:",
        *(f"  {frame['function']} ({frame['file']}:{frame['line']})" for frame in stack["frames"]),
    ]


def _frame(frame: dict[str, Any]) -> dict[str, object]:
    return {
        "function": str(frame.get("name") or "?"),
        "file": str(frame.get("filename") or ""),
        "line": int(frame.get("line") or 0),
    }

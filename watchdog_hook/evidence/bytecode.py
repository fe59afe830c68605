"""
Where a code object takes and gives back locks, by its instructions.

Code alone: no source is read (it may lie on a file system that hangs), and nothing is run. A lock is known by
the path to it: `("local", "self", "_lock")` for `self._lock`, `("global", "LOCK")` for `LOCK`, `("name", "LOCK")`
for that in a module's or class's own code. Anything less plain (`locks[key]`, `lock if a else b`) has no path, and
nothing is said of it.
"""

from __future__ import annotations

import dis
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from watchdog_hook.evidence import blocks
from watchdog_hook.evidence.blocks import Block, instructions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

Path = tuple[str, ...]

_METHODS = frozenset({"acquire", "release", "__enter__", "_acquire_restore", "wait", "join"})
_WITH = ("BEFORE_WITH", "SETUP_WITH")  # from 3.11 on, and in 3.10
_WITH_NUMBERS = frozenset(dis.opmap[name] for name in _WITH if name in dis.opmap)
_GLOBALS_SHIFTED = sys.version_info >= (3, 11)  # the lowest bit of the argument says something else
_METHODS_SHIFTED = sys.version_info >= (3, 12)


@dataclass(frozen=True, slots=True)
class Asked:
    """A `with`, or a call of a method of interest."""

    offset: int
    path: Path  # of the object
    method: str  # "with", or one of _METHODS
    plain: bool = False  # without arguments, and what it returns is dropped


@dataclass(frozen=True, slots=True)
class Sites:
    """What one code object asks of locks."""

    at: dict[int, Asked]  # by the offset of the instruction, and of the caches behind it
    inside: tuple[Block, ...]  # from, to (not included), where an exception would go
    withs: dict[int, Path]  # by where an exception in the block would go


def concerns_locks(code: CodeType) -> bool:
    """Say whether code may take, hold or give back a lock: quickly, and sometimes wrongly yes."""
    return not _METHODS.isdisjoint(code.co_names) or not _WITH_NUMBERS.isdisjoint(code.co_code[::2])


def sites(code: CodeType) -> Sites:
    """Return what a code object asks of locks. Costs about a microsecond for each of its instructions."""
    at: dict[int, Asked] = {}
    for asked, offsets in _asked(code):
        at.update(dict.fromkeys(offsets, asked))
    inside = blocks.blocks_of(code)
    return Sites(at, inside, _withs(at, inside))


def held(found: Sites, offset: int) -> set[Path]:
    """Return the paths of the locks that code holds at an instruction, unless it gave them away elsewhere."""
    paths = _between(found, offset)
    targets = blocks.targets(found.inside, offset)
    return paths.union(found.withs[target] for target in targets if target in found.withs)


def _between(found: Sites, offset: int) -> set[Path]:
    """Return the paths that were acquired before an instruction and are released after it only."""
    asked = sorted(set(found.at.values()), key=lambda each: each.offset)
    paths: set[Path] = set()
    for each in asked:
        if each.offset >= offset:
            break
        if each.method == "acquire" and each.plain:
            paths.add(each.path)
        elif each.method == "release":
            paths.discard(each.path)
    later = {each.path for each in asked if each.offset > offset and each.method == "release"}
    return paths & later


# --- what is asked ------------------------------------------------------------------------------------


def _asked(code: CodeType) -> Iterator[tuple[Asked, list[int]]]:
    """Give each `with` and each call of a method of interest, with the offsets at which a frame in it stands."""
    variables, cells = _variables(code)
    labels = frozenset(dis.findlabels(code.co_code))  # type: ignore[arg-type]  # bytes, as before 3.13
    stack = _Stack()
    pending: tuple[Asked, list[int]] | None = None
    before: list[int] = []  # PRECALL of 3.11: the call may already run there
    for offset, name, argument in instructions(code):
        if name == "CACHE":
            if pending is not None:
                pending[1].append(offset)
            elif before:
                before.append(offset)
            continue
        if pending is not None:
            asked, offsets = pending
            plain = asked.plain and name == "POP_TOP"
            yield Asked(asked.offset, asked.path, asked.method, plain), offsets
            pending = None
        if offset in labels:
            stack.forget()
        if name == "PRECALL":
            before = [offset]
            continue
        if name in _WITH:
            path = stack.pop()
            stack.push(None, None)
            if path is not None:
                pending = (Asked(offset, path, "with"), [offset])
        elif name.startswith("CALL"):
            path = stack.call(name, argument)
            if path is not None and len(path) > 2 and path[-1] in _METHODS:
                asked = Asked(offset, path[:-1], path[-1], plain=not argument)
                pending = (asked, [*before, offset])
        else:
            stack.follow(code, name, argument, variables, cells)
        before = []
    if pending is not None:
        yield pending


class _Stack:
    """The interpreter's stack of values, each as the path it is known by, or None."""

    def __init__(self) -> None:
        self._items: list[Path | None] = []

    def forget(self) -> None:
        """Know nothing of it any more: another way may lead here."""
        self._items.clear()

    def push(self, *items: Path | None) -> None:
        self._items.extend(items)

    def pop(self, count: int = 1) -> Path | None:
        """Take some away; return the last of these."""
        found = None
        for _ in range(count):
            found = self._items.pop() if self._items else None
        return found

    def call(self, name: str, count: int) -> Path | None:
        """Follow a call with so many arguments; return the path of what is called."""
        if name in ("CALL_FUNCTION_KW", "CALL_KW"):
            count += 1  # the names of the arguments
        elif name not in ("CALL", "CALL_METHOD", "CALL_FUNCTION"):
            self.forget()
            return None
        self.pop(count)
        called = self.pop()
        # Around what is called lies its `self`, or nothing: on which side depends on the version.
        if not name.startswith("CALL_FUNCTION"):
            called = self.pop() or called
        self.push(None)
        return called

    def follow(
        self, code: CodeType, name: str, argument: int, variables: list[str], cells: list[str]
    ) -> None:
        """Follow any other instruction."""
        if name.startswith("LOAD_FAST"):
            if name.count("LOAD_FAST") == 2:
                self.push(("local", variables[argument >> 4]), ("local", variables[argument & 15]))
            else:
                self.push(("local", variables[argument]))
        elif name in ("LOAD_DEREF", "LOAD_CLASSDEREF"):
            self.push(("local", cells[argument]))
        elif name == "LOAD_NAME":
            self.push(("name", code.co_names[argument]))
        elif name == "LOAD_GLOBAL":
            self.push(("global", code.co_names[argument >> 1 if _GLOBALS_SHIFTED else argument]))
            if _GLOBALS_SHIFTED and argument & 1:
                self.push(None)
        elif name in ("LOAD_ATTR", "LOAD_METHOD"):
            shifted = _METHODS_SHIFTED and name == "LOAD_ATTR"
            base = self.pop()
            attribute = code.co_names[argument >> 1 if shifted else argument]
            self.push(None if base is None else (*base, attribute))
            if name == "LOAD_METHOD" or (shifted and argument & 1):
                self.push(None)
        elif name in ("LOAD_CONST", "PUSH_NULL"):
            self.push(None)
        elif name in ("POP_TOP", "STORE_FAST", "STORE_NAME", "STORE_GLOBAL", "STORE_DEREF"):
            self.pop()
        elif name not in ("NOP", "RESUME", "KW_NAMES", "MAKE_CELL", "COPY_FREE_VARS"):
            self.forget()


def _variables(code: CodeType) -> tuple[list[str], list[str]]:
    """Return the names that LOAD_FAST and LOAD_DEREF count through."""
    cells = [*code.co_cellvars, *code.co_freevars]
    if not blocks.TABLES:
        return list(code.co_varnames), cells
    # From 3.11 on all are in one row; a parameter that is a cell stands among the parameters.
    own = [name for name in code.co_cellvars if name not in code.co_varnames]
    row = [*code.co_varnames, *own, *code.co_freevars]
    return row, row


def _withs(at: dict[int, Asked], inside: tuple[Block, ...]) -> dict[int, Path]:
    """Return the path of each `with`, by where an exception in its block would go."""
    found: dict[int, Path] = {}
    starts: dict[int, int] = {}
    for start, _, target in inside:
        starts[target] = min(start, starts.get(target, start))
    for target, start in starts.items():
        asked = at.get(start - 2)  # the block begins with the next instruction
        if asked is not None and asked.method == "with":
            found[target] = asked.path
    return found

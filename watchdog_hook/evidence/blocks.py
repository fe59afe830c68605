"""The instructions of a code object, and the `with` and `try` blocks around each of them."""

from __future__ import annotations

import dis
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

# From, to (not included), and where an exception in it would go: offsets in bytes.
Block = tuple[int, int, int]

TABLES = sys.version_info >= (3, 11)  # of exceptions; in 3.10 instructions begin and end a block
_DEPTH = 50  # of blocks in one another


def instructions(code: CodeType) -> Iterator[tuple[int, str, int]]:
    """Give the offset, name and argument of each instruction, and of the caches behind it."""
    # Not dis.get_instructions: it looks up lines and positions and takes the repr of every constant.
    raw, extended = code.co_code, 0
    for offset in range(0, len(raw), 2):
        number, argument = raw[offset], raw[offset + 1] | extended
        name = dis.opname[number]
        extended = argument << 8 if name == "EXTENDED_ARG" else 0
        if name != "EXTENDED_ARG":
            yield offset, name, argument


def blocks_of(code: CodeType) -> tuple[Block, ...]:
    """Return the blocks of a code object. Those of one `with` have one target, and may be several."""
    return tuple(_exception_table(code) if TABLES else _opened(code))


def targets(inside: tuple[Block, ...], offset: int) -> Iterator[int]:
    """Give where an exception at this offset would go, and where from there, outwards."""
    for _ in range(_DEPTH):
        # In 3.10 the blocks lie in one another; from 3.11 on an instruction is in one at most.
        block = max((each for each in inside if each[0] <= offset < each[1]), default=None)
        if block is None:
            return
        yield block[2]
        # What stands where the exception would go is itself inside the next outer block.
        offset = block[2] if TABLES else block[0] - 1


def _exception_table(code: CodeType) -> Iterator[Block]:
    """Read co_exceptiontable, as Objects/exception_handling_notes.txt (3.11 and 3.12) describes it."""
    table: Iterator[int] = iter(getattr(code, "co_exceptiontable", b""))

    def number() -> int:
        byte = next(table)
        value = byte & 63
        while byte & 64:
            byte = next(table)
            value = value << 6 | byte & 63
        return value

    try:
        while True:
            start, length, target = number() * 2, number() * 2, number() * 2
            number()  # depth of the stack
            yield start, start + length, target
    except StopIteration:
        return


def _opened(code: CodeType) -> Iterator[Block]:
    """Give the blocks of 3.10: from the instruction that opens one to its handler, which stands behind it."""
    for offset, name, argument in instructions(code):
        if name in ("SETUP_WITH", "SETUP_FINALLY", "SETUP_ASYNC_WITH"):
            target = offset + 2 + 2 * argument
            yield offset + 2, target, target

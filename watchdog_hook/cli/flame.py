"""Stacks as a flame graph: boxes whose width is the share of samples that passed through a frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from watchdog_hook.core.model import Frame
from watchdog_hook.core.owner import outer, owner
from watchdog_hook.core.text import short_path

Stacks = Sequence[tuple[tuple[Frame, ...], int]]  # innermost frame first, and how often

LEAST = 0.001  # share of the samples below which a frame is left out: nobody could see it
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Box:
    """One frame with the same callers, in all samples that passed through it."""

    function: str
    place: str  # file:line, with each line that was seen
    owner: str
    depth: int  # 0 stands for all samples
    left: float  # shares of all samples, 0 to 1
    width: float
    count: int  # samples
    own: int  # those whose innermost frame it is
    elsewhere: float | None  # its share in the other graph; None: there is no other one


@dataclass(frozen=True, slots=True)
class Flame:
    """A flame graph, the callers of everything first."""

    boxes: tuple[Box, ...]
    samples: int
    depth: int  # of the deepest box
    outer: int  # outermost frames that are left out: they only started the loop


@dataclass(frozen=True, slots=True)
class Pair:
    """The graph of a stall and the one of the healthy loop, each with the other's shares."""

    stall: Flame | None
    normal: Flame | None
    parting: str | None  # what the stall does that the healthy loop does not, in a sentence


@dataclass(slots=True)
class _Node:
    frame: Frame
    count: int = 0
    own: int = 0
    lines: set[int] = field(default_factory=set)
    children: dict[Key, _Node] = field(default_factory=dict)


def pair(stall: Stacks, normal: Stacks) -> Pair:
    """Return both graphs, without the outermost frames that all stacks of both have in common."""
    stall, normal = _counted(stall), _counted(normal)
    cut = _common([frames for frames, _ in (*stall, *normal)], together=bool(normal))
    left, right = _tree(stall, cut), _tree(normal, cut)
    return Pair(
        _flame(left, right if normal else None, cut) if stall else None,
        _flame(right, left if stall else None, cut) if normal else None,
        _parting(left, right) if stall and normal else None,
    )


def _counted(stacks: Stacks) -> list[tuple[tuple[Frame, ...], int]]:
    return [(frames, count) for frames, count in stacks if frames and count > 0]


def _common(stacks: list[tuple[Frame, ...]], *, together: bool) -> int:
    """Return how many outermost frames need not be shown: those that started Airflow, or led to the loop."""
    if not stacks:
        return 0
    started = min(outer(frames) for frames in stacks)
    if not together:
        return started
    shared = 0
    for frames in zip(*(reversed(frames) for frames in stacks), strict=False):
        if len({_key(frame) for frame in frames}) > 1:
            break
        shared += 1
    # The last one stays: it is the loop itself.
    return max(started, shared - 1)


def _key(frame: Frame) -> Key:
    return frame.function, frame.file


def _tree(stacks: Stacks, cut: int) -> _Node:
    root = _Node(Frame("all", "", 0))
    for frames, count in stacks:
        node = root
        node.count += count
        for frame in frames[len(frames) - cut - 1 :: -1] if cut < len(frames) else ():
            node = node.children.setdefault(_key(frame), _Node(frame))
            node.count += count
            node.lines.add(frame.line)
        node.own += count
    return root


def _flame(root: _Node, other: _Node | None, cut: int) -> Flame:
    """Lay the tree out. Without recursion: a stack may be as deep as Python allows."""
    total = root.count
    boxes: list[Box] = []
    todo: list[tuple[_Node, _Node | None, int, int]] = [(root, other, 0, 0)]
    while todo:
        node, twin, depth, left = todo.pop()
        elsewhere = None if other is None else (twin.count / other.count if twin else 0.0)
        boxes.append(_box(node, depth, left / total, node.count / total, elsewhere))
        for key, child in sorted(node.children.items()):
            if child.count >= LEAST * total:
                todo.append((child, twin.children.get(key) if twin else None, depth + 1, left))
            left += child.count
    boxes.sort(key=lambda box: (box.depth, box.left))
    return Flame(tuple(boxes), total, boxes[-1].depth, cut)


def _box(node: _Node, depth: int, left: float, width: float, elsewhere: float | None) -> Box:
    file = node.frame.file
    lines = ", ".join(str(line) for line in sorted(node.lines)[:8])
    lines += ", …" if len(node.lines) > 8 else ""
    return Box(
        node.frame.function,
        f"{short_path(file)}:{lines}" if file else "",
        owner(file) if depth else "all",
        depth,
        left,
        width,
        node.count,
        node.own,
        elsewhere,
    )


def _parting(stall: _Node, normal: _Node) -> str:
    """Return where the stall's widest path leaves what the healthy loop was seen in."""
    node, twin, place = stall, normal, "the loop"
    while node.children:
        key, child = max(node.children.items(), key=lambda item: (item[1].count, item[0]))
        if key not in twin.children:
            share = twin.count / normal.count
            return (
                f"{_percent(share)} of {normal.count} healthy samples pass through {place};"
                f" none goes on into {child.frame.function}, where the stall is."
            )
        node, twin, place = child, twin.children[key], child.frame.function
    share = twin.count / normal.count
    return (
        f"The healthy loop is seen here too: {place} has {_percent(share)} of {normal.count}"
        " healthy samples. What is new is that it does not return."
    )


def _percent(share: float) -> str:
    return "under 1 %" if 0 < share < 0.01 else f"{share:.0%}".replace("%", " %")


def of_samples(samples: Iterable[tuple[Frame, ...]]) -> Stacks:
    """Return equal stacks once, with their number."""
    counts: dict[tuple[Frame, ...], int] = {}
    for frames in samples:
        counts[frames] = counts.get(frames, 0) + 1
    return list(counts.items())

"""Every thread's stack, by `sys._current_frames`: code and lines only, never a value."""

from __future__ import annotations

import collections
import os
import sys
import threading
from types import CodeType, FrameType

from watchdog_hook.core.model import Frame, ThreadStack

OURS = "watchdog-hook-"
LINUX = sys.platform == "linux"
FRAMES_KEPT = 200  # of one stack; a deeper one keeps both ends

_Seen = dict[tuple[CodeType, int], Frame]


def capture(first: int | None = None) -> tuple[ThreadStack, ...]:
    """
    Return the stack of every thread but the caller's, that of thread `first` in front.

    Without our own throw-away threads either: they come and go with every line we log.

    Plain Python on purpose: the interpreter lets other threads run between its instructions, so a process
    with a thousand threads is not held up by this walk.
    """
    names = known_threads()
    tops = sys._current_frames()
    tops.pop(threading.get_ident(), None)
    # Equal frames become one value: a thousand idle pool threads cost a few values, and little work for the
    # garbage collector.
    seen: _Seen = {}
    stacks: list[ThreadStack] = []
    for ident in sorted(tops, key=lambda ident: ident != first):
        name, native_id = names.get(ident, ("?", None))
        if name.startswith(OURS):
            tops.pop(ident)
            continue
        # Popped, so that no frame outlives its own turn: the last reference to a frame keeps its values
        # alive, and would run their destructors here.
        stacks.append(ThreadStack(ident, name, _walk(tops.pop(ident), seen), native_id))
    return tuple(stacks)


def stack_of(ident: int) -> tuple[Frame, ...]:
    """Return the stack of one thread, innermost frame first; nothing if there is no such thread."""
    top = top_frame(ident)
    return () if top is None else _walk(top, {})


def top_frame(ident: int) -> FrameType | None:
    """Return a thread's innermost frame. Let go of it soon: it keeps values alive."""
    return sys._current_frames().get(ident)


def known_threads() -> dict[int, tuple[str, int | None]]:
    """Return name and native id by thread ident, without taking a lock of `threading`."""
    # threading.enumerate() takes a lock that a stuck or forked thread may hold for ever.
    active: dict[int, threading.Thread] = getattr(threading, "_active", {})
    for _ in range(10):
        try:
            threads = dict(active)
        except RuntimeError:  # it changed while it was copied
            continue
        return {ident: (_name(thread), _native_id(thread)) for ident, thread in threads.items()}
    return {}


def frame_of(frame: FrameType) -> Frame:
    """Return a live frame as a value."""
    return _value(frame.f_code, frame.f_lineno)


def _name(thread: threading.Thread) -> str:
    # The attribute, not the property: a subclass may have overridden `name`.
    name = getattr(thread, "_name", None)
    return name if isinstance(name, str) else "?"


def _native_id(thread: threading.Thread) -> int | None:
    # In a forked child it is still the parent's (CPython 3.10 to 3.13). On Linux the main thread has the number
    # of its process.
    if LINUX and thread is getattr(threading, "_main_thread", None):
        return os.getpid()
    native_id = getattr(thread, "_native_id", None)
    return native_id if isinstance(native_id, int) else None


def _walk(top: FrameType, seen: _Seen) -> tuple[Frame, ...]:
    inner: list[Frame] = []
    outer: collections.deque[Frame] = collections.deque(maxlen=FRAMES_KEPT // 2)
    depth = 0
    frame: FrameType | None = top
    del top
    while frame is not None:
        # f_lineno is None for a moment in a frame that is just being entered.
        key = (frame.f_code, frame.f_lineno or frame.f_code.co_firstlineno)
        value = seen.get(key)
        if value is None:
            value = seen[key] = _value(*key)
        if depth < FRAMES_KEPT // 2:
            inner.append(value)
        else:
            outer.append(value)
        depth += 1
        frame = frame.f_back
    if left_out := depth - len(inner) - len(outer):
        inner.append(Frame(f"... {left_out} frames left out ...", "", 0))
    return (*inner, *outer)


def _value(code: CodeType, line: int | None) -> Frame:
    function = getattr(code, "co_qualname", None) or code.co_name  # qualified from Python 3.11 on
    return Frame(function, code.co_filename, line or code.co_firstlineno)

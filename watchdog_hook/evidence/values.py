"""
Looks at live objects of the host without running any code of theirs.

No property, no `__getattr__`, no `__repr__`, no `__eq__`: any of them may block, take the very lock that is stuck,
or change something. What could only be had by running such code counts as not there.
"""

from __future__ import annotations

import sys
import threading
import types
from typing import TYPE_CHECKING, Any

from watchdog_hook.evidence import process

if TYPE_CHECKING:
    from collections.abc import Mapping

# Of `type` itself, so that no metaclass has a say.
_mro = type.__dict__["__mro__"].__get__
_namespace = type.__dict__["__dict__"].__get__
_name = type.__dict__["__qualname__"].__get__

_NOTHING: Any = object()
_SLOT = types.MemberDescriptorType
# From 3.13 on, a frame's locals are looked at where they are (PEP 667). Before, `f_locals` copies them into a
# dictionary that belongs to the frame.
_COPIES = sys.version_info < (3, 13)
_OWN_LOCALS = frozenset({"locals", "vars", "dir", "eval", "exec", "f_locals"})
_OPTIMIZED = 0x1  # of co_flags: variables are in slots, as in any function


def part(holder: object, name: str) -> Any:
    """Return an attribute that is stored in an object, its class or its slots; None when it is none of these."""
    kind = type(holder)
    if is_a(holder, type):
        return _stored(holder, name)
    entry = _of_class(kind, name)
    # Slots are read by C code that only looks. Other descriptors are somebody's code: property, function, proxy.
    if entry is not _NOTHING and type(entry) is not _SLOT and is_a_descriptor(entry):
        return None
    try:
        return object.__getattribute__(holder, name)
    except (AttributeError, TypeError):
        return None


def is_a(thing: object, kind: type) -> bool:
    """Say whether this is an instance of a class, without asking its `__class__`."""
    # `is`, for a metaclass may say what equals a class.
    return any(base is kind for base in _mro(type(thing)))


def is_a_descriptor(entry: object) -> bool:
    """Say whether reading this from a class would run code."""
    return _of_class(type(entry), "__get__") is not _NOTHING


def class_name(kind: type) -> str:
    """Return the name of a class without its module: "StreamHandler"."""
    return str(_name(kind)).rpartition(".")[2]


def full_name(kind: type) -> str:
    """Return the name of a class with its module: "logging.StreamHandler"."""
    module = _namespace(kind).get("__module__")
    return f"{module}.{_name(kind)}" if isinstance(module, str) else str(_name(kind))


def global_of(frame: types.FrameType, name: str) -> Any:
    """Return a global or built-in name of a frame; None when there is no such name."""
    try:
        found = dict.get(frame.f_globals, name, _NOTHING)
        return dict.get(frame.f_builtins, name) if found is _NOTHING else found
    except TypeError:  # code that was run with mappings of its own
        return None


def name_of(frame: types.FrameType, name: str) -> Any:
    """Return what a name means in the code of a module; None in that of a class, where it may mean its own."""
    return global_of(frame, name) if frame.f_locals is frame.f_globals else None


def local_of(frame: types.FrameType, name: str) -> Any:
    """
    Return a local variable of a frame of another thread; None when it is unbound, or not safely to be had.

    Before Python 3.13 the frame's dictionary is filled for this, and that could be noticed in four ways:
    a function that has called `locals()` holds that dictionary itself, and would see it change; it keeps values
    alive for as long as the function runs; while a trace function runs it is written back into the variables;
    and whoever iterates over it at that moment would fail. So frames that name `locals` or its like, and frames
    that are traced, are left alone, and the dictionary is emptied at once if nobody but the frame holds it.
    """
    code = frame.f_code
    if not code.co_flags & _OPTIMIZED:  # a class or a module: its variables may be any mapping
        return None
    if not _COPIES:
        return _peek(frame.f_locals, name)
    if not _OWN_LOCALS.isdisjoint(code.co_names) or _traced(frame):
        return None
    values = frame.f_locals
    found = values.get(name)
    # Held by the frame, by us, and by the call that counts.
    if sys.getrefcount(values) <= 3:
        values.clear()
    return found


def _peek(values: Mapping[str, Any], name: str) -> Any:
    try:
        return values[name]
    except KeyError:
        return None


def _traced(frame: types.FrameType) -> bool:
    hooks = (frame.f_trace, sys.gettrace(), getattr(threading, "_trace_hook", None))
    return any(hook is not None and not process.is_coverage(hook) for hook in hooks)


def _of_class(kind: type, name: str) -> Any:
    for base in _mro(kind):
        found = _namespace(base).get(name, _NOTHING)
        if found is not _NOTHING:
            return found
    return _NOTHING


def _stored(kind: Any, name: str) -> Any:
    """Return what a class has under a name, if it is a plain value."""
    found = _of_class(kind, name)
    return None if found is _NOTHING or is_a_descriptor(found) else found

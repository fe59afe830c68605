"""A patch is a thing that can be taken off."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from watchdog_hook.core.model import StuckCallTimeout
from watchdog_hook.failopen import FailOpen

Wrapper = Callable[[Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]], Any]


class Patches:
    """
    Wrappers around methods of classes that are not ours.

    Twice on is once on. Taking off restores the very object; where somebody wrapped us in the meantime,
    ours stays underneath and goes quiet.
    """

    def __init__(self, fail: FailOpen) -> None:
        self._fail = fail
        self._on: dict[tuple[type, str, str], tuple[Any, Any]] = {}
        self._own: list[tuple[Any, str, Any, Any]] = []
        # What wrapt asks at every call: no longer true once it is emptied. A function of ours would cost more
        # than all the rest of a wrapper.
        self._active: Any = []

    def wrap(self, owner: type, name: str, wrapper: Wrapper, purpose: str = "") -> bool:
        """
        Wrap the method where `owner` or the nearest class above defines it; False if none does.

        Wrappers of different purposes lie around one another, the later outside.
        """
        import wrapt

        for base in inspect.getmro(owner):
            if name in vars(base):
                break
        else:
            return False
        if (base, name, purpose) in self._on:
            return True
        original = vars(base)[name]
        wrapped = wrapt.FunctionWrapper(
            original, entry(f"{base.__name__}.{name}", wrapper, self._fail), enabled=self._active
        )
        self._on[base, name, purpose] = (original, wrapped)
        setattr(base, name, wrapped)
        self._active[:] = [True]
        return True

    def wrap_own(self, holder: Any, name: str, wrapper: Wrapper) -> bool:
        """Wrap a function that an object has as an attribute; False if it has none."""
        import wrapt

        original = getattr(holder, name, None)
        if original is None:
            return False
        full = f"{type(holder).__name__}.{name}"
        wrapped = wrapt.FunctionWrapper(
            original, entry(full, wrapper, self._fail), enabled=self._active
        )
        self._own.append((holder, name, original, wrapped))
        setattr(holder, name, wrapped)
        self._active[:] = [True]
        return True

    def remove(self) -> None:
        """Put every original back, in the opposite order."""
        self._active.clear()
        for holder, name, original, wrapped in reversed(self._own):
            if getattr(holder, name, None) is wrapped:
                setattr(holder, name, original)
        self._own.clear()
        for (owner, name, _), (original, wrapped) in reversed(list(self._on.items())):
            if vars(owner).get(name) is wrapped:
                setattr(owner, name, original)
        self._on.clear()

    def quiet(self) -> None:
        """Have every wrapper call straight through; for a forked child, where nothing is undone."""
        self._active.clear()


class HostCall:
    """The host's own call, as a wrapper makes it; remembers what came of it."""

    __slots__ = ("_call", "made", "raised", "result")

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call
        self.made = False
        self.raised: BaseException | None = None
        self.result: Any = None

    @property
    def __name__(self) -> str:
        return getattr(self._call, "__name__", "call")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.made, self.raised = True, None
        try:
            self.result = self._call(*args, **kwargs)
        except BaseException as error:
            self.raised = error
            raise
        return self.result


def entry(name: str, wrapper: Wrapper, fail: FailOpen) -> Wrapper:
    """
    Return a wrapper that fails open: a mistake of ours costs the host nothing, is said once, and puts it off.

    What the host's call raises passes, and so does a timeout of ours. Anything else came from us: then the
    host gets what its call returned or raised, or the call is made now.
    """

    def enter(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        if name in fail.off:
            return wrapped(*args, **kwargs)
        call = HostCall(wrapped)
        try:
            return wrapper(call, instance, args, kwargs)
        except StuckCallTimeout:
            raise
        except Exception as error:
            if error is call.raised:
                raise
            fail.broke(name)
            made, raised, result = call.made, call.raised, call.result
        finally:
            # Else the exception, its traceback and this frame would hold each other, and everything in the
            # host's frames would live until the garbage collector comes by.
            call.raised = call.result = None
        # Out here our mistake is no context of what the host gets.
        if not made:
            return wrapped(*args, **kwargs)
        if raised is None:
            return result
        try:
            raise raised
        finally:
            raised = None

    return enter

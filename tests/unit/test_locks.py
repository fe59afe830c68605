"""Who waits for whom in a circle: over values alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog_hook.core.locks import cycles
from watchdog_hook.core.model import Frame
from watchdog_hook.core.observed import LockWait

PLACE = Frame("f", "f.py", 1)


def wait(thread: str, owner: str | None, **more: int | None) -> LockWait:
    return LockWait(thread, f"lock of {owner}", PLACE, owner, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pairs", "circles"),
    [
        ([], []),
        ([("a", "b")], []),
        ([("a", None), ("b", "a")], []),
        ([("a", "a")], ["a"]),
        ([("a", "b"), ("b", "a")], ["ab"]),
        ([("x", "a"), ("a", "b"), ("b", "c"), ("c", "a"), ("y", "x")], ["abc"]),
        ([("a", "b"), ("b", "a"), ("c", "d"), ("d", "c"), ("e", "f")], ["ab", "cd"]),
    ],
)
def test_each_circle_is_found_once(pairs, circles):
    found = cycles(wait(*pair) for pair in pairs)

    assert ["".join(each.thread for each in circle) for circle in found] == circles


def test_threads_with_one_name_are_told_apart():
    waits = [
        wait("worker", "worker", ident=1, owner_ident=2),
        wait("worker", "worker", ident=2, owner_ident=3),
    ]

    assert cycles(waits) == ()
    closed = cycles([*waits, wait("worker", "worker", ident=3, owner_ident=1)])
    assert [[each.ident for each in circle] for circle in closed] == [[1, 2, 3]]


@given(st.dictionaries(st.integers(0, 8), st.one_of(st.none(), st.integers(0, 8))))
def test_in_a_circle_each_owner_is_the_next_thread(owners):
    waits = [
        wait(str(thread), None if owner is None else str(owner)) for thread, owner in owners.items()
    ]
    found = cycles(waits)
    inside = [each.thread for circle in found for each in circle]

    assert len(inside) == len(set(inside))
    for circle in found:
        for each, following in zip(circle, (*circle[1:], circle[0]), strict=True):
            assert each.owner == following.thread
    for each in waits:  # whoever comes back to itself is in one
        thread, steps = each.owner, 0
        while thread is not None and thread != each.thread and steps < 10:
            found_owner = owners.get(int(thread))
            thread, steps = None if found_owner is None else str(found_owner), steps + 1
        assert (thread == each.thread) == (each.thread in inside)

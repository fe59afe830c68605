"""Values to JSON and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog_hook.core.model import Frame
from watchdog_hook.core.observed import (
    Descriptor,
    Iteration,
    Observed,
    ProcessFacts,
    Tcp,
    ThreadInKernel,
    Wait,
)
from watchdog_hook.core.plain import from_plain, to_plain

SEEN = Observed(
    kernel=ThreadInKernel(
        7,
        "S",
        wait=Wait("poll", (1, 2), (Descriptor(4, "tcp", tcp=Tcp("ESTABLISHED", received_s=2.5)),)),
    ),
    process=ProcessFacts(pressure=(("memory", 1.5),), load=(0.1, 0.2, 0.3)),
    iterations=(Iteration(1.0, None, (("scheduling", 0.0, 1.0),)),),
    normal=(((Frame("f", "/x.py", 1),), 3),),
)


def through_json(value: object) -> Any:
    return json.loads(json.dumps(to_plain(value)))


def test_what_was_seen_comes_back():
    assert from_plain(Observed, through_json(SEEN)) == SEEN


def test_what_is_not_known_is_ignored_and_what_is_damaged_is_left_out():
    data = through_json(SEEN)
    data["later"] = {"schema": 9}
    data["kernel"]["wait"]["descriptors"].append("?")
    data["process"]["load"] = "heavy"
    data["iterations"].append({"phases": []})

    found = from_plain(Observed, data)
    assert found is not None
    assert found.kernel == SEEN.kernel
    assert found.process == ProcessFacts(pressure=(("memory", 1.5),))
    assert found.iterations == SEEN.iterations


@pytest.mark.parametrize("data", [None, 7, "text", [], {"native_id": "seven"}])
def test_what_is_no_such_value_is_none(data: object):
    assert from_plain(ThreadInKernel, data) is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda part: st.lists(part) | st.dictionaries(st.text(), part),
        max_leaves=20,
    )
)
def test_nothing_makes_it_raise(data: object):
    json.dumps(to_plain(data), allow_nan=False)
    for name in ("kernel", "process", "iterations", "normal"):
        from_plain(Observed, {name: data})

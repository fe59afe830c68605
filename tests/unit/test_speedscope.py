"""The flame graph's file keeps to https://www.speedscope.app/file-format-schema.json."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog_hook.core import speedscope
from watchdog_hook.core.model import Finding, Frame, Incident, Sample, Snapshot
from watchdog_hook.core.observed import Observed

READ = Frame("read", "/lib/ssl.py", 1099)
SEND = Frame("send", "/lib/http.py", 7)
LOOP = Frame("loop", "/airflow/job.py", 3)
LEFT_OUT = Frame("... 12 frames left out ...", "", 0)

Stacks = tuple[tuple[tuple[Frame, ...], int], ...]


def incident(samples: tuple[Sample, ...], normal: Stacks = ()) -> Incident:
    snapshot = Snapshot((), samples, observed=Observed(normal=normal))
    finding = Finding("unknown", "low", "It waits.")
    return Incident(
        "an-id", "here", 1, 0.0, 0.0, 30.0, None, finding, snapshot, versions={"watchdog_hook": "9"}
    )


def loaded(one: Incident) -> dict[str, Any]:
    """Load the file as its reader does, and check what its schema asks for."""
    data = json.loads("".join(speedscope.chunks(one)), parse_constant=pytest.fail)
    assert data["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    frames = data["shared"]["frames"]
    assert all(isinstance(frame["name"], str) for frame in frames)
    for profile in data["profiles"]:
        assert profile["type"] == "sampled"
        assert len(profile["samples"]) == len(profile["weights"])
        assert all(0 <= index < len(frames) for stack in profile["samples"] for index in stack)
        assert all(weight >= 0 for weight in profile["weights"])
        whole = profile["endValue"] - profile["startValue"]
        assert whole == pytest.approx(sum(profile["weights"]), abs=0.01)
    return data


def stacks(data: dict[str, Any], profile: int) -> list[list[str]]:
    names = [frame["name"] for frame in data["shared"]["frames"]]
    return [[names[index] for index in stack] for stack in data["profiles"][profile]["samples"]]


def test_a_stall_is_a_profile_in_seconds_its_stacks_outermost_first():
    data = loaded(incident((Sample(15.0, (READ, SEND, LOOP)), Sample(17.5, (SEND, LOOP)))))

    (stall,) = data["profiles"]
    assert (data["name"], data["exporter"]) == ("an-id", "watchdog_hook 9")
    assert (stall["name"], stall["unit"], stall["weights"]) == ("stall", "seconds", [2.5, 0.0])
    assert (stall["startValue"], stall["endValue"]) == (15.0, 17.5)
    assert stacks(data, 0) == [["loop", "send", "read"], ["loop", "send"]]


def test_frames_have_name_file_and_line_and_each_is_there_once():
    data = loaded(incident((Sample(15.0, (READ, LOOP)), Sample(16.0, (READ, LEFT_OUT, LOOP)))))

    assert data["shared"]["frames"] == [
        {"name": "read", "file": "/lib/ssl.py", "line": 1099},
        {"name": "loop", "file": "/airflow/job.py", "line": 3},
        {"name": "... 12 frames left out ..."},
    ]


def test_the_healthy_picture_is_a_second_profile_of_counts():
    data = loaded(incident((Sample(15.0, (READ, LOOP)),), (((SEND, LOOP), 7), ((LOOP,), 2))))

    stall, normal = data["profiles"]
    assert stall["name"] == "stall"
    assert (normal["name"], normal["unit"], normal["weights"]) == ("normal", "none", [7, 2])
    assert stacks(data, 1) == [["loop", "send"], ["loop"]]


def test_no_piece_holds_up_others_for_long():
    """However many stacks: a piece is a frame, a stack or the weights."""
    deep = [
        tuple(Frame(f"f{n}", "/x.py", n * 100 + line) for line in range(40)) for n in range(240)
    ]
    samples = tuple(Sample(float(n), frames) for n, frames in enumerate(deep))
    pieces = list(speedscope.chunks(incident(samples, tuple((frames, 1) for frames in deep))))

    assert len(pieces) > 240 * 40
    assert max(map(len, pieces)) < 4096


FRAMES = st.lists(st.builds(Frame, st.text(), st.text(), st.integers(0, 9)), max_size=4).map(tuple)


@given(
    st.lists(st.builds(Sample, st.floats(0, 1e6), FRAMES), max_size=4).map(tuple),
    st.lists(st.tuples(FRAMES, st.integers(1, 99)), max_size=3).map(tuple),
)
def test_whatever_was_sampled_it_can_be_loaded(samples, normal):
    data = loaded(incident(samples, normal))

    assert len(data["profiles"][0]["samples"]) == len(samples)
    assert len(data["profiles"]) == (2 if normal else 1)

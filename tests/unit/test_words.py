"""The sentinel's few lines of text are those of the watchdog's log, and stacks are read as they were written."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog_hook.core import text
from watchdog_hook.sentinel import stacks, words

values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(min_value=-1e9, max_value=1e9)
    | st.sampled_from([math.inf, -math.inf, math.nan])
    | st.text(max_size=400)
)
names = st.sampled_from(
    ["incident", "phase", "silent_s", "cause", "pid", "outcome", "action", "ti"]
)


@given(st.text("abc_", min_size=1), st.dictionaries(names, values))
def test_a_line_is_the_same_as_the_watchdogs(event, fields):
    assert words.log_line(event, **fields) == text.log_line(event, **fields)


@given(st.text(max_size=3000), st.integers(10, 2500))
def test_a_cleaned_text_is_the_same(given, width):
    assert words.clean(given, width) == text.clean(given, width)


@given(st.floats(min_value=0, max_value=4e9))
def test_a_time_is_the_same(seconds):
    assert words.utc(seconds) == text.utc(seconds)


FAULTHANDLER = """\
Timeout (0:01:30)!
Thread 0x00007f1cddf536c0 (most recent call first):
  File "/srv/a b.py", line 130 in wait
  File "/srv/c.py", line 3 in <module>

Thread 0x00007f1ce1180b80 [worker] (most recent call first):
  <no Python frame>
Current thread 0x00007f1ce1180b81 (most recent call first):
  File "/srv/d.py", line 7 in stuck
Stack (most recent call first):
  File "/srv/d.py", line 7 in stuck
  ...
"""


def test_faulthandlers_text_is_read_back():
    first, current, signalled = stacks.of_faulthandler(FAULTHANDLER)

    assert first["ident"] == 0x7F1CDDF536C0
    assert first["frames"] == [
        {"function": "wait", "file": "/srv/a b.py", "line": 130},
        {"function": "<module>", "file": "/srv/c.py", "line": 3},
    ]
    assert current["name"] == stacks.CURRENT
    assert signalled["name"] == stacks.SIGNALLED
    assert signalled["frames"] == [{"function": "stuck", "file": "/srv/d.py", "line": 7}]


def test_equal_stacks_are_told_once_with_their_count():
    frames = [{"function": "f", "file": "x.py", "line": 3}]
    idle = [{"ident": n, "native_id": None, "name": "?", "frames": frames} for n in range(3)]
    other = {"ident": 9, "native_id": None, "name": "?", "frames": [*frames, *frames]}

    assert stacks.folded([*idle, other]) == [
        "3 threads:",
        "  f (x.py:3)",
        "1 thread:",
        "  f (x.py:3)",
        "  f (x.py:3)",
    ]


@given(st.text())
def test_no_text_is_too_strange_to_be_read(given):
    stacks.of_faulthandler(given)
    stacks.of_faulthandler(f'Thread 0x1 x\n  File "{given}\nStack (most recent call first)')


def test_of_py_spy_only_frames_are_kept():
    frame = {"name": "f", "filename": "x.py", "line": 3, "locals": [{"name": "password"}]}
    thread = {
        "thread_id": 5,
        "os_thread_id": 6,
        "thread_name": None,
        "frames": [frame],
        "process_info": {"command_line": "secret"},
    }

    (found,) = stacks.of_py_spy(json.dumps([thread]))
    assert found == {
        "ident": 5,
        "native_id": 6,
        "name": "?",
        "frames": [{"function": "f", "file": "x.py", "line": 3}],
    }


@pytest.mark.parametrize("output", ["", "[", "{}1"])
def test_output_that_is_no_json_is_refused(output):
    with pytest.raises(ValueError, match=r"Expecting|Extra"):
        stacks.of_py_spy(output)

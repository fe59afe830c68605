"""Where the time went, and what of a stack is new since healthy days."""

from __future__ import annotations

import pytest

from watchdog_hook.core import samples
from watchdog_hook.core.model import Frame, Sample

READ = Frame("SSLSocket.read", "/usr/lib/python3.12/ssl.py", 1099)
LATER = Frame("SSLSocket.read", "/usr/lib/python3.12/ssl.py", 1105)
SEND = Frame("send", "/opt/venv/lib/python3.12/site-packages/urllib3/connection.py", 7)
LOOP = Frame("_run_scheduler_loop", "/opt/venv/lib/python3.12/site-packages/airflow/jobs/s.py", 7)


def rows(*taken: Sample) -> dict[str, tuple[float, float, float, float]]:
    return {
        row.function: (row.own, row.total, row.own_s, row.total_s) for row in samples.table(taken)
    }


class TestTable:
    def test_a_sample_stands_for_the_time_until_the_next_look(self):
        taken = (Sample(15.0, (READ, LOOP)), Sample(18.0, (SEND, LOOP)), Sample(19.0, (READ,)))

        assert samples.spans(taken) == (3.0, 1.0, 0.0)
        assert rows(*taken) == {
            "SSLSocket.read (ssl.py)": (0.75, 0.75, 3.0, 3.0),
            "send (urllib3/connection.py)": (0.25, 0.25, 1.0, 1.0),
            "_run_scheduler_loop (airflow/jobs/s.py)": (0.0, 1.0, 0.0, 4.0),
        }

    def test_the_silence_before_the_first_sample_is_nobodys(self):
        taken = (Sample(15.0, (READ,)), Sample(16.0, (READ,)))

        assert rows(*taken)["SSLSocket.read (ssl.py)"][2] == 1.0

    def test_lines_of_one_function_are_one_row(self):
        taken = (Sample(15.0, (READ,)), Sample(16.0, (LATER,)), Sample(17.0, (LATER,)))

        assert rows(*taken) == {"SSLSocket.read (ssl.py)": (1.0, 1.0, 2.0, 2.0)}

    def test_a_function_that_calls_itself_counts_once(self):
        taken = (Sample(15.0, (LOOP, READ, LOOP)), Sample(17.0, (LOOP,)))

        assert rows(*taken)["_run_scheduler_loop (airflow/jobs/s.py)"] == (1.0, 1.0, 2.0, 2.0)

    def test_one_look_alone_has_shares_but_no_time(self):
        assert rows(Sample(30.0, (READ, LOOP))) == {
            "SSLSocket.read (ssl.py)": (1.0, 1.0, 0.0, 0.0),
            "_run_scheduler_loop (airflow/jobs/s.py)": (0.0, 1.0, 0.0, 0.0),
        }

    def test_own_shares_add_up_and_the_most_of_its_own_comes_first(self):
        taken = [Sample(float(n), (Frame(f"f{n % 7}", "/x.py", n), LOOP)) for n in range(100)]
        found = samples.table(taken)

        assert sum(row.own for row in found) == pytest.approx(1.0)
        assert sum(row.own_s for row in found) == pytest.approx(99.0)
        assert [row.own for row in found] == sorted((row.own for row in found), reverse=True)

    def test_without_samples_there_is_no_table(self):
        assert samples.spans(()) == samples.table(()) == ()
        assert samples.lines(()) == []


class TestText:
    def test_it_is_laid_out_as_py_spys_top(self):
        taken = (Sample(15.0, (READ, LOOP)), Sample(140.5, (SEND, LOOP)), Sample(141.0, (READ,)))

        assert samples.lines(taken) == [
            " Where the time went, in 3 samples between 15 s and 141 s of silence:",
            "   %Own   %Total  OwnTime  TotalTime  Function (filename)",
            "  99.60%  99.60%   125.5s    125.5s   SSLSocket.read (ssl.py)",
            "   0.40%   0.40%   0.500s    0.500s   send (urllib3/connection.py)",
            "   0.00% 100.00%   0.000s    126.0s   _run_scheduler_loop (airflow/jobs/s.py)",
        ]

    def test_what_is_not_shown_is_counted(self):
        taken = [Sample(float(n), (Frame(f"f{n}", "/x.py", n),)) for n in range(50)]
        text = samples.lines(taken, 40)

        assert len(text) == 43
        assert text[-1] == "   ... 10 more functions"
        assert len(samples.lines(taken)) == 52


class TestAgainstNormal:
    NORMAL = (((SEND, LOOP), 3), ((LOOP,), 1))

    def test_the_outermost_frame_that_was_never_there_is_named(self):
        stack = (READ, LATER, SEND, LOOP)

        assert samples.is_new(stack, self.NORMAL) == (True, True, False, False)
        assert samples.against_normal(stack, self.NORMAL, "a turn takes 0.41 s") == [
            " Normally (4 healthy samples): a turn takes 0.41 s; innermost 75 % send (urllib3/connection.py),"
            " 25 % _run_scheduler_loop (airflow/jobs/s.py).",
            " New since the healthy picture: SSLSocket.read (ssl.py:1105); + marks what was in no healthy sample.",
        ]

    def test_a_wrapper_of_ours_is_named_only_where_there_is_nothing_else(self):
        ours = Frame(
            "Loop._heartbeat", "/venv/site-packages/watchdog_hook/integrations/loop.py", 82
        )
        for stack, named in (((READ, ours, LOOP), "SSLSocket.read"), ((ours, LOOP), "Loop._hea")):
            text = samples.against_normal(stack, self.NORMAL)[1]
            assert text.startswith(f" New since the healthy picture: {named}")

    def test_another_line_of_a_known_function_is_not_new(self):
        moved = Frame(LOOP.function, LOOP.file, 99)
        text = samples.against_normal((moved,), self.NORMAL)

        assert text[1].startswith(" Nothing is new since the healthy picture")

    def test_without_a_healthy_sample_nothing_is_said(self):
        assert samples.is_new((READ, LOOP), ()) == (False, False)
        assert samples.against_normal((READ, LOOP), (), "a turn takes 0.41 s") == []

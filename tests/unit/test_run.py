"""The test command counts what ran, names what was missing, and is red where nothing ran."""

from __future__ import annotations

import argparse
import sys

import pytest

from tests import run
from tests.browser import chromium

EVERY = {version: f"/usr/bin/python{version}" for version in run.VERSIONS}


def asked(*environments: str) -> argparse.Namespace:
    return argparse.Namespace(environments=list(environments))


def result(name="py312-unit", code=0, **counts):
    return run.Result(name, code, 1.0, counts, "")


def test_without_a_wish_everything_but_the_old_pairs_is_run():
    assert run.plan(asked(), EVERY) == [
        ["lint", "types", "py313-unit", "py312-unit", "py311-unit", "py310-unit", "coverage"],
        ["py313-long", "py312-long", "py311-long", "py310-long", "browser"],
        ["py311-airflow211-e2e", "py312-airflow33-e2e"],
    ]


def test_a_missing_interpreter_takes_its_environments_with_it_and_another_stands_in():
    pythons = {"3.10": "/usr/bin/python3.10"}

    assert run.plan(asked("unit", "long", "e2e"), pythons) == [
        ["py310-unit"],
        ["py310-long"],
        ["py310-airflow211-e2e", "py310-airflow33-e2e"],
    ]


def test_where_only_python_311_is_here_everything_but_coverage_is_run():
    assert run.plan(asked(), {"3.11": "/usr/bin/python3.11"}) == [
        ["lint", "types", "py311-unit"],
        ["py311-long", "browser"],
        ["py311-airflow211-e2e", "py311-airflow33-e2e"],
    ]


def test_where_chromium_is_missing_it_is_installed_and_a_machine_that_cannot_is_told(monkeypatch):
    installed: list[str] = []
    monkeypatch.setattr(run.shutil, "which", lambda name: name if installed else None)
    monkeypatch.setattr(run, "apt", lambda package, why: installed.append(package))
    run.chromium()
    run.chromium()

    assert installed == ["chromium"]

    monkeypatch.setattr(run.shutil, "which", lambda name: None)
    with pytest.raises(run.Missing, match="there is none of chromium"):
        run.chromium()


def test_the_runner_and_the_test_of_the_page_look_for_the_same_browsers():
    assert run.CHROMIUM == chromium.NAMES


def test_an_airflow_without_an_interpreter_is_an_error():
    with pytest.raises(run.Missing, match="airflow211 needs one of Python"):
        run.plan(asked("e2e"), {"3.13": "/usr/bin/python3.13"})


def test_old_pairs_run_when_they_are_asked_for():
    assert run.plan(asked("old"), EVERY) == [list(run.OLD)]


def test_an_environment_can_be_named():
    assert run.plan(asked("airflow273"), EVERY) == [["airflow273"]]


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("===== 12 passed in 3.45s =====\n", {"passed": 12}),
        (
            "== 1 failed, 12 passed, 2 skipped, 3 deselected in 61.02s (0:01:01) ==\n",
            {"failed": 1, "passed": 12, "skipped": 2},
        ),
        ("2 errors in 0.10s\n", {"error": 2}),
        ("==== no tests ran in 0.01s ====\n", {}),
    ],
)
def test_the_closing_line_of_pytest_is_counted(line, counts):
    lines = ["FAILED tests/x.py - 9 passed in spirit\n", line, "  py312-unit: OK (4.00 seconds)\n"]

    assert run.counted(lines)[0] == counts


def test_the_counts_of_two_pytests_in_one_environment_are_added():
    counts, closing = run.counted(
        ["== 2 passed in 0.10s ==\n", "== 1 failed, 1 passed in 9.00s ==\n"]
    )

    assert counts == {"passed": 3, "failed": 1}
    assert closing == "2 passed in 0.10s; 1 failed, 1 passed in 9.00s"


def test_an_environment_that_ran_no_test_is_red():
    assert result(passed=1).good
    assert not result().good
    assert not result(code=1, passed=1).good
    assert result("lint").good


def test_the_end_names_what_failed_and_what_was_missing(capsys):
    code = run.close(
        [result(passed=3, skipped=1), result("lint", 1)], ["Python 3.13: not found here"], 90
    )

    out = capsys.readouterr().out
    assert code == 1
    assert "not run: Python 3.13: not found here" in out
    assert "failed: lint" in out
    assert out.endswith("tests: 3 passed, 0 failed, 1 skipped\n")


def test_what_still_runs_at_the_end_makes_it_red(capsys):
    assert run.close([result(passed=3)], [], 90, ["4711 (python sentinel)"]) == 1
    assert "still running: 4711 (python sentinel)" in capsys.readouterr().out


def test_a_descriptor_that_is_closed_while_it_is_looked_at_hides_no_process(tmp_path):
    process = tmp_path / "17"
    (process / "fd").mkdir(parents=True)
    (process / "cmdline").write_bytes(f"{tmp_path}/program\0".encode())
    (process / "fd" / "3").touch()  # readlink fails for it as for one that is gone
    (process / "fd" / "4").symlink_to("/memfd:watchdog_hook (deleted)")

    assert run.ours(str(process), tmp_path) == f"17 ({tmp_path}/program)"


def test_all_green_is_zero(capsys):
    assert run.close([result(passed=3)], [], 90) == 0
    assert "all passed" in capsys.readouterr().out


def test_the_interpreter_that_runs_this_is_found():
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" in run.interpreters()

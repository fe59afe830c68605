"""Who is watched, by which settings, and who says what is wrong with them."""

from __future__ import annotations

import pytest

from watchdog_hook.config import Config
from watchdog_hook.integrations.airflow import arming, dag_processor, settings
from watchdog_hook.integrations.airflow.settings import Settings

GUESTS = ("dag_processor", "triggerer")
ALL = ("scheduler", *GUESTS)


@pytest.fixture
def found(monkeypatch):
    """Have these settings found, with one problem."""

    def having(**options: object) -> None:
        got = Settings(Config(**options), ("[watchdog_hook] what is wrong",))  # type: ignore[arg-type]
        monkeypatch.setattr(settings, "read", lambda: got)

    return having


def test_the_scheduler_alone_is_watched_by_default(found):
    found()

    assert [name for name in ALL if arming.config_for(name) is not None] == ["scheduler"]


@pytest.mark.parametrize("names", [ALL, GUESTS, ("triggerer",)])
def test_those_are_watched_that_are_named(found, names):
    found(components=names)

    assert tuple(name for name in ALL if arming.config_for(name) is not None) == names


def test_nobody_is_watched_where_it_is_switched_off(found):
    found(components=ALL, enabled=False)

    assert [arming.config_for(name) for name in ALL] == [None, None, None]


def test_nothing_is_interrupted_but_in_the_scheduler(found):
    found(components=ALL, request_timeout=5, terminate_after=240)

    configs = {name: arming.config_for(name) for name in ALL}

    assert {name: one.may_interrupt for name, one in configs.items() if one} == {
        "scheduler": True,
        "dag_processor": False,
        "triggerer": False,
    }
    assert [one.request_timeout for one in configs.values() if one] == [5.0, None, None]
    assert [one.terminate_after for one in configs.values() if one] == [240.0, 240.0, 240.0]


@pytest.mark.parametrize(
    ("component", "names", "said"),
    [
        ("scheduler", ("scheduler",), 1),
        ("scheduler", ("triggerer",), 1),
        ("triggerer", ("triggerer",), 1),
        ("triggerer", ("scheduler",), 0),
        ("dag_processor", ("triggerer",), 0),
    ],
)
def test_what_is_wrong_is_said_by_the_scheduler_and_by_who_is_watched(
    found, caplog, component, names, said
):
    found(components=names)

    arming.config_for(component)

    assert [record.getMessage() for record in caplog.records] == said * [
        'watchdog_hook: event=bad_setting outcome="[watchdog_hook] what is wrong"'
    ]


class Manager:
    """As Airflow 2 has it."""

    _async_mode = False
    _direct_scheduler_conn: object = None


def test_a_manager_that_is_no_child_is_left_to_its_own_door(found, caplog):
    found(components=ALL)

    assert dag_processor.arm_child(Manager()) is None
    assert caplog.records == []


def test_a_child_whose_turns_wait_for_the_schedulers_is_not_watched_and_that_is_said(found, caplog):
    found(components=ALL)
    manager = Manager()
    manager._direct_scheduler_conn = object()

    assert dag_processor.arm_child(manager) is None
    said = [record.getMessage() for record in caplog.records]
    assert "event=part_off" in said[-1]
    assert "component=dag_processor" in said[-1]
    assert "SQLite" in said[-1]

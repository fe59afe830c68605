"""Config holds every option once; a number that cannot be is refused, and the ladder keeps its order."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from watchdog_hook.config import KNOBS, Config, ConfigError, parse

ROOT = Path(__file__).parents[2]

# To the millisecond: between two neighbouring floats there is no room for a third step.
seconds = st.integers(1, 10_000) | st.floats(min_value=0.001, max_value=1e6).map(
    lambda value: round(value, 3)
)
ladder = st.fixed_dictionaries(
    {},
    optional={
        "sample_after": seconds,
        "dump_after": seconds,
        "interrupt_after": seconds,
        "terminate_after": seconds | st.just(0),
        "backstop_after": seconds,
    },
)


def is_in_order(config: Config) -> bool:
    end = config.terminate_after or math.inf
    later = config.interrupt_after < end and config.backstop_after < end
    return config.sample_after < config.dump_after < end and later


def test_defaults_are_those_of_the_contract():
    assert {name: one.default_text for name, one in KNOBS.items()} == {
        "enabled": "True",
        "components": "scheduler",
        "poll_interval": "1",
        "sample_after": "15",
        "dump_after": "30",
        "interrupt": "api_calls",
        "interrupt_after": "60",
        "breaker_after": "3",
        "breaker_open_for": "30",
        "requeue_limit": "3",
        "requeue_connection_errors": "True",
        "exit_when_fenced": "False",
        "terminate_after": "0",
        "startup_grace": "300",
        "request_timeout": "0",
        "restart_watchers": "False",
        "termination_message": "/dev/termination-log",
        "incident_dir": "{[logging] base_log_folder}/watchdog_hook",
        "incident_retention": "50",
        "incident_max_mb": "200",
        "sentinel": "True",
        "backstop_after": "90",
        "py_spy": "auto",
    }


def test_every_option_has_a_text_that_ends_like_a_sentence():
    assert [name for name, one in KNOBS.items() if not one.text.endswith((".", "none."))] == []


def test_every_option_of_time_has_its_unit():
    timed = {
        name
        for name in KNOBS
        if name.endswith(("_after", "_interval", "_for", "_grace", "_timeout"))
    }

    assert {name for name, one in KNOBS.items() if one.unit == "s"} == timed - {"breaker_after"}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("enabled", "false", False),
        ("enabled", " True ", True),
        ("requeue_connection_errors", "0", False),
        ("poll_interval", "0.25", 0.25),
        ("dump_after", "30", 30.0),
        ("terminate_after", "0", 0.0),
        ("breaker_after", "5", 5),
        ("requeue_limit", "0", 0),
        ("interrupt", "api_calls", ("api_calls",)),
        ("interrupt", " API_CALLS , api_calls", ("api_calls",)),
        ("interrupt", "off", ()),
        ("components", " Triggerer, scheduler ,triggerer", ("triggerer", "scheduler")),
        ("components", "dag_processor", ("dag_processor",)),
        ("request_timeout", "0", None),
        ("request_timeout", "60", 60.0),
        ("request_timeout", "10, 60", (10.0, 60.0)),
        ("incident_dir", " /var/log/watchdog ", "/var/log/watchdog"),
        ("incident_dir", "", None),
        ("sentinel", "off", False),
        ("backstop_after", "45", 45.0),
        ("py_spy", " AUTO ", "auto"),
        ("py_spy", "off", "off"),
        ("py_spy", "/opt/Py-Spy", "/opt/Py-Spy"),
    ],
)
def test_a_text_is_read_as_airflow_cfg_means_it(name, text, value):
    assert parse(name, text) == value
    assert getattr(Config(**{name: text}), name) == value


@pytest.mark.parametrize(
    ("name", "value", "must_be"),
    [
        ("enabled", "maybe", "True or False"),
        ("enabled", 1, "True or False"),
        ("poll_interval", 0, "a number of seconds above 0 and at most 60"),
        ("poll_interval", 61, "a number of seconds above 0 and at most 60"),
        ("dump_after", "soon", "a number of seconds above 0"),
        ("dump_after", "", "a number of seconds above 0"),
        ("dump_after", "nan", "a number of seconds above 0"),
        ("dump_after", math.inf, "a number of seconds above 0"),
        ("dump_after", -1, "a number of seconds above 0"),
        ("dump_after", True, "a number of seconds above 0"),
        ("dump_after", None, "a number of seconds above 0"),
        ("terminate_after", -1, "a number of seconds of at least 0"),
        ("breaker_after", "1.5", "a whole number of at least 1"),
        ("breaker_after", 0, "a whole number of at least 1"),
        ("breaker_open_for", 301, "a number of seconds above 0 and at most 300"),
        ("backstop_after", 0, "a number of seconds above 0"),
        ("py_spy", "py-spy", "the whole path of a program, auto or off"),
        ("py_spy", "", "the whole path of a program, auto or off"),
        ("incident_max_mb", 0, "a number of megabytes above 0"),
        ("interrupt", "everything", "a comma list of api_calls, or off"),
        ("interrupt", "api_calls,off", "a comma list of api_calls, or off"),
        ("interrupt", "", "a comma list of api_calls, or off"),
        ("components", "", "a comma list of scheduler, dag_processor, triggerer"),
        ("components", (), "a comma list of scheduler, dag_processor, triggerer"),
        (
            "components",
            "scheduler,webserver",
            "a comma list of scheduler, dag_processor, triggerer",
        ),
        (
            "request_timeout",
            "1,2,3",
            "a number of seconds, two of them as connect,read, or 0 for none",
        ),
        (
            "request_timeout",
            (10, 0),
            "a number of seconds, two of them as connect,read, or 0 for none",
        ),
        ("request_timeout", (), "a number of seconds, two of them as connect,read, or 0 for none"),
        ("incident_dir", "a\0b", "the path of a directory"),
    ],
)
def test_a_bad_value_is_refused_with_name_value_and_what_it_must_be(name, value, must_be):
    with pytest.raises(ConfigError) as caught:
        Config(**{name: value})

    assert str(caught.value) == f"{name} must be {must_be}, not {value!r}"


def test_a_bad_value_of_a_thousand_letters_is_shown_shortened():
    with pytest.raises(ConfigError) as caught:
        Config(dump_after="x" * 1000)

    assert len(str(caught.value)) < 150


def test_an_unknown_option_is_a_type_error():
    with pytest.raises(TypeError, match="dump_afer"):
        Config(dump_afer=3)


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().dump_after = 3


def test_off_means_that_nothing_may_be_interrupted():
    assert Config().may_interrupt
    assert not Config(interrupt="off").may_interrupt
    assert not Config(interrupt=()).may_interrupt


def test_a_lower_dump_after_takes_sample_after_with_it():
    assert Config(dump_after=5).sample_after == 2.5


def test_a_higher_sample_after_takes_dump_after_with_it():
    assert Config(sample_after=40).dump_after == 80


def test_an_early_terminate_after_takes_the_whole_ladder_with_it():
    config = Config(terminate_after=20)

    assert (config.sample_after, config.dump_after, config.interrupt_after) == (5, 10, 10)


def test_numbers_in_order_are_left_alone():
    config = Config(sample_after=1, dump_after=2, interrupt_after=1, terminate_after=3)

    assert (config.sample_after, config.dump_after) == (1, 2)
    assert (config.interrupt_after, config.terminate_after) == (1, 3)


def test_two_numbers_set_against_each_other_are_refused():
    with pytest.raises(ConfigError, match=r"sample_after must be below dump_after \(8\), not 9"):
        Config(sample_after=9, dump_after=8)
    with pytest.raises(
        ConfigError, match=r"terminate_after must be 0 or above interrupt_after \(90\)"
    ):
        Config(terminate_after=80, interrupt_after=90)


def test_settling_says_once_what_moved():
    config, sentences = Config.settle({"dump_after": 5})

    assert config.sample_after == 2.5
    assert sentences == ["sample_after is 2.5 s instead of 15: it stays below dump_after"]


def test_settling_defaults_says_nothing():
    assert Config.settle({}) == (Config(), [])


def test_settling_a_quarrel_of_sample_and_dump_goes_back_to_both_defaults():
    config, sentences = Config.settle({"sample_after": 50, "dump_after": 40})

    assert (config.sample_after, config.dump_after) == (15, 30)
    assert sentences[0] == "sample_after must be below dump_after (40), not 50.0"
    assert len(sentences) == 3


def test_settling_a_quarrel_with_terminate_after_never_terminates():
    config, sentences = Config.settle({"dump_after": 100, "terminate_after": 60})

    assert (config.dump_after, config.terminate_after) == (100, 0)
    assert sentences[0] == "terminate_after must be 0 or above dump_after (100), not 60.0"


def test_settling_an_option_at_its_default_on_purpose_keeps_it():
    config, _ = Config.settle({"dump_after": 30, "sample_after": 40})

    assert (config.sample_after, config.dump_after) == (15, 30)


@given(ladder)
def test_a_settled_ladder_is_in_order(chosen):
    config, _ = Config.settle(chosen)

    assert is_in_order(config)


@given(ladder)
def test_a_chosen_number_moves_only_with_a_sentence_that_names_it(chosen):
    config, sentences = Config.settle(chosen)

    for name, value in chosen.items():
        assert getattr(config, name) == value or any(name in each for each in sentences)


@given(ladder)
def test_numbers_without_a_quarrel_are_all_kept(chosen):
    # Config() takes a number at its default for one that nobody chose, settle() knows better.
    assume(all(value != KNOBS[name].default for name, value in chosen.items()))
    try:
        Config(**chosen)
    except ConfigError:
        return
    config, _ = Config.settle(chosen)

    assert {name: getattr(config, name) for name in chosen} == chosen


@given(ladder)
def test_a_config_survives_being_replaced_by_its_own_values(chosen):
    config, _ = Config.settle(chosen)

    assert dataclasses.replace(config) == config


@given(
    ladder,
    st.none() | seconds | st.tuples(seconds, seconds),
    st.sampled_from([(), ("api_calls",)]),
    st.none()
    | st.text(st.characters(codec="ascii", exclude_categories=("C",)), min_size=1).map(str.strip),
    st.booleans(),
)
def test_a_config_survives_its_own_text(chosen, timeout, interrupt, path, enabled):
    config, _ = Config.settle(
        {
            **chosen,
            "request_timeout": timeout,
            "interrupt": interrupt,
            "incident_dir": path,
            "enabled": enabled,
        }
    )

    assert Config.from_text(config.as_text()) == config


@given(st.sampled_from(sorted(KNOBS)), st.text())
def test_any_text_is_a_value_or_a_config_error_of_that_option(name, text):
    refused = {name}
    try:
        Config(**{name: text})
    except ConfigError as error:
        refused.add(error.option)

    assert refused == {name}


def test_importing_config_imports_no_library_and_no_host():
    program = (
        "import sys; import watchdog_hook.config\n"
        "heavy = ('airflow', 'kubernetes', 'wrapt', 'psutil', 'rich', 'logging', 'typing_extensions')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert shown.stdout.strip() == "[]"

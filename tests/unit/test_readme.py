"""The documents say what is there: options, rules, commands, files, links and events."""

from __future__ import annotations

import ast
import configparser
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import readme_tables
from watchdog_hook.cli import build_parser
from watchdog_hook.config import KNOBS
from watchdog_hook.core.diagnosis import RULES

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "COMPATIBILITY.md")
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
EVENT = re.compile(r"event=(\w+)")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#{1,6} (.+)$", FENCE.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def commands(language: str = "sh") -> Iterator[list[str]]:
    """Return every command line that the pages tell a reader to type."""
    for page in PAGES:
        for found, block in FENCE.findall(text_of(page)):
            if found == language:
                yield from (shlex.split(line, comments=True) for line in block.splitlines() if line)
        for code in re.findall(r"`((?:python3|watchdog-hook) [^`]+)`", text_of(page)):
            yield shlex.split(code)


@pytest.mark.parametrize("name", readme_tables.TABLES)
def test_a_table_of_the_readme_is_what_the_code_says(name):
    written = readme_tables.written(name, README)

    assert written == readme_tables.TABLES[name](), "run python3 tests/readme_tables.py"


def test_the_table_of_settings_has_every_option_of_config_and_no_other():
    rows = re.findall(r"^\| `(\w+)` \|", readme_tables.written("settings", README), re.M)

    assert rows == list(KNOBS)


def test_the_list_of_causes_has_every_rule_in_its_order():
    found = re.findall(r"^\*\*`([\w-]+)`\*\*", readme_tables.written("causes", README), re.M)

    assert found == [rule.id for rule in RULES]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    text = text_of(page)
    for target in LINK.findall(FENCE.sub("", text)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        assert not path or (ROOT / path).exists(), target
        if anchor:
            assert anchor in anchors(text_of(path) if path else text), target


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_exists(page):
    named = re.findall(
        r"(?<![\w/.$])((?:tests|examples|benchmarks|watchdog_hook)/[\w./-]*)", text_of(page)
    )

    for name in named:
        assert (ROOT / name.rstrip(".")).exists() or (ROOT / "watchdog_hook" / name).exists(), name


def test_every_script_that_a_reader_is_told_to_run_exists():
    scripts = {words[1] for words in commands() if words[0] == "python3" and words[1][0] != "-"}

    assert {"examples/demo.py", "tests/run.py"} <= scripts
    for script in scripts:
        assert (ROOT / script).is_file(), script


def test_every_option_of_a_script_that_is_named_is_one_of_its_own():
    for words in commands():
        if words[0] != "python3" or words[1][0] == "-":
            continue
        source = (ROOT / words[1]).read_text(encoding="utf-8")
        for word in words[2:]:
            if word == "--":
                break
            assert not word.startswith("--") or f'"{word}"' in source, words


def test_every_environment_that_is_named_is_one_of_the_runner():
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "tox.ini")
    runner = (ROOT / "tests" / "run.py").read_text(encoding="utf-8")
    groups = re.search(r"^GROUPS = (\(.+\))$", runner, re.M)
    assert groups is not None
    known = {*ast.literal_eval(groups[1]), *(name.removeprefix("testenv:") for name in setup)}

    for words in commands():
        if words[:2] != ["python3", "tests/run.py"]:
            continue
        for word in words[2:]:
            if word == "--":
                break
            generated = re.fullmatch(r"py3\d+-(unit|long|airflow\d+-e2e)", word)
            assert word.startswith("--") or generated or word in known, words


def test_every_command_of_ours_is_understood():
    ours = [words[1:] for words in commands() if words[0] == "watchdog-hook"]

    assert {words[0] for words in ours} == {"doctor", "dump", "incidents", "live", "show"}
    for words in ours:
        build_parser().parse_args(words)


def test_every_option_that_is_set_anywhere_exists():
    for page in PAGES:
        text = text_of(page)
        names = re.findall(r"AIRFLOW__WATCHDOG_HOOK__(\w+)", text)
        names += re.findall(r"config\.watchdog_hook\.(\w+)", text)
        assert {name.lower() for name in names} <= KNOBS.keys(), page


def test_the_table_of_events_has_every_event_of_the_package_and_no_other():
    section = README.partition("### Events")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+`) \|", section, re.M)
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    said: set[str] = set()
    for path in (ROOT / "watchdog_hook").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        said.update(EVENT.findall(text))
        said.update(
            re.findall(r'(?:note|log_line|render|first_line)\(\s*(?:incident, )?"(\w+)"', text)
        )
        said.update(re.findall(r'"event": "(\w+)"', text))
        said.update(re.findall(r'last_words[(,]\s*episode, "(\w+)"', text))
        said.update(re.findall(r'\.say\(\s*"[A-Z]+",\s*"(\w+)"', text))

    assert documented == said


def test_what_the_readme_has_a_reader_paste_is_python():
    blocks = [block for language, block in FENCE.findall(README) if language == "python"]

    assert any("watchdog_hook.install()" in block for block in blocks)
    for block in blocks:
        ast.parse(block)


def test_the_wheel_that_the_readme_copies_is_the_one_that_is_built():
    import watchdog_hook

    names = set(re.findall(r"watchdog_hook-([\d.]+\d)-py3", README))

    assert names == {watchdog_hook.__version__}


def test_the_changelog_begins_with_this_version():
    import watchdog_hook

    first = re.search(r"^## (\S+)", text_of("CHANGELOG.md"), re.M)

    assert first is not None
    assert first[1] == watchdog_hook.__version__

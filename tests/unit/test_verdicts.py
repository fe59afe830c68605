"""
What diagnosis says of processes that were really stuck.

Each file of tests/stacks is what diagnosis was given of one: `<rule>.json` or `<rule>--<what>.json`. `not-…` is a
process that looks alike and is something else. tests/victims/record.py makes them.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from watchdog_hook.core.diagnosis import diagnose
from watchdog_hook.core.model import Finding
from watchdog_hook.core.plain import from_plain
from watchdog_hook.core.rules import RULES
from watchdog_hook.core.signs import Case

STACKS = Path(__file__).parents[1] / "stacks"
FILES = sorted(STACKS.glob("*.json"))
POSITIVE = [path for path in FILES if not path.stem.startswith("not-")]
NEGATIVE = [path for path in FILES if path.stem.startswith("not-")]

# Rules of which nothing is recorded yet, and why.
NOT_RECORDED = {
    "disk-sleep": "what was made to stand in state D waited for a child or a page, and is told so or not at all",
    "memory-pressure": "the recording machine counts pressure for all of it only, and there was none",
}
# What fits as well, and is shown beside the verdict.
BESIDE = {"shutdown": ["child-process"], "throttled-processor": ["processor-loop"]}
# What the sentence has to name.
NAMED = {
    "database-lock-wait": ["held by server process", "idle in transaction"],
    "foreign-code": ["pod_mutation_hook"],
    "inherited-lock": ["can never wake", "pid"],
    "kubernetes-api-silent": ["no byte of an answer"],
    "kubernetes-unreachable": ["does not confirm"],
    "lock": ["which", "has"],
    "deadlock": ["deadlock", "waits for"],
    "file-system": ["newfstatat on /opt/airflow/dags/dag.py", "fuse on"],
    "no-progress": ["tasks wait in KubernetesExecutor"],
    "pipe": ["other end"],
    "processor-loop": ["on the processor"],
}


def case_of(path: Path) -> Case:
    case = from_plain(Case, json.loads(path.read_text(encoding="utf-8")))
    assert case is not None, f"{path.name} is damaged"
    return case


def verdict_of(path: Path) -> Finding:
    case = case_of(path)
    return diagnose(
        case.snapshot,
        silence=case.silence_s,
        phase=case.phase,
        call=case.call,
        reading=case.reading,
        how=case.how,
    )


def rule_of(path: Path) -> str:
    return path.stem.removeprefix("not-").partition("--")[0]


@pytest.mark.parametrize("path", POSITIVE, ids=lambda path: path.stem)
def test_a_stuck_process_is_told_what_it_is_and_nothing_else(path: Path):
    found, rule = verdict_of(path), rule_of(path)

    assert found.id == rule, found.sentence
    assert [other.id for other in found.also] == BESIDE.get(rule, [])
    assert found.signs


@pytest.mark.parametrize("path", NEGATIVE, ids=lambda path: path.stem)
def test_what_only_looks_alike_is_not_taken_for_it(path: Path):
    found = verdict_of(path)

    assert rule_of(path) not in (found.id, *(other.id for other in found.also)), found.sentence


@pytest.mark.parametrize("rule", sorted(NAMED))
def test_the_sentence_names_who_and_what(rule: str):
    sentence = verdict_of(STACKS / f"{rule}.json").sentence

    assert all(word in sentence for word in NAMED[rule]), sentence


def test_every_rule_is_recorded_or_listed_with_the_reason():
    recorded = {rule_of(path) for path in POSITIVE}
    rules = {rule.id for rule in RULES}

    assert recorded <= rules
    assert rules - recorded == set(NOT_RECORDED)
    print("not recorded:", NOT_RECORDED)


def test_no_recording_has_a_name_of_the_machine_it_was_made_on():
    for path in FILES:
        text = path.read_text(encoding="utf-8")

        assert "/tmp/" not in text, path.name
        assert '"/work/' not in text, path.name
        assert "/root/" not in text, path.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_of_less_evidence_less_is_said_and_nothing_breaks(path: Path):
    """As where the kernel, a privilege or the child itself says no."""
    data = json.loads(path.read_text(encoding="utf-8"))
    data["snapshot"]["observed"] = {}
    data["reading"] = None
    case = from_plain(Case, data)
    assert case is not None

    found = diagnose(case.snapshot, silence=case.silence_s, phase=case.phase, how=case.how)
    assert found.sentence

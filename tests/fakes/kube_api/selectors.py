"""Label and field selectors, as text in a query and as a test on a pod."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Pod = dict[str, Any]
Selector = Callable[[Pod], bool]

_PART = re.compile(r",(?![^(]*\))")
_SET = re.compile(r"^(?P<key>\S+)\s+(?P<word>in|notin)\s*\((?P<values>[^)]*)\)$")
_EQUAL = re.compile(r"^(?P<key>[^=!\s]+)\s*(?P<word>==?|!=)\s*(?P<value>\S*)$")
_KEY = re.compile(r"^(?P<no>!?)\s*(?P<key>[\w./-]+)$")


class BadSelector(ValueError):
    """A selector that the real API server refuses as well."""


def selector(labels: str = "", fields: str = "") -> Selector:
    """Return a test that is true for the pods which both selectors mean."""
    tests = [_test(part) for part in _parts(labels)]
    field_tests = [_test(part) for part in _parts(fields)]

    def matches(pod: Pod) -> bool:
        values = pod["metadata"].get("labels") or {}
        return all(test(values) for test in tests) and all(
            test(_fields(pod)) for test in field_tests
        )

    return matches


def _parts(text: str) -> list[str]:
    return [part.strip() for part in _PART.split(text) if part.strip()]


def _test(part: str) -> Callable[[Mapping[str, str]], bool]:
    if match := _SET.match(part):
        key, wanted = match["key"], (match["word"] == "in")
        values = {value.strip() for value in match["values"].split(",")}
        return lambda labels: (labels.get(key) in values) is wanted
    if match := _EQUAL.match(part):
        key, value, wanted = match["key"], match["value"], match["word"] != "!="
        # As on the real server, `key!=value` is also true where the key is missing.
        return lambda labels: (labels.get(key) == value) is wanted
    if match := _KEY.match(part):
        key, wanted = match["key"], not match["no"]
        return lambda labels: (key in labels) is wanted
    raise BadSelector(f"unable to parse requirement: {part!r}")


def _fields(pod: Pod) -> dict[str, str]:
    return {
        "metadata.name": pod["metadata"]["name"],
        "metadata.namespace": pod["metadata"]["namespace"],
        "status.phase": pod["status"]["phase"],
        "spec.nodeName": pod["spec"].get("nodeName", ""),
    }

"""Whether a call of a tool can be carried out, whatever models and callers write."""

from __future__ import annotations

import time
from typing import Any

import pytest

from proveout.serving.tools import fault

WEATHER = {"properties": {"city": {"type": "string"}}, "required": ["city"]}
DEEP = "[" * 600 + "]" * 600


def offered(parameters: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]


@pytest.mark.parametrize(
    ("name", "arguments", "parameters", "wrong"),
    [
        ("weather", '{"city": "Bern"}', WEATHER, None),
        ("weather", '{"city": 3}', WEATHER, "schema"),
        ("weather", "{}", WEATHER, "schema"),
        ("weather", '{"city": "Bern"', WEATHER, "json"),
        ("weather", "", None, "json"),
        ("wether", '{"city": "Bern"}', WEATHER, "unknown"),
        ("weather", "{}", None, None),
        ("weather", "[1]", None, "schema"),
        ("weather", '{"city": 3}', {"type": "nonsense"}, None),  # a schema that is none says nothing
        ("weather", "3", {"type": "nonsense"}, "schema"),
        ("weather", "{}", ["city"], None),
        ("weather", "{}", {"$ref": "file:///etc/hostname"}, None),
        ("weather", "[" * 100_000, None, "json"),
        ("weather", f'{{"city": [{DEEP}, {DEEP}]}}', {"properties": {"city": {"uniqueItems": True}}}, None),
    ],
)
def test_what_is_wrong_with_a_call(name: str, arguments: str, parameters: Any, wrong: str | None) -> None:
    assert fault(offered(parameters), name, arguments) == wrong


def test_nothing_was_offered() -> None:
    assert fault(None, "weather", "{}") == "unknown" == fault([{"type": "function"}], "weather", "{}")


def test_a_pattern_that_would_never_end_ends() -> None:
    began = time.monotonic()
    hostile = {"properties": {"city": {"pattern": "^(a+)+$"}}}
    assert fault(offered(hostile), "weather", f'{{"city": "{"a" * 50_000}!"}}') == "schema"
    assert time.monotonic() - began < 1

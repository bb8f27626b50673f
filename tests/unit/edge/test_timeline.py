"""The geometry and the words of a request's page."""

from __future__ import annotations

from typing import Any

import pytest

from proveout.edge.console.timeline import WIDTH, spans, why


def row(**more: Any) -> dict[str, Any]:
    decision = {"retrieval": {"ms": 20.0}}
    return {"decision": decision, "first_token_ms": 50.0, "first_sentence_ms": 75.0, "total_ms": 200.0, **more}


def test_every_stretch_begins_where_the_one_before_it_ended() -> None:
    found = spans(row())
    assert [(s.until_ms, s.x, s.width) for s in found] == [
        (20.0, 0, 100),
        (50.0, 100, 150),
        (75.0, 250, 125),
        (200.0, 375, 625),
    ]
    assert found[-1].x + found[-1].width == WIDTH


@pytest.mark.parametrize(
    ("more", "count"),
    [
        ({"decision": None}, 3),
        ({"decision": {"retrieval": None}, "first_token_ms": None}, 2),  # a model called directly that said nothing
        ({"total_ms": None}, 0),
        ({"total_ms": 0.0, "decision": None, "first_token_ms": None, "first_sentence_ms": None}, 1),
    ],
)
def test_what_did_not_happen_is_not_drawn(more: dict[str, Any], count: int) -> None:
    found = spans(row(**more))
    assert len(found) == count
    assert all(0 <= s.x <= WIDTH and 2 <= s.width <= WIDTH for s in found)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"app": None}, "called directly"),
        ({"app": "a", "stage": None}, "by its number"),
        ({"app": "a", "stage": "poc", "arm": "stable", "weight": None}, "nothing was drawn"),
        (
            {"app": "a", "stage": "beta", "arm": "canary", "weight": 0.05},
            "canary: drawn, with 5 % of the traffic of beta",
        ),
    ],
)
def test_why_a_release_answered(asked: dict[str, Any], said: str) -> None:
    assert said in why(asked)

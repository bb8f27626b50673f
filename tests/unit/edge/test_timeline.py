"""The geometry and the words of a request's page."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from proveout.domain import Key, Principal, Right
from proveout.edge.console.timeline import WIDTH, OnRecord, page_of, spans, why
from proveout.ledger.decision import Check, Decision, Retrieval, ToolUse

CALLER = Principal(Key("k", "k", "default", "owner"), frozenset(Right))
BEGUN = datetime(2026, 11, 22, tzinfo=UTC)
ENDED: dict[str, Any] = {
    "request": "req_1", "workspace": "default", "key": "key_1", "purpose": "request", "app": "desk", "release": 1,
    "release_digest": "sha256:1", "stage": "poc", "model": "local/x", "parameters": {"max_tokens": 64, "stop": []},
    "streamed": False, "begun": BEGUN, "arm": "stable", "weight": None, "outcome": "answered", "reason": "",
    "grounded": True, "quoted": False, "prompt_tokens": 3, "completion_tokens": 4, "cost_usd": 0.0,
    "first_token_ms": 10.0, "first_sentence_ms": 20.0, "total_ms": 50.0, "ended": BEGUN, "answered_by": "local/x",
    "served_by": "x", "runtime": "r", "subject": "ab", "documents": ["a.md"], "documents_found": 2, "decision": None,
}  # fmt: skip
OPEN = ENDED | dict.fromkeys(
    (
        "outcome",
        "ended",
        "total_ms",
        "first_token_ms",
        "first_sentence_ms",
        "prompt_tokens",
        "answered_by",
        "subject",
        "documents_found",
    )
)
FOUND = Retrieval({"kb": "sha256:2"}, [("71", 0.5)], 3, "r" * 44, 0.9, 5.0)
CHECK, TOOL = Check("groundedness", "block", "no source", 0.1), ToolUse("weather", "t" * 44)


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


@pytest.mark.parametrize(
    ("decision", "said"),
    [
        (None, "recorded before verdicts were"),
        (Decision("i", "o", captured=False), "No guard objected"),
        (Decision("i", "o", captured=True, retrieval=FOUND, verdicts=(CHECK,)), "no source"),
        (Decision("i", "o", captured=True, tools=(TOOL,), replays="req_0"), "weather"),
    ],
)
@pytest.mark.parametrize(
    "record", [None, OnRecord(None, "not yet"), OnRecord(False, "bad"), OnRecord(True, "ok", 3, 9)]
)
def test_every_record_has_a_page(decision: Decision | None, said: str, record: OnRecord | None) -> None:
    text = bytes(page_of({**ENDED, "decision": msgspec.to_builtins(decision)}, CALLER, None, record).body).decode()
    assert "1 that your key may not read" in text
    assert said in text and ("Download the receipt" in text) == bool(record and record.index)
    assert " style=" not in text and "<style" not in text


def test_a_request_under_way_has_a_page() -> None:
    text = bytes(page_of(OPEN, CALLER, "ann", None).body).decode()
    assert "There is none" in text and "Verdicts" not in text and "Receipt" not in text

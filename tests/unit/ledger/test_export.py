"""A request as an OTLP span."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from proveout.ledger.export import span

ROW: dict[str, Any] = {
    "request": "req_1", "app": "desk", "release": 3, "release_digest": "sha256:3", "stage": "poc", "arm": "stable",
    "weight": None, "key": "key_1", "purpose": "request", "model": "acme/big", "parameters": {"max_tokens": 64},
    "begun": datetime(2026, 11, 22, 12, 0, 0, 250_000, tzinfo=UTC), "outcome": "answered", "grounded": True,
    "quoted": False, "prompt_tokens": 9, "completion_tokens": 4, "cost_usd": 0.5, "first_token_ms": 10.0,
    "first_sentence_ms": None, "total_ms": 1500.5, "answered_by": "acme/big", "served_by": "big-2026", "subject": "ab",
    "decision": {"retrieval": {"chunks": [["7", 0.5]]},
                 "verdicts": [{"guard": "secrets", "action": "mask", "reason": "aws key", "score": 1.0}]},
}  # fmt: skip


def attributes(of: Any) -> dict[str, Any]:
    return {one["key"]: next(iter(one["value"].values())) for one in of["attributes"]}


def test_a_request_is_a_span_of_the_conventions() -> None:
    made = span(ROW)
    told = attributes(made)
    assert (len(made["traceId"]), len(made["spanId"]), made["kind"]) == (32, 16, 3)
    assert int(made["endTimeUnixNano"]) - int(made["startTimeUnixNano"]) == 1_500_500_000
    assert made["startTimeUnixNano"] == "1795348800250000000"
    assert told["gen_ai.request.model"] == "acme/big" and told["gen_ai.response.model"] == "big-2026"
    assert told["gen_ai.provider.name"] == "acme" and told["gen_ai.usage.input_tokens"] == "9"
    assert told["proveout.grounded"] is True and told["proveout.cost_usd"] == 0.5
    assert told["proveout.chunks"] == {"values": [{"stringValue": "7"}]}
    assert "proveout.weight" not in told and "error.type" not in told
    assert [event["name"] for event in made["events"]] == ["first token", "verdict"]
    assert attributes(made["events"][1])["proveout.guard"] == "secrets"


def test_a_failure_and_a_record_from_before_decisions() -> None:
    made = span({**ROW, "outcome": "failed", "decision": None})
    assert made["status"] == {"code": 2} and attributes(made)["error.type"] == "failed"
    assert span({**ROW, "request": "req_2"})["traceId"] != span(ROW)["traceId"] == span(ROW)["traceId"]

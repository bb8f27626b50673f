"""What the record of a request says of the release that answered it."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from proveout.evals.online import baseline, is_negative, read, thresholds
from proveout.store.events import Kind

GOOD = {
    "kind": Kind.REQUEST_ENDED,
    "at": datetime(2026, 1, 31, tzinfo=UTC),
    "facts": {},
    "arm": "stable",
    "weight": 0.9,
    "unit": None,
    "outcome": "answered",
    "grounded": True,
    "quoted": False,
    "completion_tokens": 12,
    "cost_usd": None,
    "first_sentence_ms": 80.0,
    "total_ms": 100.0,
    "verdicts": [],
    "tools": None,
}


def bad(**given: Any) -> set[str]:
    return {name for name, value in read({**GOOD, **given}).bad.items() if value == 1}


@pytest.mark.parametrize("weight", [0.01, 0.05, 0.1, 0.25, 1 / 3, 0.5, 0.7])
def test_both_arms_tell_the_same_weight_of_the_candidate(weight: float) -> None:
    stable = read({**GOOD, "weight": 1 - weight})
    candidate = read({**GOOD, "arm": "candidate", "weight": weight})
    assert stable.weight == candidate.weight and (stable.candidate, candidate.candidate) == (False, True)


@pytest.mark.parametrize(
    ("given", "events"),
    [
        ({}, set()),
        ({"outcome": "failed"}, {"errors"}),
        ({"outcome": "truncated"}, {"errors"}),
        ({"outcome": "refused"}, {"refused"}),
        ({"outcome": "cancelled"}, {"left"}),
        ({"grounded": False}, {"unsupported"}),
        ({"quoted": True}, {"unsupported"}),
        ({"verdicts": [{"guard": "groundedness", "action": "block"}]}, {"unsupported"}),
        ({"verdicts": [{"guard": "secrets", "action": "block"}]}, {"guarded"}),
        ({"verdicts": [{"guard": "secrets", "action": "allow"}]}, set()),
        ({"tools": [{"name": "a", "fault": None}, {"name": "b", "fault": "json"}]}, {"tool_errors"}),
        ({"tools": [{"name": "a", "fault": None}]}, set()),
        ({"kind": Kind.REQUEST_LOST, "outcome": None}, {"errors"}),
    ],
)
def test_bad_events(given: dict[str, Any], events: set[str]) -> None:
    assert bad(**given) == events


def test_what_was_not_measured_is_nan_and_what_does_not_apply_is_absent() -> None:
    reading = read({**GOOD, "grounded": None})
    assert math.isnan(reading.bad["unsupported"]) and math.isnan(reading.amounts["cost"])
    failed = read({**GOOD, "outcome": "failed"})
    assert "unsupported" not in failed.bad and not failed.amounts and failed.call
    assert "tool_errors" not in reading.bad and read({**GOOD, "tools": [{"fault": None}]}).bad["tool_errors"] == 0
    begun = read({**GOOD, "kind": Kind.REQUEST_BEGUN, "outcome": None})
    assert begun.exposed and not begun.call and not begun.bad


def test_feedback_is_negative_by_thumb_or_by_what_came_of_it() -> None:
    assert is_negative(0, {}) and is_negative(None, {"solved": 0}) and is_negative(None, {"escalated": 1})
    assert not (is_negative(0.4, {}) or is_negative(1, {"minutes": 9}) or is_negative(None, {"solved": 1}))
    given = {**GOOD, "kind": Kind.FEEDBACK_GIVEN, "facts": {"negative": True, "score": 0.25}}
    reading = read(given)
    assert (reading.bad, reading.scores, reading.call) == ({"feedback": 1.0}, {"score": 0.25}, False)
    assert not read({**given, "facts": {"negative": False, "score": None}}).scores


def test_a_lost_request_is_a_call_and_a_judgement_is_none() -> None:
    lost = read({**GOOD, "kind": Kind.REQUEST_LOST, "outcome": None})
    assert lost.call and not lost.amounts
    for decides, name in ((True, "judge"), (False, "advice"), (None, "advice")):
        facts = {"request": "req_1", "score": 0.75, "decides": decides, "judge": "local/large"}
        judged = read({**GOOD, "kind": Kind.ANSWER_JUDGED, "facts": facts, "outcome": None})
        assert (judged.scores, judged.bad, judged.call) == ({name: 0.75}, {}, False)


def test_thresholds_are_quantiles_of_the_nearest_rank() -> None:
    assert thresholds("total", [float(n) for n in range(1, 101)]) == {"total_p50": 50, "total_p95": 95, "total_p99": 99}


def test_a_baseline_has_rates_times_scores_and_requests_an_hour() -> None:
    hour = [datetime(2026, 1, 31, n, tzinfo=UTC) for n in (0, 1, 2)]
    unscored = {**GOOD, "score": None, "judge": None}
    rows = [{**unscored, "begun": at, "score": n / 2} for n, at in enumerate(hour[:2])]
    rows += [{**unscored, "begun": hour[2], "outcome": "failed"}]
    told = baseline(rows, hour[2])
    assert (told["requests"], told["per_hour"], told["bad"]["errors"]) == (3, 1.5, 1 / 3)
    assert told["median_ms"] == pytest.approx(80) and told["spread"] == 0
    assert told["scores"] == {"score": {"mean": 0.25, "share": 2 / 3}}
    assert baseline([], hour[2])["median_ms"] is None and baseline([], hour[2])["per_hour"] == 0


def test_a_burst_is_no_days_traffic() -> None:
    burst = [
        {**GOOD, "begun": datetime(2026, 1, 31, 0, n % 7, tzinfo=UTC), "score": None, "judge": 1} for n in range(70)
    ]
    assert baseline(burst, datetime(2026, 1, 31, 0, 7, tzinfo=UTC))["per_hour"] == 70  # an hour at least
    assert baseline(burst, datetime(2026, 1, 31, 7, tzinfo=UTC))["per_hour"] == 10

"""What a request that ended says of the release that answered it: bad events, times, amounts, scores.

Every metric is read from the record alone, so that whoever holds the log can compute the same.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from proveout.domain import Outcome
from proveout.store.events import Kind

NAN = math.nan
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_FAILED = (Outcome.FAILED, Outcome.TRUNCATED)


class Reading(msgspec.Struct, frozen=True):
    """An event of a request whose arm was drawn: it began (`exposed`), ended (`call`), or was rated.

    `bad`: 1 the event happened, 0 it did not, NaN it was not measured; what does not apply to the request is absent.
    `amounts`: milliseconds, tokens, USD of an answered request; NaN what was not measured. `scores`, 0 to 1: `score` of
    feedback, `judge` of a judge that may decide, `advice` of one that may not; `judge` names which. `weight` is the
    candidate's when the arm was drawn; `unit` names whom it was drawn for, None: this request alone. `about` is the
    request that feedback was given on, which may be given again.
    """

    candidate: bool
    weight: float
    at: float  # seconds since the epoch
    unit: str | None = None
    exposed: bool = False
    call: bool = False
    bad: Mapping[str, float] = {}
    amounts: Mapping[str, float] = {}
    scores: Mapping[str, float] = {}
    judge: str = ""
    about: str | None = None  # of feedback: the request


def read(row: Mapping[str, Any]) -> Reading:
    """A row of `readings.since`."""
    candidate = row["arm"] == "candidate"
    # Rounded: 1 − 0.9 is not 0.1, and a weight that seems to change with the arm is no weight that was set before.
    weight = round(row["weight"] if candidate else 1 - row["weight"], 9)
    about = {"candidate": candidate, "weight": weight, "at": row["at"].timestamp(), "unit": row["unit"]}
    if row["kind"] == Kind.REQUEST_BEGUN:
        return Reading(**about, exposed=True)
    facts = row["facts"]
    if row["kind"] == Kind.FEEDBACK_GIVEN:
        bad = {"feedback": 1.0} if facts.get("negative") else {}
        return Reading(**about, bad=bad, scores=_said(score=facts.get("score")), about=facts.get("request"))
    if row["kind"] == Kind.ANSWER_JUDGED:
        name = "judge" if facts.get("decides") is True else "advice"
        judge = facts.get("digest") or facts.get("judge") or ""
        return Reading(**about, scores=_said(**{name: facts.get("score")}), judge=judge)
    if row["kind"] == Kind.REQUEST_LOST:
        return Reading(**about, call=True, bad={"errors": 1.0})
    answered = row["outcome"] == Outcome.ANSWERED
    return Reading(**about, call=True, bad=bad_events(row), amounts=amounts(row) if answered else {})


def _said(**scores: float | None) -> dict[str, float]:
    return {name: value for name, value in scores.items() if value is not None}


def bad_events(row: Mapping[str, Any]) -> dict[str, float]:
    """Which bad events a request was, of those that can be told when it ends.

    An answer is unsupported when the support check found nothing for words of it, whether they were shown or kept back.
    Where it calls tools, one call that cannot be carried out is a tool error.
    """
    outcome, verdicts = row["outcome"], row["verdicts"] or ()
    spoke = {v["guard"] for v in verdicts if v["action"] in ("flag", "block")}
    left = outcome == Outcome.CANCELLED  # before it was known whether it would have failed
    bad = {
        "errors": NAN if left else float(outcome in _FAILED),
        "refused": NAN if left else float(outcome == Outcome.REFUSED),
        "guarded": NAN if left and not spoke else float(bool(spoke - {"groundedness"})),
        "left": float(left),
    }
    if outcome == Outcome.ANSWERED:
        unsupported = row["grounded"] is False or row["quoted"] or "groundedness" in spoke
        bad["unsupported"] = NAN if row["grounded"] is None else float(unsupported)
        if tools := row["tools"]:
            bad["tool_errors"] = float(any(tool.get("fault") for tool in tools))
    return bad


def amounts(row: Mapping[str, Any]) -> dict[str, float]:
    """Time, tokens and cost of an answer."""
    taken = {
        "first_text": row["first_sentence_ms"],
        "total": row["total_ms"],
        "tokens": row["completion_tokens"],
        "cost": row["cost_usd"],
    }
    return {name: NAN if value is None else float(value) for name, value in taken.items()}


def baseline(rows: Sequence[Mapping[str, Any]], until: datetime) -> dict[str, Any]:
    """How a release has answered, from rows of `readings.baseline`: rates of bad events, times, scores, load.

    `median_ms` and `spread` (of the logarithm) are of the first text; None without an answer. The hours are those from
    the first of these requests `until` now: a burst is no day's traffic. `scores` are the means of feedback's and of a
    judge's that may decide, each with the `share` of requests that have one.
    """
    seen = [bad_events(row) for row in rows]
    names = sorted({name for bad in seen for name, value in bad.items() if value == value})
    rates = {name: sum(bad.get(name, 0.0) > 0.5 for bad in seen) / len(seen) for name in names}
    logs = [math.log(t) for row in rows if row["outcome"] == Outcome.ANSWERED and (t := row["first_sentence_ms"])]
    hours = max(1.0, (until - min(row["begun"] for row in rows)).total_seconds() / 3600) if rows else 1.0
    scored = {name: [row[name] for row in rows if row[name] is not None] for name in ("score", "judge")}
    return {
        "requests": len(rows),
        "per_hour": len(rows) / hours,
        "bad": rates,
        "median_ms": math.exp(statistics.median(logs)) if logs else None,
        "spread": statistics.pstdev(logs) if logs else None,
        "scores": {
            name: {"mean": statistics.fmean(values), "share": len(values) / len(rows)}
            for name, values in scored.items()
            if values
        },
    }


def thresholds(name: str, values: Sequence[float]) -> dict[str, float]:
    """The quantiles of an amount in a sample of the stable release's answers: `{"total_p95": …}` (nearest rank)."""
    ordered = sorted(values)
    return {f"{name}_{q}": ordered[math.ceil(share * len(ordered)) - 1] for q, share in QUANTILES.items()}


def is_negative(score: float | None, outcome: Mapping[str, float]) -> bool:
    """Whether feedback says that the answer was of no use: a thumb down, not solved, escalated."""
    return score == 0 or outcome.get("solved") == 0 or outcome.get("escalated", 0) > 0

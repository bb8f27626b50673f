"""Verdicts on a candidate: what must fail, what must not, and what is said beside it."""

from __future__ import annotations

import math

import msgspec
import pytest
from bench.statistics import METRICS, caught, false_alarms, toxic_caught

from proveout.evals.compare import Comparison, Metric, changed_most, compare, word_distance
from proveout.evals.plan import Effort, enough_repeats, plan
from proveout.evals.scorers import kinds
from proveout.evals.targets import judge_target, mistakes, parse_target

CORRECT = {"correct": Metric("correct", "binary", "higher", 0.05)}


def runs(scores: dict[str, list[float]]) -> dict[str, dict[str, list[float]]]:
    return {"correct": scores}


def right(n: int, wrong: int = 0) -> dict[str, list[float]]:
    return {f"case-{i}": [0.0 if i < wrong else 1.0] for i in range(n)}


def test_a_release_against_itself_rarely_fails() -> None:
    verdicts = false_alarms(10, 120, 2)
    assert verdicts["fail"] <= 2 and verdicts["pass"] + verdicts["inconclusive"] >= 8


def test_ten_points_on_120_cases_are_caught_with_the_planned_repeats() -> None:
    share, named, repeats = caught(0.1, 120, "hr", 6)
    assert share == 1 and named == 1 and 1 < repeats <= 20


def test_five_points_on_500_cases_are_caught_with_the_planned_repeats() -> None:
    assert caught(0.05, 500, "everywhere", 3)[0] == 1


def test_a_toxic_reply_in_a_hundred_is_caught() -> None:
    assert toxic_caught(0.01, 500, 8) >= 6 / 8


def test_the_same_answers_pass_where_enough_were_asked() -> None:
    assert compare(runs(right(120)), runs(right(120)), {}, CORRECT).verdict == "pass"
    few = compare(runs(right(20)), runs(right(20)), {}, CORRECT)
    assert few.verdict == "inconclusive"
    overall = few.metrics[0].overall
    assert overall.more_cases and compare(
        runs(right(20 + overall.more_cases)), runs(right(20 + overall.more_cases)), {}, CORRECT
    ).verdict in ("pass", "inconclusive")


def test_better_is_no_failure_and_direction_counts() -> None:
    assert compare(runs(right(100)), runs(right(100, 20)), {}, CORRECT).verdict == "pass"
    assert compare(runs(right(100, 20)), runs(right(100)), {}, CORRECT).verdict == "fail"
    lower = {"correct": Metric("correct", "binary", "lower", 0.05)}
    assert compare(runs(right(100, 20)), runs(right(100)), {}, lower).verdict == "pass"


def test_a_known_small_loss_within_the_margin_passes() -> None:
    found = compare(runs(right(5000, 60)), runs(right(5000)), {}, CORRECT).metrics[0].overall
    assert found.p < 0.001 and found.verdict == "pass" and found.low > -0.05


def test_slices_are_named_and_decide_nothing() -> None:
    tags = {f"case-{i}": frozenset({"hr" if i < 10 else "it"}) for i in range(400)}
    found = compare(runs(right(400, 8)), runs(right(400)), tags, {"correct": CORRECT["correct"]})
    assert found.worst_slice is not None and found.worst_slice.tag == "hr"
    assert found.metrics[0].slices["hr"].verdict == "fail" and found.metrics[0].slices["it"].difference == 0


def test_what_is_missing_never_passes() -> None:
    assert compare({}, {}, {}, CORRECT).verdict == "inconclusive"
    assert compare(runs(right(120)), runs(right(120)), {}, {}).verdict == "inconclusive"
    gone = right(120) | {f"case-{i}": [math.nan] for i in range(12)}
    found = compare(runs(gone), runs(right(120)), {}, CORRECT)
    assert found.verdict == "inconclusive" and found.metrics[0].overall.lost == 12
    assert "12 cases" in found.metrics[0].overall.reason


def test_amounts_fail_beyond_their_margin_only() -> None:
    slow = {"total_ms": METRICS["total_ms"]}
    base = {"total_ms": {f"c{i}": [100.0 + 7 * (i % 13)] for i in range(100)}}

    def times(factor: float) -> dict[str, dict[str, list[float]]]:
        jitter = {c: [v[0] * factor * (1 + 0.02 * ((hash_free(c) % 5) - 2))] for c, v in base["total_ms"].items()}
        return {"total_ms": jitter}

    def hash_free(case: str) -> int:
        return int(case[1:]) * 7

    assert compare(times(1.05), base, {}, slow).verdict == "pass"
    assert compare(times(1.2), base, {}, slow).verdict == "fail"


def test_metrics_that_never_differ_cost_the_others_nothing() -> None:
    many = {f"m{i}": Metric(f"m{i}", "binary", "higher", 0.05) for i in range(30)} | CORRECT
    same = {name: right(120) for name in many}
    found = compare(same | runs(right(120, 6)), same, {}, many)
    by_name = {c.metric.name: c.overall for c in found.metrics}
    assert by_name["correct"].p_adjusted == by_name["correct"].p <= 0.025


def test_a_comparison_survives_json() -> None:
    found = compare(runs(right(50, 3)), runs(right(50)), {"case-1": frozenset({"hr"})}, METRICS)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Comparison) == found


def test_metrics_are_checked() -> None:
    with pytest.raises(ValueError, match="margin"):
        Metric("x", "binary", "higher", -0.1)
    with pytest.raises(ValueError, match="limit"):
        Metric("x", "positive", "lower", 0.1, limit=0.1)


def test_answers_that_changed_most_come_first() -> None:
    before = {"a": "the sky is blue today", "b": "leave is 25 days", "c": "same", "gone": "x"}
    after = {"a": "the sky is blue now", "b": "ask your manager", "c": "same"}
    assert [c.case for c in changed_most(before, after, 5)] == ["b", "a"]
    assert word_distance("a b", "a b") == 0 == word_distance("", "") and word_distance("a", "b") == 1


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("correct", ">= 0.8", ("correct", ">=", 0.8, None)),
        ("unsupported", "< 1 %", ("unsupported", "<", 0.01, None)),
        ("ttft_p95", "<= 1 s", ("ttft_ms", "<=", 1000, 0.95)),
        ("total_ms_p50", "≤ 250 ms", ("total_ms", "<=", 250, 0.5)),
        ("cost_per_answer", "<= 0.002 USD", ("cost", "<=", 0.002, None)),
        ("correct", "most of them", None),
        ("correct", None, None),
    ],
)
def test_targets_are_read(name: str, text: object, read: tuple[object, ...] | None) -> None:
    target = parse_target(name, text)
    assert read == (target and (target.metric, target.relation, target.limit, target.level))


def test_targets_are_judged_by_what_is_sure() -> None:
    correct = parse_target("correct", ">= 0.8")
    unsupported = parse_target("unsupported", "< 0.01")
    p95 = parse_target("ttft_p95", "<= 1 s")
    assert correct and unsupported and p95

    def share(good: int, n: int) -> list[list[float]]:
        return [[1.0]] * good + [[0.0]] * (n - good)

    assert judge_target(correct, share(180, 200), "binary").verdict == "pass"
    assert judge_target(correct, share(130, 200), "binary").verdict == "fail"
    near = judge_target(correct, share(83, 100), "binary")
    assert near.verdict == "inconclusive" and near.more_cases and near.more_cases > 500
    assert judge_target(unsupported, share(0, 300), "unit").verdict == "pass"
    few = judge_target(unsupported, share(0, 200), "unit")
    assert few.verdict == "inconclusive" and few.more_cases == 99
    assert judge_target(p95, [[500.0 + i] for i in range(200)], "positive").verdict == "pass"
    assert judge_target(p95, [[900.0 + i] for i in range(200)], "positive").verdict == "fail"
    assert judge_target(p95, [[500.0 + i] for i in range(20)], "positive").more_cases == 39
    assert judge_target(correct, [], "binary").verdict == "inconclusive"


def test_a_target_at_the_end_of_the_scale_is_about_these_cases() -> None:
    never = parse_target("restricted", ">= 1")
    assert never and judge_target(never, [[1.0]] * 20, "binary").verdict == "pass"
    assert judge_target(never, [[1.0]] * 20 + [[0.0]], "binary").verdict == "fail"


def test_a_target_that_no_number_of_cases_shows_wants_ten() -> None:
    target = parse_target("correct", ">= 1")
    assert target is not None
    few, many = (judge_target(target, [[1.0]] * n, "binary") for n in (2, 40))
    assert (few.verdict, few.more_cases, many.verdict) == ("inconclusive", 8, "pass")
    assert "of these 40 cases, which alone are judged, at least 0.9278 with 95 % confidence" in many.reason


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("correct", 0.9, 'write it as ">= 0.8"'),
        ("facts", "> = 0.9", "cannot be read"),
        ("answering", ">= 0.9 of cases", "cannot be read"),
        ("ttft_p95", "<= 1", "say the unit"),
        ("unsuported", "< 1 %", "did you mean `unsupported`?"),
        ("correct", ">= 80", "from 0 to 1"),
        ("correct", ">= 0.8", None),
        ("total_p95", "<= 2 s", None),
        ("cost_per_answer", "<= 0.002 USD", None),
        ("deflection", "a third fewer tickets", None),
        ("deflection", ">= 30 %", None),
        ("polite", ">= 0.9", None),
    ],
)
def test_targets_that_are_meant_to_be_measured(name: str, text: object, said: str | None) -> None:
    known = {**kinds(), "polite": "binary"}
    found = dict(mistakes({name: text}, known))
    assert found == {} if said is None else said in found[name]


def test_what_would_decide_between_the_same_answers_does() -> None:
    """As many cases as it asks for, and not one fewer."""
    metric = {"correct": Metric("correct", "binary", "higher", 0.05)}
    for n in (40, 71):
        (found,) = compare(runs(right(n)), runs(right(n)), {}, metric).metrics
        assert found.overall.verdict == "inconclusive" and found.overall.more_cases == 72 - n
    assert compare(runs(right(72)), runs(right(72)), {}, metric).verdict == "pass"


def test_plans() -> None:
    made = plan(0.1, 120)
    assert made.repeats and not made.measured and made.answers == 240 * made.repeats
    steady = plan(0.1, 120, past=[[1.0, 1.0]] * 100)
    assert steady.repeats == 1 and steady.measured and len(steady.options) == 1
    small = plan(0.02, 50, biased=7)
    assert small.repeats is None and small.answers == min(option.answers for option in small.options)
    assert (small.bias.questions, small.bias.answers % 7) == (7, 0) and plan(0.1, 120).bias.answers == 0
    asked = plan(0.1, 120, biased=30, effort=Effort(seconds=4, usd=0.5, measured=True)).bias
    assert asked.answers == 30 * (made.repeats or 0) and (asked.seconds, asked.usd) == (
        asked.answers,
        asked.answers / 2,
    )
    assert plan(0.1).cases == plan(0.1).options[0].cases > 120
    assert (enough_repeats(0.1, 120, 0.1) or 99) < (enough_repeats(0.1, 120, 0.1, alpha=0.005) or 0)
    # by hand: 0.1 √120 = 1.095; 1.96 √(0.1 + 0.032) + 2.054 √0.032 = 1.080 with ten repeats, 1.109 with nine
    assert enough_repeats(0.1, 120, 0.16) == 10
    with pytest.raises(ValueError, match="effect"):
        plan(0)

"""Reports: one page without anything from elsewhere, and what machines read."""

from __future__ import annotations

import html
import json
import math
import random
import re
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from proveout.evals.bias import Gap
from proveout.evals.cases import Case, Numeric
from proveout.evals.compare import Metric, changed_most, compare
from proveout.evals.judge import Agreement, Judgement, Preferences
from proveout.evals.plots import forest
from proveout.evals.report import (
    Missed,
    Report,
    Score,
    as_html,
    as_json,
    as_junit,
    as_markdown,
    expectation,
    number,
    verdict_of,
)
from proveout.evals.statistics import Interval, amounts_interval, scores_interval
from proveout.evals.targets import judge_target, parse_target

EVIL = "</pre><script>alert('x')</script> | a\x00b & \"c\""


def scores(seed: int, share: float, n: int = 200) -> dict[str, list[float]]:
    chance = random.Random(seed)
    return {f"c{i}": [float(chance.random() < share)] for i in range(n)}


@pytest.fixture(scope="module")
def report() -> Report:
    now, before = scores(1, 0.6), scores(2, 0.9)
    tags = {case: frozenset({"hr" if n % 2 else "it"}) for n, case in enumerate(now)}
    target = parse_target("correct", ">= 0.8")
    assert target
    return Report(
        release="helpdesk@2",
        digest="sha256:aa",
        dataset="sha256:bb",
        made="2026-11-22T20:00:00Z",
        cases=200,
        scores=[
            Score("correct", "binary", "higher", scores_interval(list(now.values()))),
            Score("total_ms", "positive", "lower", amounts_interval([[100.0], [140.0], [180.0]])),
            Score("exact", "binary", "higher", None),
        ],
        targets=[judge_target(target, list(now.values()), "binary")],
        baseline="helpdesk@1",
        comparison=compare(
            {"correct": now}, {"correct": before}, tags, {"correct": Metric("correct", "binary", "higher", 0.05)}
        ),
        missed=[Missed("c1", EVIL, EVIL, ["correct"], "25 days")],
        changes=changed_most({"c1": "old words"}, {"c1": EVIL}),
        usd=0.1234,
        notes=["2 cases were left out: nobody reviewed them."],
    )


def test_the_page_stands_alone_and_holds_what_it_should(report: Report) -> None:
    page = as_html(report)
    assert not re.search(r"<script|<link|<img|@import|url\(|src=|https?://", page)
    assert "&lt;script&gt;" in page and "default-src 'none'" in page
    for part in ("helpdesk@2", "sha256:aa", "sha256:bb", "0.1234 USD", "nobody reviewed", "Worst slice", "&gt;= 0.8"):
        assert part in page, part
    assert page.count("<svg") == 3  # scores, differences, slices of `correct`
    assert len(page) < 30_000


def test_a_report_without_a_comparison_is_whole_too() -> None:
    bare = Report(release="a@1", digest="d", dataset="s", made="now", cases=0, scores=[])
    assert bare.verdict == "inconclusive"
    assert "<h1>a@1" in as_html(bare) and "a@1" in as_markdown(bare) and "testsuites" in as_junit(bare)


def test_one_verdict(report: Report) -> None:
    assert report.verdict == "fail"
    passing = judge_target(parse_target("correct", ">= 0.5"), list(scores(1, 0.9).values()), "binary")  # type: ignore[arg-type]
    fields = {"release": "a", "digest": "d", "dataset": "s", "made": "now", "cases": 1, "scores": []}
    assert Report(**fields, targets=[passing]).verdict == "pass"  # type: ignore[arg-type]
    for p, verdict in ((0.001, "fail"), (0.5, "pass")):
        gap = Gap("gender", "woman", "man", Interval(-0.2, -0.3, -0.1, 40), p)
        biased = Report(**fields, targets=[passing], bias=[gap])  # type: ignore[arg-type]
        assert biased.verdict == verdict
        for written in (as_html(biased), as_markdown(biased), as_junit(biased)):
            assert "gender: woman, man" in written
        assert "−0.200" in as_html(biased) and "−0.200" in as_markdown(biased)
        assert as_junit(biased).count("<failure") == 2 * (verdict == "fail")  # the gap, and the verdict


def judgement(kappa: Interval | None) -> Judgement:
    agreement = kappa and Agreement(kappa, Interval(0.9, 0.8, 0.95, 120))
    pairs = Preferences(wins=5, losses=2, ties=3, net=Interval(0.3, -0.1, 0.7, 10), earlier=0.1, later=0.2)
    figures = {"repeats": 2, "variance": 0.02, "unread": 0.25, "corrected": 12, "asked": 9, "usd": 0.5}
    return Judgement(model="up/j", digest="d", agreement=agreement, pairs=pairs, **figures)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kappa", "standing"),
    [
        (Interval(0.6, 0.5, 0.7, 120), "decides: κ 0.60 (0.50 to 0.70) of 120 labels, floor 0.40"),
        (Interval(0.6, 0.39, 0.7, 120), "advises only: κ 0.60 (0.39 to 0.70) of 120 labels, floor 0.40"),
        (Interval(0.6, 0.5, 0.7, 99), "advises only: κ 0.60 (0.50 to 0.70) of 99 labels (100 are needed), floor 0.40"),
        (None, "advises only: no labels"),
    ],
)
def test_every_report_says_what_the_judge_may(kappa: Interval | None, standing: str) -> None:
    one = Report(release="a", digest="d", dataset="s", made="now", cases=1, scores=[], judge=judgement(kappa))
    for page in (as_html(one), as_markdown(one)):
        assert standing in html.unescape(page) and "5 better, 2 worse, 3 as good" in page and "decided 30%" in page
    assert one.judge and (standing in as_junit(one)) == (not one.judge.decides)


def test_what_no_test_failed_over_is_not_all_green() -> None:
    target = parse_target("correct", ">= 0.5")
    assert target
    good = judge_target(target, list(scores(1, 0.9).values()), "binary")
    fields = {"release": "a", "digest": "d", "dataset": "s", "made": "now", "cases": 1, "scores": []}
    for told, said in (
        ({"targets": [good]}, None),
        ({"targets": [good], "whole": False}, "the budget ended it before every question was asked"),
        ({"targets": [good], "failing": True}, "so many calls failed that nothing is decided"),
        ({}, "no target and no comparison decides"),
    ):
        report = Report(**fields, **told)  # type: ignore[arg-type]
        root = ElementTree.fromstring(as_junit(report))
        skipped = root.find("testsuite[@name='verdict']/testcase[@name='verdict']/skipped")
        assert (None if skipped is None else skipped.get("message")) == said and report.reason == (said or "")


def test_what_was_missed_is_told_with_what_was_expected(report: Report) -> None:
    for written in (as_html(report), as_markdown(report), as_junit(report), as_json(report)):
        assert "25 days" in written


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"unanswerable": True}, "a refusal"),
        ({"facts": ["25 days", ["a", "one"]], "forbidden": ["30"], "reference": "r"}, "25 days; a or one; not: 30"),
        ({"reference": "All of it."}, "All of it."),
        ({"numeric": Numeric(12, 0.5)}, "the number 12, at most 0.5 away"),
        ({"exact": "B", "regex": "^B$"}, "B; the pattern ^B$"),
        ({"json_schema": {}}, "JSON that fits its schema"),
    ],
)
def test_what_a_case_expects(fields: dict[str, Any], said: str) -> None:
    assert expectation(Case("a", "q?", **fields)) == said


def test_what_only_advises_neither_blocks_nor_passes() -> None:
    target = parse_target("judge", ">= 0.8")
    assert target
    good, bad = (judge_target(target, [[score]] * 100, "unit") for score in (0.99, 0.1))
    assert (verdict_of([good], None, [], True), verdict_of([bad], None, [], True)) == ("pass", "fail")
    advice = [msgspec.structs.replace(word, advises=True) for word in (good, bad)]
    assert [verdict_of([word], None, [], True) for word in advice] == ["inconclusive"] * 2
    assert [verdict_of([word, good], None, [], True) for word in advice] == ["pass"] * 2
    assert [verdict_of([word, bad], None, [], True) for word in advice] == ["fail"] * 2


def test_junit_says_what_failed(report: Report) -> None:
    root = ElementTree.fromstring(as_junit(report))
    suites = {suite.get("name"): suite for suite in root}
    assert set(suites) == {"targets", "against helpdesk@1", "verdict"}
    assert suites["targets"].get("failures") == "1" and suites["targets"].get("tests") == "1"
    failure = suites["against helpdesk@1"].find("testcase/failure")
    assert failure is not None and failure.get("message")


def test_markdown_is_not_broken_by_what_it_shows(report: Report) -> None:
    text = as_markdown(report)
    assert "## helpdesk@2: fail" in text and "Worst slice: " in text and "worse than chance explains" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


def test_json_is_whole(report: Report) -> None:
    told = json.loads(as_json(report))
    assert told["verdict"] == "fail" and told["comparison"]["metrics"][0]["metric"]["name"] == "correct"


def test_forests_place_estimates_between_bounds() -> None:
    one = forest([("a", "", "pass", Interval(0.5, 0.25, 0.75, 10))], 0.0, 1.0)
    assert (one.rows[0].left, one.rows[0].x, one.rows[0].right, one.zero) == (25.0, 50.0, 75.0, None)
    both = forest(
        [("a", "", "fail", Interval(-0.1, -0.2, 0.0, 10)), ("b", "", "", Interval(0.1, -math.inf, math.inf, 1))]
    )
    assert both.zero == 50.0 and both.height == 20.0
    assert both.rows[0].left < both.rows[0].x < both.rows[0].right == 50.0
    assert (both.rows[1].left, both.rows[1].right) == (0.0, 100.0)
    assert forest([]).rows == []


@pytest.mark.parametrize(
    ("value", "sign", "expected"),
    [(0.12345, "", "0.123"), (-0.5, "+", "−0.500"), (0.5, "+", "+0.500"), (1234.5, "", "1,234"),
     (0.00012, "", "0.00012"), (None, "", "–"), (math.inf, "", "∞"), (-math.inf, "+", "−∞"), (math.nan, "", "–"),
     (0.0, "", "0.000")],
)  # fmt: skip
def test_numbers(value: float | None, sign: str, expected: str) -> None:
    assert number(value, sign) == expected

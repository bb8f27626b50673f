"""What a stage demands, judged on evidence of every age, verdict and author."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from proveout.domain import Evidence, KnowledgeUse, Manifest, ModelChoice, ModelUse, Parameters, PromptTexts, Release
from proveout.errors import StartRefused
from proveout.releases.evidence import standard
from proveout.releases.gate import lacks
from proveout.releases.policy import Criterion, read_policy

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MANIFEST = Manifest("desk", (ModelChoice(ModelUse("echo", "1")),), (), Parameters(), PromptTexts("", ""), (), "quote")
RELEASE = Release("red", "desk", 3, "sha256:aa", MANIFEST, {}, NOW, author="key_author")


SEEN = {"standard": standard(RELEASE.facts)}
OTHERWISE = [  # facts that came later, and what is said of them
    ({"targets": {"correct": ">= 0.1"}}, "other targets"),
    ({"golden": "sha256:1", "scorers": "sha256:2"}, "other golden questions and scorers"),
]


def evidence(kind: str = "evaluation", **given: Any) -> Evidence:
    made = Evidence("e1", "red", "desk", RELEASE.digest, kind, "measured", "pass", "key_ann", SEEN, NOW, None)
    return replace(made, **given)


def criterion(**demands: Any) -> Criterion:
    return Criterion(id="c", reason="r", source="s", **demands)


EVALUATED = criterion(evidence="evaluation", basis="measured", max_age_days=7)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([evidence()], ""),
        ([], "no measured evaluation"),
        ([evidence(verdict="fail")], "says fail"),
        ([evidence(verdict="inconclusive")], "says inconclusive"),
        ([evidence(basis="attested")], "no measured evaluation"),
        ([evidence("drill")], "no measured evaluation"),
        ([evidence(recorded=NOW - timedelta(days=7))], ""),
        ([evidence(recorded=NOW - timedelta(days=7, seconds=1))], "older than 7 days"),
        ([evidence(expires=NOW + timedelta(seconds=1))], ""),
        ([evidence(expires=NOW)], "held until"),
        ([evidence(verdict="fail"), evidence()], "says fail"),  # the newest counts, not the best
        ([evidence(), evidence(verdict="fail")], ""),
    ],
)
def test_evidence(found: list[Evidence], said: str) -> None:
    lack = lacks(EVALUATED, RELEASE, "beta", found, (), NOW)
    assert said in lack and bool(lack) == bool(said)
    assert not lack or "proveout eval run desk@3" in lack  # says how to mend it


def approval(author: str, stage: str = "production", verdict: str = "pass", **given: Any) -> Evidence:
    return evidence(
        "approval", basis="attested", author=author, verdict=verdict, facts={"stage": stage, **SEEN}, **given
    )


@pytest.mark.parametrize(
    ("words", "met"),
    [
        ([], False),
        ([approval("key_bob")], True),
        ([approval("key_author")], False),
        ([approval("key_bob", "beta")], False),
        ([approval("key_bob", verdict="fail"), approval("key_bob")], False),  # newest first: taken back
        ([approval("key_bob"), approval("key_bob", verdict="fail")], True),
        ([approval("key_cid", verdict="fail"), approval("key_bob")], False),  # one against is enough
    ],
)
def test_approvals(words: list[Evidence], met: bool) -> None:
    assert (lacks(criterion(approvals=1), RELEASE, "production", words, (), NOW) == "") is met


def test_two_approvals_are_of_two() -> None:
    twice = [approval("key_bob"), approval("key_bob")]
    assert "1 more approval" in lacks(criterion(approvals=2), RELEASE, "production", twice, (), NOW)
    assert not lacks(criterion(approvals=2), RELEASE, "production", [*twice, approval("key_cid")], (), NOW)


@pytest.mark.parametrize(("later", "said"), OTHERWISE)
def test_evidence_counts_for_the_targets_and_questions_that_it_saw(later: dict[str, Any], said: str) -> None:
    changed = replace(RELEASE, facts={"purpose": "the same", **later})
    assert said in lacks(EVALUATED, changed, "beta", [evidence()], (), NOW)
    lack = lacks(criterion(approvals=1), changed, "production", [approval("key_bob")], (), NOW)
    assert f"e1 saw {said}" in lack and "proveout release approve desk@3" in lack
    anew = replace(approval("key_cid"), facts={"stage": "production", "standard": standard(changed.facts)})
    assert not lacks(criterion(approvals=1), changed, "production", [anew, approval("key_bob")], (), NOW)
    told = replace(RELEASE, facts={"purpose": "told in other words"})
    assert not lacks(EVALUATED, told, "beta", [evidence()], (), NOW)  # what nothing is measured by may change


def test_knowledge_that_moves_is_not_what_was_measured() -> None:
    demand = criterion(pinned=True)
    assert not lacks(demand, RELEASE, "beta", [], (), NOW)
    for snapshot, said in (("sha256:s", ""), ("", "follows whatever handbook holds")):
        manifest = replace(MANIFEST, knowledge=(KnowledgeUse("handbook", snapshot),))
        lack = lacks(demand, replace(RELEASE, manifest=manifest), "beta", [], (), NOW)
        assert said in lack and bool(lack) == bool(said)


def test_it_was_in_the_stage_before_by_its_digest() -> None:
    demand = criterion(stable_in="beta")
    assert "never the stable release of beta" in lacks(demand, RELEASE, "production", [], {"sha256:bb"}, NOW)
    assert not lacks(demand, RELEASE, "production", [], {"sha256:aa"}, NOW)


def test_the_shipped_policy_gates_both_stages() -> None:
    policy = read_policy(None)
    assert [c.id for c in policy.stages["beta"]] == ["beta.evaluation", "beta.pinned"]
    production = {c.id for c in policy.stages["production"]}
    assert production == {f"production.{what}" for what in ("pinned", "evaluation", "beta", "drill", "approval")}
    assert all(c.reason and c.source for criteria in policy.stages.values() for c in criteria)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stages: {beta: []}", "no gate"),
        ("stages: {beta: [], production: [{id: a, reason: r, source: s}]}", "demands one of"),
        (
            "stages: {beta: [], production: [{id: a, reason: r, source: s, evidence: x, approvals: 1}]}",
            "demands one of",
        ),
        ("stages: {beta: [], production: [{id: a, source: s, approvals: 1}]}", "reason"),
        ("stages: {beta: [], production: [{id: a, reason: r, source: s, evidnce: x}]}", "evidnce"),
        (
            "stages: {beta: [{id: a, reason: r, source: s, approvals: 1}], "
            "production: [{id: a, reason: r, source: s, approvals: 1}]}",
            "id of its own",
        ),
        ("stages: [", "no policy"),
    ],
)
def test_a_policy_that_is_wrong_stops_the_start(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "stages.yaml"
    file.write_text(text)
    with pytest.raises(StartRefused, match=said):
        read_policy(file)


def test_who_made_what_it_comes_from_is_no_second_pair_of_eyes() -> None:
    derived = replace(RELEASE, origins=frozenset({"key_dev"}))
    assert lacks(criterion(approvals=1), derived, "production", [approval("key_dev")], (), NOW)
    assert not lacks(criterion(approvals=1), derived, "production", [approval("key_bob")], (), NOW)


def test_the_shipped_policy_says_how_stages_follow() -> None:
    shipped = read_policy(None).refresh
    assert [c.id for c in shipped.criteria] == ["refresh.data", "refresh.quality"]
    assert {bound.figure for bound in shipped.tests} == {"lost", "unread", "empty", "duplicates", "widened"}
    assert all(bound.reason and bound.source for bound in shipped.tests)
    assert all(c.reason and c.source for c in shipped.criteria)


def test_a_figure_that_nobody_measures_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "stages.yaml"
    bound = "{id: a, figure: lots, most: 0.1, reason: r, source: s}"
    file.write_text(f"stages: {{beta: [], production: []}}\nrefresh: {{tests: [{bound}]}}")
    with pytest.raises(StartRefused, match="lots"):
        read_policy(file)
    file.write_text("stages: {beta: [], production: []}")
    assert read_policy(file).refresh.criteria == ()

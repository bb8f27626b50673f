"""Counterfactual bias: what is swapped, and what gaps are found."""

from __future__ import annotations

import random

import pytest

from proveout.evals.bias import SWAPS, gaps, variants
from proveout.evals.cases import Case, Turn


def swapped(question: str, attribute: str) -> dict[str, str]:
    made = variants([Case("a", question, facts=["25"])])
    return {variant.group: variant.case.question for variant in made if variant.attribute == attribute}


def test_places_of_words_match() -> None:
    for attribute, groups in SWAPS.items():
        assert len({len(words.split()) for words in groups.values()}) == 1, attribute
        assert len(groups) > 1


@pytest.mark.parametrize(
    ("question", "attribute", "group", "expected"),
    [
        ("May Omar carry over his days?", "name", "Polish", "May Piotr carry over his days?"),
        ("Can he take his leave if we ask him himself?", "gender", "woman",
         "Can she take her leave if we ask her herself?"),
        ("Her manager asked her, and she saw her badge.", "gender", "man",
         "His manager asked him, and he saw his badge."),
        ("Give it to her.", "gender", "man", "Give it to him."),
        ("May an old colleague work at night?", "age", "young", "May a young colleague work at night?"),
        ("Does a British employee need a visa?", "nationality", "Indian", "Does an Indian employee need a visa?"),
        ("Does a British employee need a visa for India?", "nationality", "Indian", None),
        ("Mr Lee's wife is ill.", "gender", "woman", None),
        ("Who gets the old badge back?", "age", "young", None),
        ("The managers of Manchester", "gender", "woman", None),
    ],
)  # fmt: skip
def test_what_is_swapped(question: str, attribute: str, group: str, expected: str | None) -> None:
    assert swapped(question, attribute).get(group) == expected


def test_conversations_are_swapped_whole_and_answers_that_depend_on_it_are_left_out() -> None:
    turns = [Turn("user", "Priya is new."), Turn("assistant", "Welcome, Priya!"), Turn("user", "May Priya travel?")]
    made = variants([Case("a", conversation=turns, facts=["yes"])])
    chinese = next(v.case for v in made if v.group == "Chinese")
    assert [t.content for t in chinese.conversation] == ["Mei is new.", "Welcome, Mei!", "May Mei travel?"]
    assert chinese.id == "a#name=Chinese" and len(made) == 6
    assert not variants([Case("a", "Who is Priya's manager?", facts=[["Ann", "Priya Rao"]])])
    assert not variants([Case("a", "How long is the leave?", facts=["25 days"])])


CASES = [Case(f"c{n}", "May she carry over her days?", facts=["f"]) for n in range(200)]
MADE = variants(CASES)


def outcomes(seed: int, gap: float) -> dict[str, list[float]]:
    """Five repeats of each; how hard a question is differs, and men are answered right more often by `gap`."""
    chance = random.Random(seed)
    ease = {case.id: chance.uniform(0.4, 0.9) for case in CASES}
    return {
        v.case.id: [float(chance.random() < ease[v.original] + gap * (v.group == "man")) for _ in range(5)]
        for v in MADE
    }


def test_a_planted_gap_is_found_and_sized() -> None:
    found = [gaps(MADE, outcomes(seed, 0.10))[0] for seed in range(12)]
    assert sum(gap.alarm for gap in found) >= 11
    inside = sum(gap.difference.low <= (0.1 if gap.group == "man" else -0.1) <= gap.difference.high for gap in found)
    assert inside >= 10  # of 12 intervals of 95 %
    assert {(gap.group, gap.other) for gap in found} == {("woman", "man")}


def test_without_a_gap_alarms_are_rare() -> None:
    assert sum(gaps(MADE, outcomes(seed, 0.0))[0].alarm for seed in range(20)) <= 3


def test_many_groups_are_corrected_for() -> None:
    made = variants([Case(f"c{n}", "Does Wei need a visa?", facts=["f"]) for n in range(60)])
    alarms = 0
    for seed in range(20):
        chance = random.Random(seed)
        found = gaps(made, {v.case.id: [float(chance.random() < 0.5)] for v in made})
        assert len(found) == 15
        alarms += any(gap.alarm for gap in found)
    assert alarms <= 4
    assert gaps(made, {}) == []

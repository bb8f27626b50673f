"""Near-duplicates of questions, in other texts and across splits."""

from __future__ import annotations

from proveout.evals.cases import Case
from proveout.evals.leakage import Leak, leaks, leaks_between_splits

CASES = [
    Case("same", "How many days of annual leave does a full-time employee in Leeds have?", facts=["25"]),
    Case("near", "How many days of annual leave does a full-time employee in Gent have?", facts=["27"]),
    Case("other", "Who approves the hire of a car abroad?", facts=["Legal"]),
    Case("short", "Sick pay?", facts=["80 %"]),
]


def test_a_question_is_found_in_a_longer_text_whatever_its_case() -> None:
    text = "Q: how many days of annual leave does a FULL-TIME employee in Leeds have? A: 25. Sick pay rules: none."
    found = leaks(CASES, {"train-1": "Cars are hired abroad by the Legal department.", "train-2": text})
    assert [(leak.case, leak.where) for leak in found] == [
        ("same", "train-2"),
        ("short", "train-2"),
        ("near", "train-2"),
    ]
    assert found[0].share == 1.0 and 0.6 <= found[2].share < 1.0


def test_shared_openings_are_no_leak() -> None:
    assert leaks([Case("a", "How many days of annual leave may be sold?", facts=["5"])],
                 {"t": "How many days of training does the law ask for in a year?"}) == []  # fmt: skip
    assert leaks(CASES, {}) == []


def test_splits_are_held_against_the_test_split() -> None:
    train = Case("t", "How many days of annual leave does a full-time employee in Leeds have now?", split="train")
    assert leaks_between_splits([CASES[0], CASES[2], train]) == [Leak("same", "t", 1.0)]

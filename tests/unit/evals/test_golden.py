"""Golden questions and their scorers."""

from __future__ import annotations

import pytest

from proveout.access.rights import ROLES
from proveout.domain import Key, Outcome, Principal
from proveout.errors import InvalidInput
from proveout.evals.golden import Case, read_golden
from proveout.evals.runner import check_groups
from proveout.evals.scorers import SCORERS, Delivered


def scores(
    case: Case, text: str, outcome: Outcome = Outcome.ANSWERED, documents: tuple[str, ...] = ()
) -> dict[str, object]:
    delivered = Delivered(text, outcome, documents, quoted=False, total_ms=1)
    return {name: score(case, delivered) for name, score in SCORERS.items()}


def test_every_mistake_is_named_with_its_line() -> None:
    lines = [
        '{"id": "a", "question": "q", "facts": ["f"]}',
        "",
        '{"id": "a", "question": "q", "facts": ["f"]}',
        '{"id": "b", "question": "q"}',
        '{"id": "c", "question": "q", "facts": ["f"], "unanswerable": true}',
        '{"id": "d", "question": "q", "fact": ["f"]}',
        "{",
    ]
    with pytest.raises(InvalidInput) as caught:
        read_golden("\n".join(lines), "g.jsonl")
    said = caught.value.message.splitlines()
    assert [line.split(": ")[0] for line in said] == [f"g.jsonl:{n}" for n in (3, 4, 5, 6, 7)]
    assert "stands twice" in said[0] and "not neither" in said[1] and "`fact`" in said[3]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("You get **25 days** [1].", 1.0),
        ("You get 25\n  Days a year", 1.0),
        ("You get 125 days", 0.0),
        ("You get 25 daysies", 0.0),
        ("", 0.0),
    ],
)
def test_facts_stand_as_whole_words(text: str, expected: float) -> None:
    assert scores(Case("a", "q", facts=["25 days"]), text)["facts"] == expected


def test_one_alternative_is_enough_and_all_facts_are_needed() -> None:
    case = Case("a", "q", facts=["days", ["25", "twenty-five"]])
    assert scores(case, "twenty-five days")["facts"] == 1.0
    assert scores(case, "twenty-five weeks")["facts"] == 0.0


def test_refusal_counts_only_where_it_is_due() -> None:
    answerable = Case("a", "q", facts=["f"], documents=["x.md", "y.md"])
    said = scores(answerable, "f", documents=("z.md", "y.md"))
    assert said == {"retrieval": 1.0, "facts": 1.0, "refusal": None, "answering": 1.0, "restricted": None}
    assert scores(answerable, "sorry", Outcome.REFUSED)["answering"] == 0.0
    unanswerable = Case("b", "q", unanswerable=True)
    assert scores(unanswerable, "sorry", Outcome.REFUSED) == {
        "retrieval": None, "facts": None, "refusal": 1.0, "answering": None, "restricted": None
    }  # fmt: skip
    assert scores(unanswerable, "42")["refusal"] == 0.0


def test_a_document_that_the_asker_may_not_read_must_not_be_found() -> None:
    outside = Case("a", "q", documents=["pay.md"], unanswerable=True)
    assert scores(outside, "sorry", Outcome.REFUSED, ("leave.md",))["restricted"] == 1.0
    assert scores(outside, "sorry", Outcome.REFUSED, ("leave.md", "pay.md"))["restricted"] == 0.0


@pytest.mark.parametrize(("role", "groups", "allowed"), [
    ("owner", [], True), ("developer", ["hr"], True), ("developer", ["finance"], False), ("developer", [], False)
])  # fmt: skip
def test_nobody_asks_in_a_group_that_they_could_not_be_in(role: str, groups: list[str], allowed: bool) -> None:
    principal = Principal(Key("k", "name", "default", role, frozenset(groups)), ROLES[role])
    cases = [Case("a", "q", facts=["f"], groups=["hr"]), Case("b", "q", facts=["f"])]
    if allowed:
        check_groups(cases, principal)
        return
    with pytest.raises(InvalidInput, match="not in \\(hr\\)"):
        check_groups(cases, principal)

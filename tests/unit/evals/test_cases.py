"""Data sets: what is read, what is refused, what addresses and splits them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from proveout.access.rights import ROLES
from proveout.domain import Key, Message, Principal
from proveout.errors import InvalidInput
from proveout.evals.cases import Case, Turn, deal, digest, distinct, read_cases, write_cases
from proveout.evals.runner import check_groups

EXAMPLES = Path(__file__).parents[3] / "examples"


def said(*lines: str) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        read_cases("\n".join(lines), "g.jsonl")
    return caught.value.message.splitlines()


def test_every_mistake_is_named_with_its_line() -> None:
    lines = said(
        '{"id": "a", "question": "q", "facts": ["f"]}',
        "",
        '{"id": "a", "question": "q", "facts": ["f"]}',
        '{"id": "b", "question": "q"}',
        '{"id": "c", "question": "q", "facts": ["f"], "unanswerable": true}',
        '{"id": "d", "question": "q", "fact": ["f"]}',
        "{",
        '{"id": "e", "question": "q", "facts": ["f"], "paraphrase_of": "x"}',
    )
    assert [line.split(": ")[0] for line in lines] == [f"g.jsonl:{n}" for n in (3, 4, 5, 6, 7, 8)]
    assert "stands twice" in lines[0] and "not neither" in lines[1] and "`fact`: did you mean `facts`" in lines[3]
    assert "no other case" in lines[5]


def test_all_mistakes_of_a_line_are_said_at_once() -> None:
    lines = said('{"question": 3, "factss": [], "numeric": {"value": "x"}, "origin": "air", "split": "Test 1"}')
    for part in ("`id` is missing", "question:", "`factss`", "numeric:", "origin:", "split:"):
        assert any(part in line for line in lines), part
    assert len(lines) == 6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ('"question": "q", "conversation": [{"role": "user", "content": "q"}], "facts": ["f"]', "not both"),
        ('"facts": ["f"]', "not neither"),
        ('"conversation": [{"role": "assistant", "content": "a"}], "facts": ["f"]', "last turn"),
        ('"question": "q", "facts": [""]', "empty text"),
        ('"question": "q", "facts": [["f", ""]]', "empty text"),
        ('"question": "q", "facts": [[]]', "empty text"),
        ('"question": "q", "regex": "("', "regex: missing"),
        ('"question": "q", "json_schema": {"type": "objekt"}', "json_schema: "),
        ('"question": "q", "facts": ["f"], "numeric": {"value": 1, "tolerance": -1}', "numeric: Expected `float` >= 0"),
    ],
)
def test_contradictions_are_refused(fields: str, message: str) -> None:
    assert message in said('{"id": "a", ' + fields + "}")[0]


def test_what_nobody_wrote_counts_once_it_is_reviewed() -> None:
    draft, done = read_cases(
        '{"id": "a", "question": "q", "origin": "traffic"}\n'
        '{"id": "b", "question": "q", "origin": "traffic", "reviewed": "ann@example.com", "facts": ["f"]}',
        "g.jsonl",
    )
    assert (draft.counts, done.counts) == (False, True)
    assert "not neither" in said('{"id": "b", "question": "q", "origin": "traffic", "reviewed": "ann@example.com"}')[0]


def test_copies_and_what_was_trained_on_show_nothing() -> None:
    asked = [Case("a", "Who?", facts=["I"]), Case("b", "Who?", facts=["me"]), Case("c", "Who?", groups=["hr"])]
    assert [case.id for case in distinct(asked)] == ["a", "c"]
    assert not Case("a", "Who?", facts=["I"], split="train").counts and asked[0].counts
    assert said('{"id": "a\\u0000", "question": "q", "facts": ["f"]}') != []


def test_a_conversation_is_sent_whole_and_asks_its_last_turn() -> None:
    turns = [Turn("user", "Who made it?"), Turn("assistant", "Hollins."), Turn("user", "When?")]
    case = Case("a", conversation=turns, facts=["1999"])
    assert case.asked == "When?"
    assert case.messages[0] == Message("user", "Who made it?") and len(case.messages) == 3


@pytest.mark.parametrize("app", ["helpdesk", "drafting"])
def test_the_examples_are_read_and_written_back(app: str) -> None:
    cases = read_cases((EXAMPLES / app / "evals" / "golden.jsonl").read_text(), "golden.jsonl")
    assert cases and all(case.counts and case.split == "test" for case in cases)
    again = read_cases(write_cases(cases), "again")
    assert again == cases and digest(again) == digest(cases)


def test_a_digest_is_of_content_alone() -> None:
    a = read_cases('{"id": "a", "question": "q", "facts": ["f"], "unanswerable": false, "tags": ["x", "y"]}', "")
    b = read_cases('{"facts": ["f"], "id": "a", "tags": ["y", "x"], "question": "q"}', "")
    other = Case("b", "q", facts=["f"])
    assert digest(a) == digest(b)
    assert digest([*a, other]) == digest([other, *b])
    assert len({digest(a), digest([*a, other]), digest([other]), digest([Case("b", "q", facts=["g"])])}) == 4


def test_splits_are_dealt_by_id_and_paraphrases_stay_together() -> None:
    cases = [Case(f"c{n}", "q", facts=["f"]) for n in range(2000)]
    cases += [Case(f"p{n}", "q", facts=["f"], paraphrase_of=f"c{n}") for n in range(200)]
    cases += [Case("x", "q", facts=["f"], paraphrase_of="y"), Case("y", "q", facts=["f"], paraphrase_of="x")]
    dealt = {case.id: case.split for case in deal(cases, {"train": 0.6, "dev": 0.1, "test": 0.3})}
    share = sum(split == "train" for split in dealt.values()) / len(dealt)
    assert 0.56 < share < 0.64 and set(dealt.values()) == {"train", "dev", "test"}
    assert all(dealt[f"p{n}"] == dealt[f"c{n}"] for n in range(200))
    fewer = random.Random(1).sample(cases[:2000], 500)
    assert all(dealt[case.id] == case.split for case in deal(fewer, {"train": 0.6, "dev": 0.1, "test": 0.3}))


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

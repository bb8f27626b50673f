"""Scorers, each on answers whose score is known."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from proveout.domain import Citation, Outcome, Passage, Support, Usage, Verdict
from proveout.evals.cases import Case, Numeric
from proveout.evals.scorers import Delivered, scorers
from proveout.evals.scorers.delivered import Found
from proveout.evals.scorers.meaning import agreeing, consistency, paraphrases
from proveout.evals.scorers.personal_data import leaked, mask
from proveout.evals.scorers.toxicity import Toxicity, bare


async def embed(texts: list[str]) -> NDArray[np.float32]:
    """Bags of letters, of length 1."""
    counts = np.array([[text.lower().count(chr(97 + n)) for n in range(26)] for text in texts], np.float32)
    vectors: NDArray[np.float32] = counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1)
    return vectors


async def weigh(answer: str, passages: Sequence[Passage]) -> list[Support]:
    said = [s for s in answer.split(". ") if s]
    return [Support(s, any(s in p.text for p in passages), 1.0, None) for s in said]


SCORERS = {name: s for name, s in scorers(embed, weigh).items() if name != "toxicity"}  # other vectors


def score(name: str, case: Case, text: str = "", **more: Any) -> float | None:
    fields = {"outcome": Outcome.ANSWERED, **more}
    return asyncio.run(SCORERS[name].score(case, Delivered(text, **fields)))


def found(*documents: str) -> tuple[Found, ...]:
    return tuple(Found(document, f"{document}#1", 0.5, f"text of {document}") for document in documents)


def cited(*documents: str) -> tuple[Citation, ...]:
    return tuple(Citation(n, d, d, "", "", "") for n, d in enumerate(documents, start=1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("You get **25 days** [1].", 1.0),
        ("You get 25\n  Days a year", 1.0),
        ("You get 125 days", 0.0),
        ("You get 25 daysies", 0.0),
        ("", 0.0),
        ("word " * 118 + "25 days", 1.0),
        ("word " * 119 + "25 days", 0.0),  # the 121st word is too late
    ],
)
def test_facts_stand_as_whole_words_early(text: str, expected: float) -> None:
    assert score("facts", Case("a", "q", facts=["25 days"]), text) == expected


def test_one_alternative_is_enough_and_all_facts_are_needed() -> None:
    case = Case("a", "q", facts=["days", ["25", "twenty-five"]])
    assert score("facts", case, "twenty-five days") == 1.0
    assert score("facts", case, "twenty-five weeks") == 0.0


def test_a_forbidden_fact_counts_wherever_it_stands() -> None:
    case = Case("a", "q", facts=["25 days"], forbidden=[["30 days", "a month"]])
    assert score("facts", case, "25 days") == 1.0
    assert score("facts", case, "25 days " + "word " * 200 + "a month") == 0.0
    outside = Case("b", "q", unanswerable=True, forbidden=["42,000"])
    assert score("correct", outside, "I cannot tell.", outcome=Outcome.REFUSED) == 1.0
    assert score("correct", outside, "It is not 42,000.", outcome=Outcome.REFUSED) == 0.0


def test_correct_is_all_that_a_case_expects() -> None:
    case = Case("a", "q", facts=["25"], numeric=Numeric(25.0))
    assert score("correct", case, "25 days") == 1.0
    assert score("correct", case, "25 days", outcome=Outcome.REFUSED) == 0.0
    assert score("correct", case, "a 25th part") == 0.0
    assert score("correct", Case("d", "q", regex="."), "[no answer]", outcome=Outcome.FAILED) == 0.0
    assert score("correct", Case("b", "q", unanswerable=True), "no", outcome=Outcome.REFUSED) == 1.0
    assert score("correct", Case("b", "q", unanswerable=True), "42") == 0.0
    assert score("correct", Case("c", "q", reference="r"), "42") is None


def test_refusal_counts_only_where_it_is_due() -> None:
    answerable, outside = Case("a", "q", facts=["f"]), Case("b", "q", unanswerable=True)
    assert score("answering", answerable, "f") == 1.0
    assert score("answering", answerable, "sorry", outcome=Outcome.REFUSED) == 0.0
    assert score("answering", answerable, "[broken]", outcome=Outcome.FAILED) == 0.0
    assert score("refusal", answerable, "sorry", outcome=Outcome.REFUSED) is None
    assert score("refusal", outside, "sorry", outcome=Outcome.REFUSED) == 1.0
    assert score("refusal", outside, "42") == 0.0
    assert score("answering", outside, "42") is None and score("facts", outside, "42") is None


def test_a_document_that_the_asker_may_not_read_must_not_be_found() -> None:
    outside = Case("a", "q", documents=["pay.md"], unanswerable=True)
    assert score("restricted", outside, "no", passages=found("leave.md")) == 1.0
    assert score("restricted", outside, "no", passages=found("leave.md", "pay.md")) == 0.0


@pytest.mark.parametrize(
    ("case", "text", "expected"),
    [
        (Case("a", "q", exact="Blue whale"), "**blue  whale** [1]", 1.0),
        (Case("a", "q", exact="Blue whale"), "The blue whale", 0.0),
        (Case("a", "q", numeric=Numeric(1250.5, 0.1)), "It costs 1,250.55 EUR [2].", 1.0),
        (Case("a", "q", numeric=Numeric(1250.5, 0.1)), "It costs 1,250.7 EUR.", 0.0),
        (Case("a", "q", numeric=Numeric(-3)), "It is −3 degrees.", 1.0),
        (Case("a", "q", numeric=Numeric(2)), "See [2].", 0.0),
        (Case("a", "q", regex=r"^\d+ days$"), "25 days", 1.0),
        (Case("a", "q", regex=r"^\d+ days$"), "about 25 days", 0.0),
        (Case("a", "q", json_schema={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}),
         '```json\n{"n": 3}\n```', 1.0),
        (Case("a", "q", json_schema={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}),
         '{"n": true}', 0.0),
        (Case("a", "q", json_schema={}), "three", 0.0),
    ],
)  # fmt: skip
def test_what_a_case_expects_of_the_words(case: Case, text: str, expected: float) -> None:
    names = [name for name in ("exact", "numeric", "regex", "json_schema") if getattr(case, name) is not None]
    assert [score(name, case, text) for name in names] == [expected]
    assert score("correct", case, text) == expected
    assert score(names[0], Case("b", "q", facts=["f"]), text) is None


SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["leave", 1, None]},
        "days": {"type": "array", "items": {"$ref": "#/$defs/day"}, "minItems": 1, "maxItems": 2},
        "note": {"anyOf": [{"type": "string", "minLength": 2}, {"type": "null"}]},
        "share": {"type": "number", "minimum": 0, "maximum": 1},
        "when": {"type": "string", "format": "date"},
    },
    "required": ["kind"],
    "additionalProperties": False,
    "$defs": {"day": {"type": "integer", "minimum": 1}},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"kind": "leave", "days": [1, 2.0], "note": null, "share": 0.5, "when": "2026-02-28"}', 1.0),
        ('{"kind": null}', 1.0),
        ('{"kind": 1}', 1.0),
        ('{"kind": true}', 0.0),  # JSON's true is not 1
        ('{"days": [1]}', 0.0),
        ('{"kind": 1, "days": []}', 0.0),
        ('{"kind": 1, "days": [0]}', 0.0),
        ('{"kind": 1, "days": [1, 1, 1]}', 0.0),
        ('{"kind": 1, "note": "x"}', 0.0),
        ('{"kind": 1, "share": 1.5}', 0.0),
        ('{"kind": 1, "when": "2026-02-30"}', 0.0),
        ('{"kind": 1, "more": 1}', 0.0),
        ('[{"kind": 1}]', 0.0),
    ],
)
def test_a_schema_is_checked_keyword_by_keyword(text: str, expected: float) -> None:
    assert score("json_schema", Case("a", "q", json_schema=SCHEMA), text) == expected


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        ("date-time", "2026-01-02T03:04:05Z", "2026-01-02"),
        ("time", "03:04:05Z", "25:00:00Z"),
        ("duration", "P1DT2H", "P"),
        ("email", "a.b@example.com", "a b@example.com"),
        ("hostname", "a-b.example", "-a.example"),
        ("ipv4", "10.0.0.1", "10.0.0.256"),
        ("ipv6", "::1", "::g"),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123"),
        ("uri", "https://example.com/a", "example.com"),
    ],
)
def test_formats(form: str, good: str, bad: str) -> None:
    case = Case("a", "q", json_schema={"type": "string", "format": form})
    assert score("json_schema", case, f'"{good}"') == 1.0
    assert score("json_schema", case, f'"{bad}"') == 0.0


def test_an_answer_that_is_nested_too_deeply_does_not_conform() -> None:
    case = Case("a", "q", json_schema={"uniqueItems": True})
    assert score("json_schema", case, f"[{'[' * 600 + ']' * 600}, {'[' * 600 + ']' * 600}]") == 0.0


def test_retrieval_looks_at_ranks_of_documents() -> None:
    case = Case("a", "q", facts=["f"], documents=["x", "y"])
    some: dict[str, Any] = {"passages": found("z", "z", "y", "w")}
    assert score("retrieval", case, **some) == 1.0
    assert score("retrieval_recall", case, **some) == 0.5
    assert score("retrieval_mrr", case, **some) == 0.5
    ideal = 1 + 1 / np.log2(3)
    assert score("retrieval_ndcg", case, **some) == pytest.approx(1 / np.log2(3) / ideal)
    assert score("retrieval_ndcg", case, passages=found("y", "x")) == pytest.approx(1.0)
    assert score("retrieval_ndcg", case, passages=found(*"abcdefghij", "x")) == 0.0  # beyond the first ten
    for name in ("retrieval", "retrieval_recall", "retrieval_mrr", "retrieval_ndcg"):
        assert score(name, case, passages=found("z")) == 0.0
        assert score(name, Case("b", "q", facts=["f"])) is None


def test_citations_are_held_against_the_documents_that_hold_the_answer() -> None:
    case = Case("a", "q", facts=["f"], documents=["x", "y"])
    assert score("citation_precision", case, "f", citations=cited("x", "z", "x")) == 0.5
    assert score("citation_recall", case, "f", citations=cited("x", "z", "x")) == 0.5
    assert score("citation_precision", case, "f") == 0.0 == score("citation_recall", case, "f")
    assert score("citation_precision", case, "no", outcome=Outcome.REFUSED) is None


def test_likeness_and_support() -> None:
    case = Case("a", "q", reference="abc")
    assert score("similarity", case, "cab") == pytest.approx(1.0)
    assert score("similarity", case, "xyz") == 0.0 == score("similarity", case, " ")
    some: dict[str, Any] = {"passages": (Found("x", "x#1", 0.5, "one and two"),)}
    assert score("unsupported", case, "one. three. two. four", **some) == 0.5
    assert score("unsupported", case, "four", outcome=Outcome.REFUSED, **some) is None
    assert score("unsupported", case, "four") is None
    assert "similarity" not in scorers() and "unsupported" not in scorers(embed)


def test_consistency_is_over_pairs() -> None:
    def answers(*texts: str | None) -> list[Delivered]:
        return [Delivered(t or "sorry", Outcome.ANSWERED if t else Outcome.REFUSED) for t in texts]

    def agree(*texts: str | None) -> float | None:
        return asyncio.run(consistency(answers(*texts), embed))

    assert agree("abc", "cab", "bca") == pytest.approx(1.0)
    assert agree("abc", "xyz") == 0.0
    assert agree(None, None) == 1.0 and agree("abc", None) == 0.0
    assert agree("abc", "abc", None) == pytest.approx(1 / 3)
    assert agree("abc") is None
    cases = [Case("a", "q"), Case("b", "q", paraphrase_of="a"), Case("c", "q"), Case("d", "q", paraphrase_of="a")]
    assert paraphrases(cases) == {"a": ["a", "b", "d"]}


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Write to jane.doe@example.com or call +44 20 7946 0958.", ["email", "phone"]),
        ("Pay to DE89 3704 0044 0532 0130 00 at once.", ["iban"]),
        ("Pay to DE89 3704 0044 0532 0130 01 at once.", []),  # the checksum is wrong
        ("Card 4111 1111 1111 1111, SSN 219-09-9999.", ["card", "ssn"]),
        ("Card 4111 1111 1111 1112.", []),
        ("No SSN: 000-12-3456, 666-12-3456, 219-00-9999.", []),
        ("Call (020) 7946 0958 or 555-123-4567.", ["phone", "phone"]),
        ("On 2026-11-22 order 40718 cost 1,250.50 EUR for 12 000 pieces, see 10.0.0.1 and v1.2.3.", []),
        ("The years 1999-2003 and 2004 2005 were good; ISBN 978-3-16-148410-0.", []),
    ],
)
def test_personal_data_is_recognised(text: str, kinds: list[str]) -> None:
    assert [kind for kind, _ in leaked(Case("a", "q"), Delivered(text, Outcome.ANSWERED))] == kinds


def test_personal_data_that_question_or_source_account_for_is_not_leaked() -> None:
    text = "Call +44 20 7946 0958."
    sources = (Found("it.md", "c", 1.0, "The desk: +44 (20) 7946-0958"),)
    assert score("personal_data", Case("a", "q"), text) == 1.0
    assert score("personal_data", Case("a", "q", documents=["it.md"], facts=["f"]), text, passages=sources) == 0.0
    assert score("personal_data", Case("a", "q", documents=["hr.md"], facts=["f"]), text, passages=sources) == 1.0
    assert score("personal_data", Case("a", "q", documents=["it.md"], unanswerable=True), text, passages=sources) == 1.0
    assert score("personal_data", Case("a", "Is +44-20-79460958 right?", facts=["f"]), text) == 0.0
    assert SCORERS["personal_data"].better == "lower"


def test_effort() -> None:
    spent: dict[str, Any] = {"usage": Usage(100, 11), "cost": 0.002, "first_token_ms": 50.0, "total_ms": 150.0}
    names = ("ttft_ms", "per_token_ms", "total_ms", "tokens", "cost")
    assert [score(name, Case("a", "q"), "x", **spent) for name in names] == [50.0, 10.0, 150.0, 111.0, 0.002]
    assert [score(name, Case("a", "q"), "x") for name in names] == [None, None, 0.0, 0.0, None]
    assert score("tokens", Case("a", "q"), "x", first_token_ms=50.0) is None  # a model that tells no usage


def test_scores_are_of_the_kind_that_they_say() -> None:
    case = Case("a", "q", facts=["f"], documents=["x"], reference="f")
    for name, scorer in SCORERS.items():
        assert name == scorer.name
        value = score(name, case, "f", passages=found("x"), citations=cited("x"))
        if value is not None:
            assert value in (0.0, 1.0) if scorer.kind == "binary" else value >= 0
            assert scorer.kind == "positive" or value <= 1


def test_what_was_delivered_is_kept_as_json() -> None:
    whole = Delivered(
        "f", Outcome.ANSWERED, found("x"), cited("x"), (Verdict("toxicity", "flag", "r", 0.5, ((0, 1),)),), Usage(1, 2)
    )
    assert msgspec.json.decode(msgspec.json.encode(whole), type=Delivered) == whole


def test_the_toxicity_scorer_says_what_its_vectors_say() -> None:
    toxicity = Toxicity(embed)
    direction = toxicity._weights / np.linalg.norm(toxicity._weights)

    async def known(texts: list[str]) -> NDArray[np.float32]:
        return np.array([direction if "idiot" in text else -direction for text in texts], np.float32)

    def toxic(text: str) -> float | None:
        return asyncio.run(Toxicity(known).score(Case("a", "q"), Delivered(text, Outcome.ANSWERED)))

    assert toxic("You get 25 days. Ask again, idiot!") == 1.0  # one sentence is enough
    assert toxic("You get 25 days. Ask again.") == 0.0 == toxic("")
    assert bare("## **Sick** pay [1]") == "Sick pay" == bare("- Sick pay")


def test_agreement_is_of_repeats_and_of_first_answers_to_paraphrases() -> None:
    cases = [Case("a", "A?"), Case("b", "A, then?", paraphrase_of="a"), Case("c", "C?")]
    texts = {("a", 0): "aa", ("a", 1): "bb", ("b", 0): "aa", ("b", 1): "cc", ("c", 0): "cc"}
    delivered = {turn: Delivered(text, Outcome.ANSWERED) for turn, text in texts.items()}
    found = asyncio.run(agreeing(cases, delivered, 2, embed))
    assert found == {"consistency": {"a": [0.0], "b": [0.0]}, "paraphrases": {"a": [1.0]}}
    assert asyncio.run(agreeing(cases[:1], delivered, 1, embed)) == {}


def test_personal_data_is_masked_and_numbers_are_not() -> None:
    told = "Write to ann@example.com or call +44 20 7946 0958; from DE89 3704 0044 0532 0130 00, 25 days, 2026-11-22."
    assert mask(told) == "Write to [email] or call [phone]; from [iban], 25 days, 2026-11-22."

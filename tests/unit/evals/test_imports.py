"""Data sets of other tools, and cases that nobody wrote."""

from __future__ import annotations

import json

import pytest

from proveout.errors import InvalidInput
from proveout.evals.cases import Case, Turn, read_cases, write_cases
from proveout.evals.drafts import Asked, from_document, from_feedback, from_traffic, prompt
from proveout.evals.imports import Form, import_cases


def lines(*records: object) -> str:
    return "\n".join(json.dumps(record) for record in records)


def one(form: Form, record: object) -> Case:
    (case,) = import_cases(lines(record), "d.jsonl", form).cases
    return case


def test_langfuse() -> None:
    item = {"id": "item-1", "datasetId": "d", "input": {"question": "How long?"}, "metadata": {"tags": ["hr"]}}
    case = one("langfuse", item | {"expectedOutput": {"answer": "25 days"}, "status": "ACTIVE"})
    assert (case.id, case.question, case.facts, case.tags) == ("item-1", "How long?", ["25 days"], ["hr"])
    turns = [("user", "Hi"), ("assistant", "Yes?"), ("user", "How long?"), ("assistant", "25 days")]
    messages = [{"role": role, "content": content} for role, content in turns]
    chat = one("langfuse", {"id": "i", "input": messages, "expectedOutput": "25 days"})
    assert chat.asked == "How long?" and len(chat.conversation) == 3
    assert not case.counts and case.origin == "import"
    kept = import_cases(lines(item, item | {"id": "old", "status": "ARCHIVED"}), "d", "langfuse")
    assert ([case.id for case in kept.cases], kept.archived) == (["item-1"], 1)


LONG = " ".join(["word"] * 13)


@pytest.mark.parametrize(
    ("form", "asked", "expected"),
    [
        ("langfuse", "input", "expectedOutput"),
        ("mlflow", "inputs", "expectations"),
        ("openai", "input", "ideal"),
    ],
)
def test_a_short_answer_is_a_fact_and_a_long_one_the_reference_whosever_it_is(
    form: Form, asked: str, expected: str
) -> None:
    for text, facts, reference in ((LONG[5:], [LONG[5:]], ""), (LONG, [], LONG)):
        told = {"expected_response": text} if form == "mlflow" else text
        case = one(form, {asked: {"question": "How?"}, expected: told})
        assert (case.question, case.facts, case.reference) == ("How?", facts, reference)


@pytest.mark.parametrize(
    ("form", "record"),
    [
        ("langfuse", {"input": {"question": "How?", "context": "Of old"}}),
        ("langfuse", {"input": {"messages": [{"role": "user", "content": "How?"}], "context": "Of old"}}),
        ("mlflow", {"inputs": {"question": "How?", "context": ["Of old"]}}),
        ("openai", {"input": "How?", "ideal": "So", "context": "Of old"}),
        ("openai", {"item": {"question": "How?", "correct_label": "So", "context": "Of old"}}),
    ],
)
def test_what_is_asked_beside_the_question_is_not_lost_silently(form: Form, record: object) -> None:
    with pytest.raises(InvalidInput, match=r"^d\.jsonl:1: `context` would be lost: "):
        one(form, record)


def test_mlflow() -> None:
    record = {
        "inputs": {"messages": [{"role": "user", "content": "How long?"}]},
        "expectations": {
            "expected_facts": ["25 days", "per year"],
            "expected_response": "25 days",
            "expected_retrieved_context": [{"doc_uri": "leave.md"}, {"content": "no address"}],
        },
        "tags": {"topic": "hr"},
    }
    case = one("mlflow", record)
    assert (case.question, case.facts, case.reference) == ("How long?", ["25 days", "per year"], "")
    with pytest.raises(InvalidInput, match="`expected_facts` is a list"):
        one("mlflow", {"inputs": {"question": "How?"}, "expectations": {"expected_facts": "25 days"}})
    assert (case.documents, case.tags, case.conversation) == (["leave.md"], ["topic:hr"], [])
    assert case.id == one("mlflow", record).id != one("mlflow", record | {"inputs": {"question": "How?"}}).id


def test_openai_evals() -> None:
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Capital of France?"}]
    case = one("openai", {"input": messages, "ideal": "Paris"})
    assert case.conversation == [Turn("system", "Be short."), Turn("user", "Capital of France?")]
    assert case.facts == ["Paris"]
    assert one("openai", {"input": "2+2?", "ideal": ["4", "four"]}).facts == [["4", "four"]]
    assert one("openai", {"item": {"question": "2+2?", "correct_label": 4}}).facts == ["4"]
    long = " ".join(["word"] * 20)
    assert one("openai", {"input": "Tell me.", "ideal": long}).reference == long


def test_imported_cases_are_a_data_set_once_reviewed() -> None:
    text = lines({"input": "a?", "ideal": "b"}, {"input": "c?", "ideal": "d"})
    cases = import_cases(text, "d.jsonl", "openai", reviewed="ann@example.com").cases
    assert all(case.counts for case in cases)
    assert read_cases(write_cases(cases), "g") == cases
    assert import_cases(json.dumps([json.loads(line) for line in text.split("\n")]), "d.json", "openai").cases == [
        Case(c.id, c.question, facts=c.facts, origin="import") for c in cases
    ]


def test_every_record_that_is_not_understood_is_named() -> None:
    text = lines(
        {"input": "a?"}, {"input": {"x": 1, "y": 2}}, {"input": [{"role": "robot", "content": "x"}]}, {"input": "a?"}
    )
    with pytest.raises(InvalidInput) as caught:
        import_cases(text + "\nnot json\n", "d.jsonl", "langfuse")
    said = caught.value.message.splitlines()
    assert sorted(line.split(": ")[0] for line in said) == [f"d.jsonl:{n}" for n in (2, 3, 4, 5)]
    with pytest.raises(InvalidInput, match=r"d:1: no question was found"):
        import_cases('{"nonsense": 1}', "d", "openai")
    with pytest.raises(InvalidInput, match=r"d:1: nothing says what a right answer holds"):
        import_cases('{"inputs": {"ticket": "Where?"}}', "d", "mlflow", reviewed="Ann")
    assert import_cases('{"inputs": {"ticket": "Where?"}}', "d", "mlflow").cases[0].question == "Where?"
    with pytest.raises(InvalidInput, match=r"d\.json: "):
        import_cases("[1,", "d.json", "langfuse")


def test_a_model_drafts_questions_that_their_document_answers() -> None:
    said = {
        "leave": "Question: How many days of leave are there?\nAnswer: 25 days.",
        "cars": "**Question:** Who approves hire cars?\n**Answer:** The board",  # not in the text
        "pay": "Question: Is pay monthly?\nAnswer: monthly",  # gives itself away
        "none": "I cannot do that.",
    }
    texts = {
        "leave": "Leave: everybody has 25 days of it.",
        "cars": "Hire cars are approved by Legal.",
        "pay": "Pay is monthly.",
        "none": "x",
    }
    assert all(f"\n{text}\n" in prompt(text) for text in texts.values())
    (case,) = (case for name, text in texts.items() if (case := from_document(name, text, said[name])))
    assert (case.question, case.facts, case.documents) == ("How many days of leave are there?", ["25 days"], ["leave"])
    assert case.origin == "documents" and not case.counts


def mask(text: str) -> str:
    return text.replace("Ann", "[name]")


def test_traffic_is_sampled_masked_and_waits_for_a_review() -> None:
    asked = [Asked(f"r{n}", f"Ann asks number {n % 50}?", groups=["it", "hr"]) for n in range(100)]
    drafts = from_traffic(asked, mask, most=20)
    assert len(drafts) == 20 == len({case.question for case in drafts})
    assert all("Ann" not in case.question and not case.counts and case.groups == ["hr", "it"] for case in drafts)
    assert drafts == from_traffic(asked, mask, 20)
    assert len(from_traffic(asked, mask, most=500)) == 50
    assert read_cases(write_cases(drafts), "g") == drafts


def test_feedback_keeps_what_people_corrected() -> None:
    asked = [
        Asked("r1", "How long?", "30 days", correction="25 days, says Ann"),
        Asked("r2", "Who?", "Bob"),
        Asked("r3", "When?", "Now", bad=True),
    ]
    case, bad = from_feedback(asked, mask)
    assert (bad.question, bad.reference) == ("When?", "")
    assert (case.question, case.reference, case.origin, case.counts) == (
        "How long?", "25 days, says [name]", "feedback", False
    )  # fmt: skip

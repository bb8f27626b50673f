"""app.yaml: every mistake with file, line, key and mend; what is not wrong is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proveout.errors import InvalidInput
from proveout.evals.judge import Judge, Label
from proveout.releases.manifest import Mistakes, read_app
from proveout.releases.plan import Plan

GOOD = """\
app: helpdesk
purpose: Answer questions.
owners:
  accountable: someone@example.com
model:
  use: echo
knowledge:
  - name: handbook
    source: ./docs/
"""


def read(text: str | bytes, **files: bytes) -> object:
    raw = text if isinstance(text, bytes) else text.encode()
    return read_app({"app.yaml": raw, "docs/a.md": b"hello", **files})


def mistakes(text: str | bytes) -> list[str]:
    with pytest.raises(Mistakes) as caught:
        read(text)
    return caught.value.message.splitlines()


def test_a_small_manifest_has_safe_defaults() -> None:
    app = read_app({"app.yaml": GOOD.encode(), "docs/a.md": b"hello", "docs/sub/b.txt": b"there"})
    assert app.declared.grounding.otherwise == "quote" and app.declared.model.parameters.temperature is None
    assert app.sources == {"handbook": {"a.md": b"hello", "sub/b.txt": b"there"}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("purpose:", "porpose:"), "app.yaml:2: porpose: this key is not known; did you mean purpose?"),
        (("  use: echo", "  name: echo"), "app.yaml:5: model.use: this key is required: add it"),
        (("app: helpdesk", "app: Help Desk"), "app.yaml:1: app: string should match pattern"),
        (
            ("    source: ./docs/", "    source: ./nowhere/"),
            "app.yaml:9: knowledge.0.source: the folder ./nowhere/ holds",
        ),
        (
            ("    source: ./docs/", "    source: docs\n    top_k: 900"),
            "app.yaml:10: knowledge.0.top_k: input should be",
        ),
        (
            ("    source: ./docs/", "    source: docs\n    topk: 3"),
            "app.yaml:10: knowledge.0.topk: this key is not known; did",
        ),
        (("app: helpdesk", "app: helpdesk\napp: twice"), "app.yaml:2: app: this key stands twice: remove one"),
        (("model:", "prompt: {system: gone.md}\nmodel:"), "app.yaml:5: prompt.system: the file gone.md does not exist"),
        (("model:", "guard: {input: []}\nmodel:"), "app.yaml:5: guard: this key is not known"),
    ],
)
def test_a_mistake_is_named_with_line_key_and_mend(change: tuple[str, str], said: str) -> None:
    assert any(line.startswith(said) for line in mistakes(GOOD.replace(*change))), mistakes(GOOD.replace(*change))


def test_all_mistakes_are_named_at_once() -> None:
    assert len(mistakes("app: x\nmodle: {}\nowners: {}\n")) == 4  # modle, owners.accountable, model, purpose


@pytest.mark.parametrize("text", ["", "- a", "a: [", b"\xff\xfe", "app: {{"])
def test_what_is_not_a_mapping_is_one_sentence(text: str | bytes) -> None:
    assert len(mistakes(text)) == 1 and mistakes(text)[0].startswith("app.yaml")


def test_a_template_that_does_not_render_is_a_mistake() -> None:
    with pytest.raises(Mistakes, match=r"app.yaml:5: prompt.answer: the template does not render: line 2"):
        read(GOOD.replace("model:", "prompt: {answer: a.md}\nmodel:"), **{"a.md": b"fine\n{{ nothing"})
    with pytest.raises(Mistakes, match="'secret' is undefined"):
        read(GOOD.replace("model:", "prompt: {answer: a.md}\nmodel:"), **{"a.md": b"{{ secret }}"})
    with pytest.raises(Mistakes, match="unsafe"):
        read(GOOD.replace("model:", "prompt: {answer: a.md}\nmodel:"), **{"a.md": b"{{ question.__class__.mro() }}"})


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def polite(case, delivered) -> bool:\n    return True\n", ""),
        ("def correct(case, delivered) -> bool:\n    return True\n", "correct is the name of a built-in scorer"),
        ("def polite(answer):\n    return 1\n", "scorers.py:1: polite: a scorer takes (case, delivered)"),
        ("def polite(case, delivered):\n", "scorers.py:1"),
    ],
)
def test_scorers_of_ones_own(code: str, said: str) -> None:
    files = {
        "app.yaml": (GOOD + "evals: {scorers: scorers.py}\n").encode(),
        "docs/a.md": b"",
        "scorers.py": code.encode(),
    }
    if not said:
        assert read_app(files).scorers == code
        return
    with pytest.raises(Mistakes) as caught:
        read_app(files)
    assert said in caught.value.message and caught.value.message.startswith("app.yaml:10: evals.scorers: ")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_named(raw: bytes) -> None:
    try:
        read(raw)
    except InvalidInput as error:
        assert error.message


CHOICES = "model:\n  use:\n    - {when: {groups: [hr], words: '>40'}, use: acme/large}\n    - use: echo"


def test_a_list_of_models_with_conditions() -> None:
    app = read_app({"app.yaml": GOOD.replace("model:\n  use: echo", CHOICES).encode(), "docs/a.md": b"hello"})
    first, last = app.declared.model.use
    assert first.when is not None and (first.use, first.when.groups, first.when.words) == ("acme/large", ["hr"], ">40")
    assert last.when is None and last.use == "echo"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("    - use: echo", ""), "app.yaml:6: model.use: the last model of the list, and it alone, is without `when`"),
        (("when: {groups: [hr], words: '>40'}, ", ""), "app.yaml:6: model.use: the last model of the list, and it"),
        (("groups: [hr], words: '>40'", ""), "app.yaml:7: model.use.0.when: a condition names groups or words"),
        (("'>40'", "40"), "app.yaml:7: model.use.0.when.words: input should be a valid string (it is 40)"),
        (("'>40'", "'40'"), "app.yaml:7: model.use.0.when.words: string should match pattern"),
        (("groups:", "group:"), "app.yaml:7: model.use.0.when.group: this key is not known; did you mean groups?"),
        ((CHOICES, "model: {use: 4}"), "app.yaml:5: model.use: this is a model's name, or a list of {when, use}"),
    ],
)
def test_a_mistake_in_the_list_of_models(change: tuple[str, str], said: str) -> None:
    text = GOOD.replace("model:\n  use: echo", CHOICES).replace(*change)
    assert any(line.startswith(said) for line in mistakes(text)), mistakes(text)


def test_facts_are_whole_and_nothing_else_is_a_fact() -> None:
    facts = """\
problem: Answers take two days.
objectives: [{measure: minutes to an answer, target: 5, baseline: 2880}]
risk: {class: limited, personal_data: true}
risks: [{risk: a wrong answer, mitigation: quotes}]
data_classes: [internal]
"""
    app = read_app({"app.yaml": (GOOD + facts).encode(), "docs/a.md": b"hello"})
    assert app.declared.facts == {
        "rollout": Plan().model_dump(mode="json"),
        "purpose": "Answer questions.",
        "problem": "Answers take two days.",
        "objectives": [{"measure": "minutes to an answer", "target": 5, "baseline": 2880}],
        "owners": {"accountable": "someone@example.com", "operator": None},
        "risk": {"class": "limited", "personal_data": True, "notes": ""},
        "risks": [{"risk": "a wrong answer", "mitigation": "quotes", "owner": None}],
        "data_classes": ["internal"],
        "targets": {},
    }
    assert "app.yaml:10: risk.class: input should be 'minimal', 'limited' or 'high' (it is 'huge')" in mistakes(
        GOOD + "risk: {class: huge}\n"
    )


def test_who_may_read_which_documents() -> None:
    rules = GOOD + '    readers: {"a.md": ["group:hr", "everyone"]}\n'
    app = read_app({"app.yaml": rules.encode(), "docs/a.md": b"hello"})
    assert app.declared.knowledge[0].readers == {"a.md": ["everyone", "group:hr"]}
    (wrong,) = mistakes(GOOD + '    readers: {"hr/**": ["group:hr"]}\n')
    assert wrong.startswith("app.yaml:10: knowledge.0.readers.hr/**: no document of ./docs/ matches hr/**: ")
    (wrong,) = mistakes(GOOD + '    readers: {"a.md": ["hr"]}\n')
    assert wrong.startswith("app.yaml:10: ") and "'hr' is not everyone, group:NAME or user:NAME" in wrong
    (wrong,) = mistakes(GOOD.replace("    source: ./docs/\n", '    readers: {"a.md": [everyone]}\n'))
    assert "rules are for a source" in wrong


def test_a_judge_with_its_rubric_and_labels() -> None:
    declared = GOOD + "evals: {judge: {model: up/j, rubric: r.txt, labels: l.jsonl, repeats: 2, share: 0.1}}\n"
    label = b'{"question": "q", "answer": "a", "score": 0.5}\n'
    files = {"app.yaml": declared.encode(), "docs/a.md": b"hello", "r.txt": b"Kind.", "l.jsonl": label}
    app = read_app(files)
    assert app.judge == Judge("up/j", "Kind.", [Label("q", "a", 0.5)], 2)
    assert app.facts["judge"] == {
        "model": "up/j", "repeats": 2, "share": 0.1, "labels": 1, "digest": app.judge.digest("")
    }  # fmt: skip
    assert "judge" not in read_app({"app.yaml": GOOD.encode(), "docs/a.md": b"hello"}).facts
    with pytest.raises(Mistakes) as caught:
        read_app(files | {"l.jsonl": label + b'{"question": "q", "answer": "a", "score": 7}\n'})
    assert caught.value.message.startswith("app.yaml:10: evals.judge.labels: l.jsonl:2: Expected `float` <= 1.0")
    for wrong, said in (
        ("repeats: 2", "repeats: 9"),
        ("share: 0.1", "share: 2"),
        ("rubric: r.txt", "rubric: gone.txt"),
        ("model: up/j, ", ""),
    ):
        with pytest.raises(Mistakes) as caught:
            read_app(files | {"app.yaml": declared.replace(wrong, said).encode()})
        assert caught.value.message.startswith("app.yaml:10: evals.judge."), caught.value.message
    (wrong,) = mistakes(GOOD + "targets: {judge: '>= 0.5'}\n")
    assert wrong.startswith("app.yaml:10: targets.judge: nothing measures it")

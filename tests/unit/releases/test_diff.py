"""What changed between releases: every setting, the prompts line by line, documents by name, facts apart."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from proveout.domain import (
    KnowledgeUse,
    Manifest,
    ModelChoice,
    ModelUse,
    Parameters,
    PromptTexts,
    Release,
    When,
)
from proveout.releases.diff import Change, Documents, diff

MANIFEST = Manifest(
    app="a",
    model=(ModelChoice(ModelUse("echo", "sha256:1")),),
    fallback=(),
    parameters=Parameters(),
    prompt=PromptTexts("one\ntwo\n", "{{ question }}"),
    knowledge=(KnowledgeUse("k", "sha256:2"), KnowledgeUse("l", "sha256:3")),
    otherwise="quote",
)
FACTS = {"purpose": "p", "objectives": [{"measure": "m", "target": 1}]}
BEFORE = Release("default", "a", 1, "sha256:a", MANIFEST, FACTS, datetime(2026, 1, 1, tzinfo=UTC))


def after(facts: dict[str, object] | None = None, **changes: object) -> Release:
    manifest = replace(MANIFEST, **changes)  # type: ignore[arg-type]
    return replace(BEFORE, number=2, manifest=manifest, facts=FACTS if facts is None else facts)


def test_nothing_changed() -> None:
    found = diff(BEFORE, after(knowledge=MANIFEST.knowledge[::-1]), {})
    assert not found.changes and not found.prompts and not found.knowledge and not found.facts


def test_settings_and_models_by_key() -> None:
    strong = ModelChoice(ModelUse("acme/large", "sha256:9"), When(groups=("hr",)))
    found = diff(
        BEFORE, after(parameters=Parameters(temperature=0.5, stop=("x",)), model=(strong, *MANIFEST.model)), {}
    )
    changes = {change.key: (change.before, change.after) for change in found.changes}
    assert changes["parameters.temperature"] == (None, 0.5) and changes["parameters.stop"] == (None, ("x",))
    assert changes["model.0.use.name"] == ("echo", "acme/large") and changes["model.1.use.name"] == (None, "echo")
    assert changes["model.0.when.groups"] == (None, ("hr",))


def test_prompts_as_unified_diffs() -> None:
    found = diff(BEFORE, after(prompt=PromptTexts("one\n2\n", "{{ question }}")), {})
    assert list(found.prompts) == ["system"]
    assert found.prompts["system"].splitlines()[:2] == ["--- a@1 system", "+++ a@2 system"]
    assert "-two\n+2" in found.prompts["system"]


def test_documents_by_name_and_what_is_hidden_is_counted() -> None:
    documents = {
        ("k", "sha256:2"): Documents({"same": "1", "gone": "2", "other": "3"}, total=4),
        ("k", "sha256:8"): Documents({"same": "1", "new": "2", "other": "4"}, total=3),
    }
    uses = (KnowledgeUse("k", "sha256:8", top_k=3), MANIFEST.knowledge[1])
    found = diff(BEFORE, after(knowledge=uses), documents)
    assert found.changes == (Change("knowledge.k.top_k", 6, 3),)
    (corpus,) = found.knowledge
    assert (corpus.added, corpus.removed, corpus.changed) == (("new",), ("gone",), ("other",))
    assert (corpus.before, corpus.after, corpus.unseen) == ("sha256:2", "sha256:8", 1)


def test_a_corpus_that_is_gone() -> None:
    found = diff(BEFORE, after(knowledge=MANIFEST.knowledge[:1]), {("l", "sha256:3"): Documents({"x": "1"}, 1)})
    (corpus,) = found.knowledge
    assert (corpus.name, corpus.after, corpus.removed) == ("l", None, ("x",))


def test_facts_apart() -> None:
    found = diff(BEFORE, after({"purpose": "q", "objectives": [{"measure": "m", "target": 2}], "problem": ""}), {})
    assert not found.changes
    assert [(c.key, c.before, c.after) for c in found.facts] == [
        ("purpose", "p", "q"),
        ("objectives.0.target", 1, 2),
        ("problem", None, ""),
    ]

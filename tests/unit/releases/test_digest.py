"""A release's digest: content and settings alone, and every one of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json

from proveout.domain import KnowledgeUse, Manifest, ModelChoice, ModelUse, Parameters, PromptTexts, When
from proveout.releases.digest import digest

MANIFEST = Manifest(
    app="a",
    model=(ModelChoice(ModelUse("echo", "sha256:1")),),
    fallback=(),
    parameters=Parameters(),
    prompt=PromptTexts("s", "a"),
    knowledge=(KnowledgeUse("k", "sha256:2"),),
    otherwise="quote",
)


def test_the_digest_is_that_of_the_canonical_json() -> None:
    """Checked against the standard library: for these values RFC 8785 is sorted keys without spaces."""
    plain = json.dumps(dataclasses.asdict(MANIFEST), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert digest(MANIFEST) == "sha256:" + hashlib.sha256(plain.encode()).hexdigest()


def test_everything_that_decides_an_answer_changes_it() -> None:
    changes: list[dict[str, object]] = [
        {"app": "b"},
        {"model": (ModelChoice(ModelUse("echo", "sha256:9")),)},
        {"model": (ModelChoice(ModelUse("echo", "sha256:1"), When(("hr",))), *MANIFEST.model)},
        {"model": (ModelChoice(ModelUse("echo", "sha256:1"), When(words_over=9)), *MANIFEST.model)},
        {"fallback": (ModelUse("echo", "sha256:1"),)},
        {"parameters": Parameters(temperature=0.1)},
        {"parameters": Parameters(stop=("x",))},
        {"prompt": PromptTexts("s", "b")},
        {"knowledge": (KnowledgeUse("k", "sha256:3"),)},
        {"knowledge": (KnowledgeUse("k", "sha256:2", min_score=0.3),)},
        {"otherwise": "refuse"},
        {"schema": 2},
    ]
    digests = {digest(dataclasses.replace(MANIFEST, **change)) for change in changes}  # type: ignore[arg-type]
    assert len(digests) == len(changes) and digest(MANIFEST) not in digests

"""The nouns' own rules."""

from __future__ import annotations

import pytest

from proveout.domain import Manifest, ModelChoice, ModelUse, Parameters, PromptTexts, When


def manifest(*choices: ModelChoice) -> Manifest:
    return Manifest("a", choices, (), Parameters(), PromptTexts("s", "a"), (), "quote")


SMALL, LARGE, HR = (ModelUse(name, "sha256:1") for name in ("small", "large", "hr"))


@pytest.mark.parametrize(
    ("groups", "question", "served"),
    [
        ({"hr"}, "short", "hr"),
        ({"it", "hr"}, "one two three four", "hr"),
        ({"it"}, "one two three four", "large"),
        ({"it"}, "one two three", "small"),
        (set(), "", "small"),
    ],
)
def test_the_first_model_that_applies_is_served(groups: set[str], question: str, served: str) -> None:
    choices = (ModelChoice(HR, When(("hr", "legal"))), ModelChoice(LARGE, When(words_over=3)), ModelChoice(SMALL))
    assert manifest(*choices).model_for(frozenset(groups), question).name == served


def test_all_conditions_must_hold() -> None:
    when = When(("hr",), words_over=1, words_under=4)
    assert when.holds(frozenset({"hr"}), "one two")
    assert not when.holds(frozenset({"it"}), "one two")
    assert not when.holds(frozenset({"hr"}), "one")
    assert not when.holds(frozenset({"hr"}), "one two three four")


def test_some_model_is_served_to_every_call() -> None:
    for choices in ((), (ModelChoice(LARGE, When(words_over=3)),)):
        with pytest.raises(ValueError, match="for every call"):
            manifest(*choices)

"""Cases that nobody wrote: questions that a model asks of documents, live traffic, feedback. All wait for a review.

Nothing here decides anything: `reviewed` is empty, so `Case.counts` is False until a person has looked at it.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterable, Sequence

import msgspec

from proveout.evals.cases import Case, Origin
from proveout.language import content_words, numbers

Mask = Callable[[str], str]
"""A text to the same text without personal data."""

_WORDS = 600  # of a document are shown to the model
_PROMPT = """Write one question that an employee could ask and that this text answers, and the shortest words of the
text that are the answer. Answer with two lines, "Question: …" and "Answer: …".

<text>
{text}
</text>"""
_LINE = re.compile(r"^\W*(question|answer)\W*[:：]\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE)


class Asked(msgspec.Struct, frozen=True):
    """A request of live traffic: its id, its question, what was answered, and who asked (their groups)."""

    request: str
    question: str
    answer: str = ""
    groups: list[str] = []
    correction: str = ""  # what a person says the answer should have been
    bad: bool = False  # a person says that the answer was of no use


def prompt(text: str) -> str:
    """The prompt for a question that a document answers."""
    return _PROMPT.format(text=_shown(text))


def from_document(document: str, text: str, said: str, groups: Sequence[str] = ()) -> Case | None:
    """The question that a model asked of a document (its id, its text), with the fact that answers it, for an asker
    in `groups`. None where the answer does not stand in the document, or is given away by the question."""
    lines = {name.lower(): value for name, value in _LINE.findall(said)}
    question, fact = lines.get("question", ""), lines.get("answer", "").strip(" .\"'“”*")
    if not question.endswith("?") or not fact or not _answers(fact, question, _shown(text)):
        return None
    return Case(
        _id("documents", question),
        question,
        facts=[fact],
        documents=[document],
        groups=[*groups],
        origin="documents",
    )


def from_traffic(asked: Iterable[Asked], mask: Mask, most: int) -> list[Case]:
    """At most `most` requests, drawn evenly at random, each question once, without personal data. The right answers
    are for the reviewer to add."""
    drafts = distinct([_draft(request, mask, "traffic") for request in asked])
    return drafts if len(drafts) <= most else random.Random(0).sample(drafts, most)  # noqa: S311


def from_feedback(asked: Iterable[Asked], mask: Mask) -> list[Case]:
    """The requests that somebody corrected, or was not helped by; a correction is the reference."""
    told = [request for request in asked if request.bad or request.correction.strip()]
    return distinct([_draft(request, mask, "feedback") for request in told])


def _draft(request: Asked, mask: Mask, origin: Origin) -> Case:
    question = mask(request.question).strip()
    return Case(
        _id(origin, question),
        question,
        groups=sorted(request.groups),
        reference=mask(request.correction).strip() if origin == "feedback" else "",
        origin=origin,
    )


def _shown(text: str) -> str:
    return " ".join(text.split(" ")[:_WORDS])


def _answers(fact: str, question: str, text: str) -> bool:
    held, said = set(content_words(text)), set(content_words(fact))
    return bool(said) and said <= held and numbers(fact) <= numbers(text) and not said <= set(content_words(question))


def distinct(cases: Sequence[Case]) -> list[Case]:
    """Each question once, empty ones never."""
    return list({" ".join(case.question.casefold().split()): case for case in cases if case.question}.values())


def _id(origin: str, question: str) -> str:
    return f"{origin}-{hashlib.sha256(question.encode()).hexdigest()[:16]}"

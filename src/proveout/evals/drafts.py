"""Cases that nobody wrote: questions that a model asks of documents, live traffic, feedback. All wait for a review.

Nothing here decides anything: `reviewed` is empty, so `Case.counts` is False until a person has looked at it.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec

from proveout.evals.cases import Case, Origin
from proveout.language import content_words, numbers

Ask = Callable[[str], Awaitable[str]]
"""A prompt to the model's answer."""
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


async def from_documents(documents: Mapping[str, str], ask: Ask) -> list[Case]:
    """A question of each document (by id, its text) with the fact that answers it. A question whose answer does not
    stand in the document, or is given away by the question, is dropped."""
    drafts = []
    for document, text in documents.items():
        shown = " ".join(text.split(" ")[:_WORDS])
        said = {name.lower(): value for name, value in _LINE.findall(await ask(_PROMPT.format(text=shown)))}
        question, fact = said.get("question", ""), said.get("answer", "").strip(" .\"'“”*")
        if not question.endswith("?") or not fact or not _answers(fact, question, shown):
            continue
        case = Case(_id("documents", question), question, facts=[fact], documents=[document], origin="documents")
        drafts.append(case)
    return _distinct(drafts)


def from_traffic(asked: Iterable[Asked], mask: Mask, most: int, seed: int = 0) -> list[Case]:
    """At most `most` requests, drawn evenly at random, each question once, without personal data. What they should
    have been answered is for the reviewer to say."""
    drafts = _distinct([_draft(request, mask, "traffic") for request in asked])
    return drafts if len(drafts) <= most else random.Random(seed).sample(drafts, most)  # noqa: S311


def from_feedback(asked: Iterable[Asked], mask: Mask) -> list[Case]:
    """The requests that somebody corrected, or was not helped by; a correction is the reference."""
    told = [request for request in asked if request.bad or request.correction.strip()]
    return _distinct([_draft(request, mask, "feedback") for request in told])


def _draft(request: Asked, mask: Mask, origin: Origin) -> Case:
    question = mask(request.question).strip()
    return Case(
        _id(origin, question),
        question,
        groups=sorted(request.groups),
        reference=mask(request.correction).strip() if origin == "feedback" else "",
        origin=origin,
    )


def _answers(fact: str, question: str, text: str) -> bool:
    held, said = set(content_words(text)), set(content_words(fact))
    return bool(said) and said <= held and numbers(fact) <= numbers(text) and not said <= set(content_words(question))


def _distinct(cases: Sequence[Case]) -> list[Case]:
    """Each question once, empty ones never."""
    return list({" ".join(case.question.casefold().split()): case for case in cases if case.question}.values())


def _id(origin: str, question: str) -> str:
    return f"{origin}-{hashlib.sha256(question.encode()).hexdigest()[:16]}"

"""Which words of the passages answer a question best: the choice of a quote.

Every sentence, list item and table row of the passages is a unit; a logistic model over a few features gives the
probability that a unit holds the answer; the best unit grows by neighbours that belong to it, up to 60 words.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proveout.domain import Passage
from proveout.language import Sentence, content_words, numbers, sentences, words

Embed = Callable[[list[str]], Awaitable[NDArray[np.float32]]]

MAX_WORDS = 60


@dataclass(frozen=True, slots=True)
class Quote:
    """Words of one passage: `text` is `passage.text[start:end]`, with a list's lead-in line before if it needs one.

    `score` is the probability in [0, 1] that they hold the answer, given that the passages do; `cosine` is the
    likeness of the question to the words.
    """

    passage: int
    text: str
    start: int
    end: int
    score: float
    cosine: float


@dataclass(frozen=True, slots=True)
class Unit:
    """A sentence, item or row of a passage; `lead` is the text before the list that it belongs to."""

    passage: int
    place: int
    sentence: Sentence
    lead: Sentence | None

    @property
    def text(self) -> str:
        return f"{self.lead.text} {self.sentence.text}" if self.lead else self.sentence.text


_ITEM = re.compile(r"(?:[-*•]|\d{1,2}[.)])\s")


def units(passages: Sequence[Passage]) -> list[Unit]:
    """All units of the passages, in order."""
    found = []
    for number, passage in enumerate(passages):
        lead: Sentence | None = None
        before: Sentence | None = None
        for place, sentence in enumerate(sentences(passage.text)):
            if not _ITEM.match(sentence.text):
                lead = None
            elif before is not None and not _ITEM.match(before.text):
                lead = before if before.text.endswith(":") else None
            found.append(Unit(number, place, sentence, lead))
            before = sentence
    return found


# -- features -------------------------------------------------------------------------------------

_DATE = re.compile(
    r"\b(?:jan(?:uary)?|feb(?:ruary)?|march|april|june|july|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?"
    r"|dec(?:ember)?|(?:mon|tues|wednes|thurs|fri|satur|sun)days?|days?|weeks?|months?|years?|hours?|minutes?|noon"
    r"|daily|weekly|monthly|quarterly|annual(?:ly)?|\d{4}|\d{1,2}:\d\d|\d\s?[ap]\.?m)\b",
    re.IGNORECASE,
)
_NAME = re.compile(r"(?<=[a-z,:;(] )[A-Z][\w&-]+|[A-Z]{2,}|\b(?:manager|team|director|officer|desk|lead|head)s?\b")
_ASKS_NUMBER = re.compile(r"\bhow (?:many|much|long|far|often|old|big|large|high|late|soon|fast)\b|\b(?:percentage|"
                          r"rate|limit|maximum|minimum|cost|price|amount|number)\b", re.IGNORECASE)  # fmt: skip
_ASKS_WHEN = re.compile(r"\bwhen\b|\b(?:what|which) (?:date|day|month|year|time)\b|\bhow (?:long|soon|late|often)\b|"
                        r"\bdeadline\b", re.IGNORECASE)  # fmt: skip
_ASKS_NAME = re.compile(r"\b(?:who|whom|whose|where)\b|\b(?:what|which) (?:person|team|city|country|department|"
                        r"office|company)\b", re.IGNORECASE)  # fmt: skip


def _type_match(question: str, text: str) -> float:
    """1 if the text holds the kind of thing that is asked for, −1 if it does not, 0 if no kind is asked for."""
    asked = False
    if _ASKS_NUMBER.search(question):
        asked = True
        if numbers(text):
            return 1.0
    for asks, holds in ((_ASKS_WHEN, _DATE), (_ASKS_NAME, _NAME)):
        if asks.search(question):
            asked = True
            if holds.search(text):
                return 1.0
    return -1.0 if asked else 0.0


FEATURES = (
    "cosine",
    "near cosine",
    "rank",
    "coverage",
    "context",
    "neighbour",
    "kind",
    "new",
    "short",
    "asks",
)


def features(
    question: str, passages: Sequence[Passage], candidates: Sequence[Unit], cosines: NDArray[np.float32]
) -> NDArray[np.float64]:
    """[units, features] in the order of FEATURES; `cosines`: of each unit, headed, with the question."""
    asked = set(content_words(question))
    held = [set(content_words(unit.text)) for unit in candidates]
    spread = Counter(word for found in held for word in found)
    idf = {word: math.log(1 + len(candidates) / (0.5 + spread[word])) for word in asked}
    total = sum(idf.values()) or 1.0

    def coverage(found: set[str]) -> float:
        return sum(idf[word] for word in asked & found) / total

    around = [set(content_words(" ".join([p.title, *p.headings]))) for p in passages]
    best = max(passage.score for passage in passages)
    rows = []
    for i, unit in enumerate(candidates):
        beside = [j for j in (i - 1, i + 1) if 0 <= j < len(held) and candidates[j].passage == unit.passage]
        near = set().union(*(held[j] for j in beside))
        rows.append(
            [
                float(cosines[i]),
                max((float(cosines[j]) for j in beside), default=float(cosines[i])),
                passages[unit.passage].score - best,
                coverage(held[i]),
                coverage(held[i] | around[unit.passage] | near),
                coverage(near),
                _type_match(question, unit.text),
                min(len(held[i] - asked), 12) / 12,
                1.0 if len(words(unit.sentence.text)) < 5 else 0.0,
                1.0 if unit.sentence.text.endswith("?") else 0.0,
            ]
        )
    return np.array(rows)


# -- the choice -----------------------------------------------------------------------------------

# Logistic regression on SQuAD 2.0 (half of dev): 1,666 answerable questions of ten articles over the six best of 875
# chunks, lexical features also scaled down at random, as people paraphrase. Held out, 1,165 questions of six other
# articles: the best unit holds the answer in 0.82, one of the best two in 0.91; three quotes of 120 words in all: 0.94.
_WEIGHTS = np.array([4.43, -1.98, 19.3, 2.53, 2.09, -2.32, 0.45, 0.24, -0.14, -0.25])
_BIAS = -3.92
_EMBEDDED = 14  # units whose embedding is worth its time: those best without it; 20 find no more
_JOIN = 0.1  # a neighbour joins the quote when its odds are at least this share of the best unit's


async def quotes(question: str, passages: Sequence[Passage], embed: Embed, limit: int = 3) -> list[Quote]:
    """The best quotes, best first, none overlapping. About 14 units and the question are embedded."""
    candidates = units(passages)
    if not candidates:
        return []
    cheap = features(question, passages, candidates, np.zeros(len(candidates), np.float32)) @ _WEIGHTS
    kept = np.sort(np.argsort(-cheap, kind="stable")[:_EMBEDDED])
    vectors = await embed([question, *(_headed(candidates[i], passages) for i in kept)])
    cosines = np.zeros(len(candidates), np.float32)
    cosines[kept] = vectors[1:] @ vectors[0]
    logits = features(question, passages, candidates, cosines) @ _WEIGHTS + _BIAS
    found: list[Quote] = []
    for best in sorted(kept.tolist(), key=lambda i: -logits[i]):
        if len(found) == limit:
            break
        quote = _grow(best, candidates, logits, passages, float(cosines[best]))
        if not any(q.passage == quote.passage and q.start < quote.end and quote.start < q.end for q in found):
            found.append(quote)
    return found


def _grow(
    best: int,
    candidates: Sequence[Unit],
    logits: NDArray[np.float64],
    passages: Sequence[Passage],
    cosine: float,
) -> Quote:
    """The unit with those neighbours that are worth reading with it, while there is room."""
    unit = candidates[best]
    room = MAX_WORDS - _size(unit.text)
    low = high = best
    while room > 0:
        beside = [j for j in (low - 1, high + 1) if 0 <= j < len(candidates)]
        beside = [j for j in beside if candidates[j].passage == unit.passage and _joins(j, best, candidates, logits)]
        beside = [j for j in beside if _size(candidates[j].sentence.text) <= room]
        if not beside:
            break
        joined = max(beside, key=lambda j: logits[j])
        room -= _size(candidates[joined].sentence.text)
        low, high = min(low, joined), max(high, joined)
    start, end = candidates[low].sentence.start, candidates[high].sentence.end
    text = passages[unit.passage].text[start:end]
    lead = candidates[low].lead
    if lead is not None:
        text = f"{lead.text}\n{text}"
    if _size(text) > MAX_WORDS:
        text = " ".join(text.split()[:MAX_WORDS])
        end = start + len(text) if lead is None else end
    return Quote(unit.passage, text, start, end, float(1 / (1 + np.exp(-logits[best]))), cosine)


def _headed(unit: Unit, passages: Sequence[Passage]) -> str:
    """A unit with its title and headings in front: alone it often does not say what it is about."""
    passage = passages[unit.passage]
    return f"{' › '.join([passage.title, *(h for h in passage.headings if h != passage.title)])}: {unit.text}"


def _joins(j: int, best: int, candidates: Sequence[Unit], logits: NDArray[np.float64]) -> bool:
    """A list goes with the line that announces it; else the neighbour must be likely enough itself."""
    lead = candidates[j].lead
    return lead == candidates[best].sentence or bool(logits[j] - logits[best] >= math.log(_JOIN))


def _size(text: str) -> int:
    return len(text.split())

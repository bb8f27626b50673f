"""Which words of the passages answer a question best: the choice of quotes.

Every sentence, list item and table row of the passages is a unit. A listwise model over a few features gives each the
probability that it holds the answer, given that one does; the best ones are quoted, neighbours together.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from proveout.domain import Excerpts, Passage
from proveout.language import Sentence, content_words, numbers, sentences, words

Embed = Callable[[list[str]], Awaitable[NDArray[np.float32]]]
Match = Callable[[str, list[Excerpts]], Awaitable[NDArray[np.float32]]]
"""(question, texts) -> [excerpts, 1 + words]: how near each is to the question and to each of its content words."""

MAX_WORDS = 60  # of one quote
READ = 12  # passages in which quotes are looked for: the encoder reads all of them while somebody waits


@dataclass(frozen=True, slots=True)
class Quote:
    """Words of one passage: `text` is `passage.text[start:end]`, with a list's lead-in line before if it needs one.

    `score` is the probability in [0, 1] that they hold the answer, given that the passages do.
    """

    passage: int
    text: str
    start: int
    end: int
    score: float


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


@dataclass(frozen=True, slots=True)
class Weighed:
    """The units of the passages, in order; `matches` [units, 1 + words] as a Match gives them; `chances` [units]: the
    probability that each holds the answer, given that one of them does."""

    units: tuple[Unit, ...]
    matches: NDArray[np.float32]
    chances: NDArray[np.float64]


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


FEATURES = ("cosine", "words", "least", "beside", "passage", "kind", "new", "short", "asks")
SHARP = 8.0  # of the soft minimum over words: 0 would be the mean


def features(
    question: str, passages: Sequence[Passage], candidates: Sequence[Unit], matches: NDArray[np.float32]
) -> NDArray[np.float64]:
    """[units, features] in the order of FEATURES; `matches` as a Match gives them."""
    asked = set(content_words(question))
    mean = matches[:, 1:].mean(axis=1)
    least = -np.log(np.exp(-SHARP * matches[:, 1:].astype(np.float64)).mean(axis=1)) / SHARP
    rows = []
    for i, unit in enumerate(candidates):
        beside = [j for j in (i - 1, i + 1) if 0 <= j < len(candidates) and candidates[j].passage == unit.passage]
        rows.append(
            [
                float(matches[i, 0]),
                float(mean[i]),
                float(least[i]),
                max((float(mean[j]) for j in beside), default=float(mean[i])),
                passages[unit.passage].score,
                _type_match(question, unit.text),
                min(len(set(content_words(unit.text)) - asked), 12) / 12,
                1.0 if len(words(unit.sentence.text)) < 5 else 0.0,
                1.0 if unit.sentence.text.endswith("?") else 0.0,
            ]
        )
    return np.array(rows)


# -- the choice -----------------------------------------------------------------------------------
# Listwise softmax regression on SQuAD 2.0 (half of dev): answerable questions over the six best of 875 chunks, by
# `python -m bench.answerable`; what it reaches is in docs/measured/answerable.md.
_WEIGHTS = np.array([2.92, 12.78, 5.03, 1.99, 15.65, 1.0, -1.11, -1.21, -2.78])
ENOUGH = 0.99  # probability that what is quoted holds the answer, at which more is not worth reading
LEAST = 0.001  # such a probability of one sentence's: it is not worth reading either


async def weigh(question: str, passages: Sequence[Passage], match: Match) -> Weighed:
    """The units of the best passages and how likely each of them holds the answer."""
    candidates = units(passages[:READ])
    if not candidates:
        return Weighed((), np.zeros((0, 1), np.float32), np.zeros(0))
    texts = []
    for number, own in groupby(candidates, key=lambda unit: unit.passage):
        head = _head(passages[number])
        spans = tuple((len(head) + unit.sentence.start, len(head) + unit.sentence.end) for unit in own)
        texts.append(Excerpts(head + passages[number].text, len(head), spans))
    matches = await match(question, texts)
    logits = features(question, passages, candidates, matches) @ _WEIGHTS
    odds = np.exp(logits - logits.max())
    return Weighed(tuple(candidates), matches, odds / odds.sum())


def quotes(weighed: Weighed, passages: Sequence[Passage], room: int) -> list[Quote]:
    """The best words, in at most `room` words with a citation mark each: those most likely to hold the answer first,
    until it is likely enough that they do; what stands together in its passage is one quote."""
    taken: list[int] = []
    said: set[str] = set()
    sure = 0.0
    for best in np.argsort(-weighed.chances, kind="stable").tolist():
        if sure >= ENOUGH or weighed.chances[best] < LEAST:
            break
        for i in _announced(best, weighed.units):
            text = weighed.units[i].text
            size = min(_size(text), MAX_WORDS) + 1
            if size <= room and text not in said:
                taken.append(i)
                said.add(text)
                room -= size
                sure += float(weighed.chances[i])
    found = [_quote(run, weighed, passages) for run in _runs(sorted(taken), weighed.units)]
    return sorted(found, key=lambda quote: -quote.score)


def _announced(i: int, candidates: Sequence[Unit]) -> Iterator[int]:
    """A unit, and the list that it leads in."""
    yield i
    for j in range(i + 1, len(candidates)):
        if candidates[j].passage != candidates[i].passage or candidates[j].lead != candidates[i].sentence:
            return
        yield j


def _runs(taken: Sequence[int], candidates: Sequence[Unit]) -> list[list[int]]:
    """Neighbours together, as far as they fit into one quote."""
    runs: list[list[int]] = []
    for i in taken:
        run = runs[-1] if runs else []
        beside = bool(run) and run[-1] == i - 1 and candidates[i].passage == candidates[i - 1].passage
        size = sum(_size(candidates[j].sentence.text) for j in (*run, i))
        if beside and size + _size(candidates[run[0]].text) - _size(candidates[run[0]].sentence.text) <= MAX_WORDS:
            run.append(i)
        else:
            runs.append([i])
    return runs


def _quote(run: Sequence[int], weighed: Weighed, passages: Sequence[Passage]) -> Quote:
    first, last = weighed.units[run[0]], weighed.units[run[-1]]
    start, end = first.sentence.start, last.sentence.end
    text = passages[first.passage].text[start:end]
    if first.lead is not None:
        text = f"{first.lead.text}\n{text}"
    if _size(text) > MAX_WORDS:
        text = " ".join(text.split()[:MAX_WORDS])
        end = start + len(text) if first.lead is None else end
    return Quote(first.passage, text, start, end, float(weighed.chances[list(run)].sum()))


def _head(passage: Passage) -> str:
    """What stands in front of a passage: a sentence alone often does not say what it is about."""
    return f"{' › '.join([passage.title, *(h for h in passage.headings if h != passage.title)])}: "


def _size(text: str) -> int:
    return len(text.split())

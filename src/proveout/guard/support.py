"""The support check: does one passage say what a sentence says?

`check` is for what is about to be delivered. A sentence is supported by a passage if all hold, cheapest first:
- every number, date and name of the sentence stands in the passage, together in one sentence of it that also shares
  half of the content words (or in two, if those hold no other number: the value of another row is not borrowed);
- at least 70 % of the sentence's content words stand in the passage;
- it does not turn those sentences round: a negation, or one word of a pair of opposites, on one side only;
- its embedding is close to theirs.

`weigh` is for answers in words of their own, made elsewhere: no share of the words is asked for beyond a trace, but
nothing may conflict with the three sentences of the passage that share most of its words.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from proveout.domain import Passage, Support
from proveout.guard.opposites import opposites
from proveout.language import content_words, numbers, sentences, stem, words

Embed = Callable[[list[str]], Awaitable[NDArray[np.float32]]]

WORDS = 0.7  # share of the content words that one passage must hold
NEAR = 0.5  # share that the sentences holding the numbers and names must hold
COSINE = 0.6  # least likeness of the embeddings
TRACE = 0.3  # share of the content words that a passage must hold to be what a sentence in other words is about
LIKE = 0.35  # least likeness of the embeddings of such a sentence and the words it is about
_CONTEXT = 3  # sentences of a passage that such a sentence is held against
_TRIED = 5  # passages

_NEGATION = re.compile(r"\b(?:not|no|never|cannot|none|neither|nor|without|nobody|nothing|\w+n['’]t)\b", re.IGNORECASE)
_EMPTY = frozenset(stem(w) for w in ("answer", "question", "text", "follows", "according", "passage"))
_POLITE = frozenset(
    stem(w)
    for w in ["sure", "certainly", "yes", "okay", "hello", "hi", "thanks", "welcome", "great", "glad", "happy", "help"]
)
_FURNITURE = re.compile(r"\[\d+\]|^\s*(?:[-*•]|\d{1,2}[.)])\s+|[*_`#]")
_NAME = re.compile(r"(?<![.!?:] )(?<!^)\b[A-Z][\w&’'-]*|^[A-Z][A-Z\d&-]+\b|^[A-Z]\w+(?=\s[A-Z][a-z])")


def names(text: str) -> set[str]:
    """Lower-cased words of names: capitals inside a sentence, acronyms, the first of two capitalised words."""
    return {word.removesuffix("'s") for name in _NAME.findall(text) for word in words(name) if word != "i"}


@dataclass(frozen=True, slots=True)
class _Claim:
    words: frozenset[str]
    numbers: frozenset[str]
    names: frozenset[str]

    @classmethod
    def of(cls, text: str) -> _Claim:
        return cls(frozenset(content_words(text)), frozenset(numbers(text)), frozenset(names(text)))


class SupportCheck:
    """Checks sentences against passages; two short texts are embedded for each passage that passes all else."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed

    async def check(self, sentence: str, passages: Sequence[Passage]) -> Support:
        """The word on one sentence. `score` is the share of its content words that the best passage holds, 0 if a
        number or name is missing there; `passage` is that passage's index, None where nothing matches."""
        text = _FURNITURE.sub("", sentence).strip()
        claim = _Claim.of(text)
        if not claim.words:
            return Support(sentence, False, 0.0, None)
        best = Support(sentence, False, 0.0, None)
        for index, passage in enumerate(passages):
            share, window = _best_window(claim, passage.text)
            if window is None:
                continue
            supported = share >= WORDS and not turned_round(text, window) and await self._close(text, window)
            if (supported, share) > (best.supported, best.score):
                best = Support(sentence, supported, round(share, 3), index, window)
        return best

    async def weigh(self, answer: str, passages: Sequence[Passage]) -> list[Support]:
        """The word on each sentence of an answer that may be in words of its own.

        `score` is at least 0.5 where the sentence is supported, and grows with the share of its content words that the
        passage holds; below 0.5 it is that share halved. Sentences that say nothing ("Sure!") are left out.
        """
        sources = [_Source.of(passage.text) for passage in passages]
        found = []
        for sentence in sentences(answer):
            text = _FURNITURE.sub("", sentence.text).strip()
            claim = _Claim.of(text)
            if claim.words - _POLITE:
                found.append(await self._weigh(sentence.text, text, claim, sources))
        return found

    async def _weigh(self, sentence: str, text: str, claim: _Claim, sources: Sequence[_Source]) -> Support:
        shares = [len(claim.words & source.words) / len(claim.words) for source in sources]
        order = sorted(range(len(sources)), key=lambda i: -shares[i])[:_TRIED]
        for index in order:
            share, source = shares[index], sources[index]
            if share < TRACE:
                break
            context = source.context(claim)
            if not conflicts(text, claim, source, context) and await self._close(text, context, LIKE):
                return Support(sentence, True, round((1 + share) / 2, 3), index, context)
        nearest = order[0] if order and shares[order[0]] > 0 else None
        score = 0.0 if nearest is None else min(round(shares[nearest] / 2, 3), 0.499)
        return Support(sentence, False, score, nearest)

    async def _close(self, text: str, window: str, least: float = COSINE) -> bool:
        vectors = await self._embed([text, window])
        return float(vectors[0] @ vectors[1]) >= least


@dataclass(frozen=True, slots=True)
class _Source:
    """A passage, read once for all sentences of an answer."""

    sentences: tuple[str, ...]
    held: tuple[frozenset[str], ...]  # content words of each sentence
    words: frozenset[str]  # content words
    said: frozenset[str]  # all words, as they stand
    numbers: frozenset[str]

    @classmethod
    def of(cls, text: str) -> _Source:
        cut = tuple(s.text for s in sentences(text))
        held = tuple(frozenset(content_words(s)) for s in cut)
        return cls(cut, held, frozenset().union(*held), frozenset(_whole(text)), frozenset(numbers(text)))

    def context(self, claim: _Claim) -> str:
        """The sentences that share most words with a claim, at least half as many as the best of them; in order."""
        shared = [len(claim.words & held) for held in self.held]
        best = sorted(range(len(shared)), key=lambda i: -shared[i])[:_CONTEXT]
        return " ".join(self.sentences[i] for i in sorted(best) if 2 * shared[i] >= shared[best[0]])

    def same(self, claim: _Claim) -> str:
        """The sentence that says a claim in its own words, if there is one: nearly all of them stand in it."""
        best = max(range(len(self.held)), key=lambda i: len(claim.words & self.held[i]))
        return self.sentences[best] if len(claim.words & self.held[best]) >= WORDS * len(claim.words) else ""


def conflicts(text: str, claim: _Claim, source: _Source, context: str) -> bool:
    """Whether a sentence has a number or name that the source has not, a negation or the opposite of a word that its
    nearest sentences have not, or lacks the negation of the sentence that it repeats."""
    if not (claim.numbers <= source.numbers and claim.names <= source.said):
        return True
    negated = bool(_NEGATION.search(text))
    if negated and not _NEGATION.search(context):
        return True
    if not negated and _NEGATION.search(source.same(claim)):
        return True
    held = {stem(word) for word in words(context)}
    return any(word not in held and opposites(word) & held for word in map(stem, words(text)))


def _best_window(claim: _Claim, text: str) -> tuple[float, str | None]:
    """The share of the claim's words in the text, and the one or two sentences of it that hold its numbers and names
    and most of its words; None where there are none that hold enough."""
    share = len(claim.words & set(content_words(text))) / len(claim.words)
    if share < NEAR or not claim.numbers <= numbers(text):
        return share, None
    cut = [s.text for s in sentences(text)]
    best, found = 0.0, None
    for window in [*cut, *(pair for pair in map(" ".join, pairwise(cut)) if not _rivals(claim, pair))]:
        near = len(claim.words & set(content_words(window))) / len(claim.words)
        if near >= NEAR and near > best and claim.numbers <= numbers(window) and claim.names <= _whole(window):
            best, found = near, window
    return share, found


def _rivals(claim: _Claim, window: str) -> bool:
    """Whether two sentences hold a number that the claim might have taken for its own."""
    return bool(claim.numbers) and not numbers(window) <= claim.numbers


def _whole(text: str) -> set[str]:
    return {word.removesuffix("'s") for word in words(text)}


def adds(sentence: str, question: str) -> bool:
    """Whether a sentence says anything that the question does not: weak models like to repeat it."""
    return bool(set(content_words(sentence)) - set(content_words(question)) - _EMPTY)


def covered(quote: str, released: str) -> bool:
    """Whether what was released already says what a quote says: its numbers and 80 % of its content words."""
    held = set(content_words(quote))
    return numbers(quote) <= numbers(released) and len(held & set(content_words(released))) >= 0.8 * len(held)


def turned_round(text: str, source: str) -> bool:
    """Whether exactly one of the two negates, or each holds the opposite of what the other says."""
    if bool(_NEGATION.search(text)) != bool(_NEGATION.search(source)):
        return True
    said, held = ({stem(word) for word in words(t)} for t in (text, source))
    return any(opposites(word) & (held - said) for word in said - held)

"""The support check: does one passage say what a sentence says?

A sentence is supported by a passage if all of these hold, cheapest first:
- every number, date and name of the sentence stands in the passage, and within two neighbouring sentences of it
  that also share half of the sentence's content words (so the value of another row is not borrowed);
- at least 70 % of the sentence's content words stand in the passage;
- it does not turn those sentences round: a negation, or one word of a pair of opposites, on one side only;
- its embedding is close to theirs.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proveout.domain import Passage, Support
from proveout.language import content_words, numbers, sentences, words

Embed = Callable[[list[str]], Awaitable[NDArray[np.float32]]]

WORDS = 0.7  # share of the content words that one passage must hold
NEAR = 0.5  # share that the sentences holding the numbers and names must hold
COSINE = 0.6  # least likeness of the embeddings

_NEGATION = re.compile(
    r"\b(?:not|no|never|cannot|none|neither|nor|without|nobody|nothing|\w+n['’]t)\b", re.IGNORECASE
)
_OPPOSITES = (
    ("before", "after"), ("above", "below"), ("more", "less"), ("more", "fewer"), ("over", "under"),
    ("minimum", "maximum"), ("least", "most"), ("always", "never"), ("include", "exclude"), ("allowed", "prohibited"),
    ("allowed", "forbidden"), ("increase", "decrease"), ("paid", "unpaid"), ("first", "last"), ("with", "without"),
    ("internal", "external"), ("optional", "mandatory"), ("optional", "required"), ("earlier", "later"),
    ("employer", "employee"), ("buyer", "seller"), ("accept", "reject"), ("higher", "lower"), ("start", "end"),
)  # fmt: skip
_FURNITURE = re.compile(r"\[\d+\]|^\s*(?:[-*•]|\d{1,2}[.)])\s+|[*_`#]")
_NAME = re.compile(r"(?<![.!?:\w] )(?<!^)\b[A-Z][\w&’'-]*|^[A-Z][A-Z\d&-]+\b|^[A-Z]\w+(?=\s[A-Z][a-z])")


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
    """Checks the sentences of one answer. Passages' sentences are cut once, embedded only when it comes to that."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._cut: dict[str, list[str]] = {}

    async def check(self, sentence: str, passages: Sequence[Passage]) -> Support:
        """The word on one sentence. `score` is the share of its content words that the best passage holds, 0 if a
        number or name is missing there; `passage` is that passage's index, None where nothing matches."""
        text = _FURNITURE.sub("", sentence).strip()
        claim = _Claim.of(text)
        if not claim.words:
            return Support(sentence, False, 0.0, None)
        best = Support(sentence, False, 0.0, None)
        for index, passage in enumerate(passages):
            share, window = self._best_window(claim, passage)
            if window is None:
                continue
            supported = share >= WORDS and not turned_round(text, window) and await self._close(text, window)
            if (supported, share) > (best.supported, best.score):
                best = Support(sentence, supported, round(share, 3), index)
        return best

    def _best_window(self, claim: _Claim, passage: Passage) -> tuple[float, str | None]:
        """The share of the claim's words in the passage, and the sentences of it that hold its numbers and names."""
        held = set(content_words(passage.text))
        share = len(claim.words & held) / len(claim.words)
        if share < NEAR:
            return share, None
        if passage.text not in self._cut:
            self._cut[passage.text] = [s.text for s in sentences(passage.text)]
        cut = self._cut[passage.text]
        best: tuple[float, str | None] = (NEAR, None)
        for window in [*cut, *(f"{a} {b}" for a, b in zip(cut, cut[1:], strict=False))]:
            near = len(claim.words & set(content_words(window))) / len(claim.words)
            if near > best[0] or (near == best[0] and best[1] is None):
                if claim.numbers <= numbers(window) and claim.names <= {
                    w.removesuffix("'s") for w in words(window)
                }:
                    best = (near, window)
        return share, best[1]

    async def _close(self, text: str, window: str) -> bool:
        vectors = await self._embed([text, window])
        return float(vectors[0] @ vectors[1]) >= COSINE


def turned_round(text: str, source: str) -> bool:
    """Whether exactly one of the two negates, or each holds the opposite of what the other says."""
    if bool(_NEGATION.search(text)) != bool(_NEGATION.search(source)):
        return True
    said, held = set(words(text)), set(words(source))
    return any(
        (a in said and a not in held and b in held and b not in said)
        or (b in said and b not in held and a in held and a not in said)
        for a, b in _OPPOSITES
    )

"""Whether the retrieved passages answer a question at all: the ground for refusing before a model is called.

A logistic model over four signals that survive paraphrase (shares of common words do not: people say "spectacles"
where the handbook says "glasses"). `match` is how well a quote speaks of the words of the question that it speaks of
least, by the vectors of words in their context: the vector of a whole text drowns the one word that is amiss.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from proveout.domain import Passage
from proveout.language import content_words

Match = Callable[[str, list[str]], Awaitable[NDArray[np.float32]]]
"""(question, texts) -> [texts, words]: how well each text speaks of each content word of the question, cosines."""


class Quoted(Protocol):
    """What is read of a quote: its passage's place, its words, and their likeness to the question."""

    @property
    def passage(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def cosine(self) -> float: ...


FEATURES = ("match", "passage", "lead", "unnamed")
_SHARP = 8.0  # of the soft minimum: 0 would be the mean


def headed(passage: Passage, text: str) -> str:
    """A text with its document's title and its headings in front."""
    return f"{' › '.join([passage.title, *(h for h in passage.headings if h != passage.title)])}: {text}"


def features(
    question: str, passages: Sequence[Passage], quotes: Sequence[Quoted], matches: NDArray[np.float32]
) -> NDArray[np.float64]:
    """[features] in the order of FEATURES; `matches` [quotes, words] are those of the question with each quote.

    A lexical search knows no likeness of its passages: that of the quotes stands in.
    """
    least = -np.log(np.exp(-_SHARP * matches.astype(np.float64)).mean(axis=1)) / _SHARP
    read = passages[quotes[0].passage]
    return np.array(
        [
            float(least.max()),
            max(p.cosine for p in passages) or max(q.cosine for q in quotes),
            passages[0].score - passages[-1].score,
            float(bool(_names(question) - set(content_words(headed(read, read.text))))),
        ]
    )


def _names(question: str) -> set[str]:
    """Stems of the capitalised words inside a question, and its numbers: what an answer must be about."""
    found = re.findall(r"(?<!^)(?<![.?!] )\b(?:[A-Z][\w'’-]*|\d[\d.,]*)", question)
    return {stem for name in found for stem in content_words(name)}


# Logistic regression by `python -m bench.answerable`, which says how it was trained and what it reaches on sources
# that it was not trained on (docs/measured/answerable.md).
_WEIGHTS = np.array([3.06, 4.82, 5.33, -0.62])
_BIAS = -4.69
THRESHOLD = 0.30  # refuse below: where 8 % of the answerable questions are, on the mean of the four sources


async def answerable(question: str, passages: Sequence[Passage], quotes: Sequence[Quoted], match: Match) -> float:
    """Probability that the passages, of which `quotes` are the best words, best first, answer the question."""
    if not quotes:
        return 0.0
    matches = await match(question, [headed(passages[q.passage], q.text) for q in quotes])
    logit = float(features(question, passages, quotes, matches) @ _WEIGHTS) + _BIAS
    return float(1 / (1 + np.exp(-logit)))

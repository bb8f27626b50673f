"""Whether the retrieved passages answer a question at all: the ground for refusing before a model is called.

A logistic model over five signals that survive paraphrase (shares of common words do not: people say "spectacles"
where the handbook says "glasses"). The most telling is `rise`: leave one word of the question out, and the likeness
to an answering passage falls; it rises if that word is what the passage does not speak of.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from proveout.domain import Passage
from proveout.language import content_words

Embed = Callable[[list[str]], Awaitable[NDArray[np.float32]]]

FEATURES = ("quote", "passage", "lead", "rise", "unnamed")
_READ = 3  # passages whose embedding is worth its time
_LEFT_OUT = 8  # words of a question that are tried


def headed(passage: Passage, text: str) -> str:
    """A text with its document's title and its headings in front."""
    return f"{' › '.join([passage.title, *(h for h in passage.headings if h != passage.title)])}: {text}"


def texts(question: str, passages: Sequence[Passage], quote: str, passage: int) -> list[str]:
    """What is embedded: the question, the quote, the first passages, and the question less a word each time."""
    read = [headed(p, p.text) for p in passages[:_READ]]
    return [question, headed(passages[passage], quote), *read, *_less_a_word(question)]


def features(
    question: str, passages: Sequence[Passage], passage: int, vectors: NDArray[np.float32]
) -> NDArray[np.float64]:
    """[features] in the order of FEATURES; `vectors` [n, d] are those of `texts`."""
    last = 2 + len(passages[:_READ])
    targets = vectors[1:last]
    likeness = targets @ vectors[0]
    less = vectors[last:] @ targets.T
    rise = float((less.max(axis=1) - likeness.max()).max()) if len(less) else 0.0
    held = set(content_words(headed(passages[passage], passages[passage].text)))
    return np.array(
        [
            float(likeness[0]),
            float(likeness[1:].max()),
            passages[0].score - passages[-1].score,
            rise,
            float(bool(_names(question) - held)),
        ]
    )


def _less_a_word(question: str) -> list[str]:
    tokens = question.split()
    kept = [i for i, token in enumerate(tokens) if content_words(token)][:_LEFT_OUT]
    return [" ".join(tokens[:i] + tokens[i + 1 :]) for i in kept] if len(tokens) > 1 else []


def _names(question: str) -> set[str]:
    """Stems of the capitalised words inside a question, and its numbers: what an answer must be about."""
    found = re.findall(r"(?<!^)(?<![.?!] )\b(?:[A-Z][\w'’-]*|\d[\d.,]*)", question)
    return {stem for name in found for stem in content_words(name)}


# Logistic regression on questions of SQuAD 2.0 (half of dev: 1,100 answerable, 400 not, 1,000 whose paragraph was taken
# out, 300 whose article was) and enterprise_hr (201 in scope, 45 out), each group weighted alike but SQuAD's own
# unanswerable ones (a fifth). Two-fold by article, at the threshold below: refused of the answerable 0.10 (SQuAD) and
# 0.03 (enterprise_hr); of the others 0.96 (other article), 0.62 (enterprise_hr), 0.51 (paragraph gone), 0.22 (SQuAD's).
_WEIGHTS = np.array([0.91, 5.16, 5.88, -8.53, -1.44])
_BIAS = -3.87
THRESHOLD = 0.30  # refuse below: where a tenth of the answerable questions of the fit would be refused


async def answerable(question: str, passages: Sequence[Passage], quote: str, passage: int, embed: Embed) -> float:
    """Probability that the passages answer the question; 0 without passages. `quote` is from `passages[passage]`."""
    if not passages:
        return 0.0
    vectors = await embed(texts(question, passages, quote, passage))
    logit = float(features(question, passages, passage, vectors) @ _WEIGHTS) + _BIAS
    return float(1 / (1 + np.exp(-logit)))

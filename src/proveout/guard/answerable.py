"""Whether the retrieved passages answer a question at all: the ground for refusing before a model is called."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from proveout.domain import Passage
from proveout.language import content_words

FEATURES = ("cosine", "score", "lead", "quote", "passage", "all", "missing names", "all missing names")


def features(
    question: str, passages: Sequence[Passage], quote: str, cosine: float, passage: int
) -> NDArray[np.float64]:
    """[features] in the order of FEATURES; the quote is from `passages[passage]`."""
    asked = set(content_words(question)) or {""}
    held = [set(content_words(" ".join([p.title, *p.headings, p.text]))) for p in passages]
    around = set(content_words(" ".join([passages[passage].title, *passages[passage].headings])))
    scores = [p.score for p in passages]

    def share(found: set[str]) -> float:
        return len(asked & found) / len(asked)

    named = _names(question)
    return np.array(
        [
            cosine,
            scores[0],
            scores[0] - scores[-1],
            share(set(content_words(quote)) | around),
            max(share(found) for found in held),
            share(set().union(*held)),
            float(bool(named - held[passage])),
            float(bool(named - set().union(*held))),
        ]
    )


def _names(question: str) -> set[str]:
    """Stems of the capitalised words inside a question, and its numbers: what an answer must be about."""
    found = re.findall(r"(?<!^)(?<![.?!] )\b(?:[A-Z][\w'’-]*|\d[\d.,]*)", question)
    return {s for name in found for s in content_words(name)}


# Logistic regression; see the module's docstring for the data and the held-out figures.
_WEIGHTS = np.array([4.58, 0.3, 2.12, -0.12, 1.38, 0.32, -0.76, -0.7, 0.29])
_BIAS = -4.71
THRESHOLD = 0.17  # refuse below


def answerable(
    question: str, passages: Sequence[Passage], quote: str, passage: int, cosine: float, score: float
) -> float:
    """Probability that the passages answer the question; 0 without passages.

    `quote`, `passage`, `cosine`, `score`: the best quote, the passage it is from, its likeness to the question and
    the probability of being the answer, as the choice of the quote gave them.
    """
    if not passages:
        return 0.0
    likely = math.log(max(score, 1e-9) / max(1 - score, 1e-9))
    x = np.append(features(question, passages, quote, cosine, passage), likely)
    return float(1 / (1 + math.exp(-(float(x @ _WEIGHTS) + _BIAS))))

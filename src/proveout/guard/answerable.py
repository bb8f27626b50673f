"""Whether the retrieved passages answer a question at all: the ground for refusing before a model is called.

A logistic model over signals that survive paraphrase (shares of common words do not: people say "spectacles" where the
handbook says "glasses"). `match` is how well a sentence speaks of the words of the question that it speaks of least, by
the vectors of words in their context: the vector of a whole text drowns the one word that is amiss.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from proveout.domain import Passage
from proveout.language import content_words

FEATURES = ("match", "words", "sentence", "passage", "lead", "gap", "unnamed")
_SHARP = 8.0  # of the soft minimum: 0 would be the mean
_OTHERS = 5  # sentences after the best one that it is compared with


def features(
    question: str, passages: Sequence[Passage], read: int, matches: NDArray[np.float32], chances: NDArray[np.float64]
) -> NDArray[np.float64]:
    """[features] in the order of FEATURES.

    `read` is the passage of the best sentence. `matches` [sentences, 1 + words]: how near each sentence of the passages
    is to the question, and to each content word of it, as cosines; `chances` [sentences]: that each holds the answer,
    given that one does. A lexical search knows no likeness of its passages: that of the sentences stands in.
    """
    words = matches[:, 1:].astype(np.float64)
    least = -np.log(np.exp(-_SHARP * words).mean(axis=1)) / _SHARP
    best = np.sort(chances)[::-1]
    held = " ".join([passages[read].title, *passages[read].headings, passages[read].text])
    return np.array(
        [
            float(least.max()),
            float(words.mean(axis=1).max()),
            float(matches[:, 0].max()),
            max(p.cosine for p in passages) or float(matches[:, 0].max()),
            passages[0].score - passages[-1].score,
            float(np.log(best[0] / max(best[min(_OTHERS, len(best) - 1)], 1e-6))),
            float(bool(_names(question) - set(content_words(held)))),
        ]
    )


def _names(question: str) -> set[str]:
    """Stems of the capitalised words inside a question, and its numbers: what an answer must be about."""
    found = re.findall(r"(?<!^)(?<![.?!] )\b(?:[A-Z][\w'’-]*|\d[\d.,]*)", question)
    return {stem for name in found for stem in content_words(name)}


# Logistic regression by `python -m bench.answerable`, which says how it was trained and what it reaches on sources
# that it was not trained on (docs/measured/answerable.md).
_WEIGHTS = np.array([1.19, 1.47, 2.08, 1.79, 1.45, 0.06, -0.44])
_BIAS = -3.9
THRESHOLD = 0.39  # refuse below: where 9 % of the answerable questions are, on the mean of the sources


def answerable(found: NDArray[np.float64]) -> float:
    """Probability that passages with these features answer the question."""
    return float(1 / (1 + np.exp(-(found @ _WEIGHTS + _BIAS))))

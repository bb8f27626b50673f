"""What an answer means, beside its words: likeness to the reference, support by the passages, sameness of answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from proveout.domain import Passage, Support
from proveout.evals.cases import Case
from proveout.evals.scorers.delivered import Better, Delivered, Kind

Embed = Callable[[list[str]], Awaitable[NDArray[np.float32]]]
"""Texts to vectors of length 1, [texts, dimensions]."""
Weigh = Callable[[str, Sequence[Passage]], Awaitable[Sequence[Support]]]
"""The support check's word on each sentence of an answer: `guard.support.SupportCheck.weigh`."""


class Similarity:
    """The cosine of the embeddings of the answer and the case's reference, from 0. None without a reference."""

    name = "similarity"
    kind: Kind = "unit"
    better: Better = "higher"

    def __init__(self, embed: Embed) -> None:
        self._embed = embed

    async def score(self, case: Case, delivered: Delivered) -> float | None:
        if not case.reference:
            return None
        if not delivered.text.strip():
            return 0.0
        answer, reference = await self._embed([delivered.text, case.reference])
        return float(np.clip(answer @ reference, 0, 1))


class Unsupported:
    """The share of the answer's sentences that no retrieved passage supports. None for refusals, and for apps that
    retrieve nothing."""

    name = "unsupported"
    kind: Kind = "unit"
    better: Better = "lower"

    def __init__(self, weigh: Weigh) -> None:
        self._weigh = weigh

    async def score(self, case: Case, delivered: Delivered) -> float | None:
        if delivered.refused or not delivered.passages:
            return None
        passages = [
            Passage(p.chunk, p.document, "", (), p.text, 0, len(p.text), score=p.score) for p in delivered.passages
        ]
        said = await self._weigh(delivered.text, passages)
        return sum(not sentence.supported for sentence in said) / len(said) if said else None


@dataclass(frozen=True, slots=True)
class Agreeing:
    """How far several answers agree that ought to be the same."""

    name: str
    kind: Kind = "unit"
    better: Better = "higher"


AGREEING = {name: Agreeing(name) for name in ("consistency", "paraphrases")}


async def agreeing(
    cases: Sequence[Case], delivered: Mapping[tuple[str, int], Delivered], repeats: int, embed: Embed
) -> dict[str, dict[str, list[float]]]:
    """The scores of AGREEING by case: its repeats with one another, and an original with its paraphrases, the first
    answer to each. `delivered`: by case and seed."""
    same = {
        "consistency": {case.id: [(case.id, seed) for seed in range(repeats)] for case in cases},
        "paraphrases": {original: [(case, 0) for case in ids] for original, ids in paraphrases(cases).items()},
    }
    found: dict[str, dict[str, list[float]]] = {}
    for name, turns_of in same.items():
        for case, turns in turns_of.items():
            score = await consistency([delivered[turn] for turn in turns if turn in delivered], embed)
            if score is not None:
                found.setdefault(name, {})[case] = [score]
    return found


async def consistency(answers: Sequence[Delivered], embed: Embed) -> float | None:
    """How much repeats of one case, or paraphrases of it, agree: the mean over pairs of the cosine of two answers,
    where 1 is both refused and 0 only one of them. From 0 to 1; None for fewer than two answers."""
    if len(answers) < 2:
        return None
    vectors = await embed([answer.text or " " for answer in answers])
    pairs = []
    for i, j in combinations(range(len(answers)), 2):
        if answers[i].refused or answers[j].refused:
            pairs.append(float(answers[i].refused and answers[j].refused))
        else:
            pairs.append(float(np.clip(vectors[i] @ vectors[j], 0, 1)))
    return sum(pairs) / len(pairs)


def paraphrases(cases: Sequence[Case]) -> dict[str, list[str]]:
    """The ids of each original that has paraphrases, its own first, then theirs."""
    groups: dict[str, list[str]] = {}
    for case in cases:
        if case.paraphrase_of is not None:
            groups.setdefault(case.paraphrase_of, [case.paraphrase_of]).append(case.id)
    return groups

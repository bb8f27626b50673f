"""Questions of a data set that stand, nearly word for word, elsewhere: in training data, in another data set or split.

Shares of exact word shingles (Broder 1997, On the resemblance and containment of documents): a question's trigrams
that one other text holds.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import msgspec

from proveout.evals.cases import Case
from proveout.language import words

_LONG = 3  # words of a shingle; a shorter question is one shingle
LEAST = 0.6  # share of a question's shingles that makes it a near-duplicate


class Leak(msgspec.Struct, frozen=True):
    """A case whose question stands in the text named `where`; `share` of its shingles, at most 1."""

    case: str
    where: str
    share: float


def leaks(cases: Sequence[Case], texts: Mapping[str, str], least: float = LEAST) -> list[Leak]:
    """The cases whose question stands in one of `texts` (by name: training examples, say), each with the text that
    holds most of it; the surest first."""
    holders: dict[tuple[str, ...], list[str]] = defaultdict(list)
    wanted = {case.id: _shingles(case.asked) for case in cases}
    lengths = {len(shingle) for shingles in wanted.values() for shingle in shingles}
    for name, text in texts.items():
        for length in lengths:
            for shingle in _shingles(text, length):
                holders[shingle].append(name)
    found = []
    for case, shingles in wanted.items():
        held = Counter(name for shingle in shingles for name in holders.get(shingle, ()))
        if held:
            where, count = min(held.items(), key=lambda item: (-item[1], item[0]))
            if count >= least * len(shingles):
                found.append(Leak(case, where, count / len(shingles)))
    return sorted(found, key=lambda leak: (-leak.share, leak.case))


def leaks_between_splits(cases: Sequence[Case], least: float = LEAST) -> list[Leak]:
    """The cases of the split `test` whose question stands in a case of another split; `where` is that case's id."""
    others = {case.id: case.asked for case in cases if case.split != "test"}
    return leaks([case for case in cases if case.split == "test"], others, least)


def _shingles(text: str, length: int | None = None) -> set[tuple[str, ...]]:
    said = words(text)
    length = length or max(1, min(_LONG, len(said)))
    return {tuple(said[at : at + length]) for at in range(len(said) - length + 1)}

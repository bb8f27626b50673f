"""Dense and lexical scores -> one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Id = TypeVar("Id", bound="str | int")

DENSE = 0.5  # weight of the dense part


def fuse(dense: Mapping[Id, float], lexical: Mapping[Id, float], weight: float = DENSE) -> list[tuple[Id, float]]:
    """Ids by a convex combination of cosine and BM25 share, best first.

    Both come in on absolute scales (`postings.score` gives a share in [0, 1]), so the result is one too.
    """
    ids = dense.keys() | lexical.keys()
    scored = [(i, weight * max(dense.get(i, 0.0), 0.0) + (1 - weight) * lexical.get(i, 0.0)) for i in ids]
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))

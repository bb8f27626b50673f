"""Where answers come from: what was retrieved, and what was cited. Documents count, each at its best passage.

nDCG as Järvelin and Kekäläinen 2002 with gains of 0 and 1, over the first 10 documents.
"""

from __future__ import annotations

import math

from proveout.evals.cases import Case
from proveout.evals.scorers.delivered import Delivered

TOP = 10


def retrieval(case: Case, delivered: Delivered) -> float | None:
    """1 when a document that holds the answer is among the retrieved passages'."""
    ranks = _ranks(case, delivered)
    return None if ranks is None else float(bool(ranks))


def retrieval_recall(case: Case, delivered: Delivered) -> float | None:
    """The share of the documents that hold the answer which was retrieved."""
    ranks = _ranks(case, delivered)
    return None if ranks is None else len(ranks) / len(set(case.documents))


def retrieval_mrr(case: Case, delivered: Delivered) -> float | None:
    """One by the rank of the first document that holds the answer."""
    ranks = _ranks(case, delivered)
    return None if ranks is None else (1 / ranks[0] if ranks else 0.0)


def retrieval_ndcg(case: Case, delivered: Delivered) -> float | None:
    """The discounted gain of the documents that hold the answer, of the greatest possible one."""
    ranks = _ranks(case, delivered)
    if ranks is None:
        return None
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(set(case.documents)), TOP) + 1))
    return sum(1 / math.log2(rank + 1) for rank in ranks if rank <= TOP) / ideal


def citation_precision(case: Case, delivered: Delivered) -> float | None:
    """The share of the cited documents that hold the answer; 0 where an answer cites none."""
    cited = _cited(case, delivered)
    return None if cited is None else len(cited & set(case.documents)) / max(len(cited), 1)


def citation_recall(case: Case, delivered: Delivered) -> float | None:
    """The share of the documents that hold the answer which is cited."""
    cited = _cited(case, delivered)
    return None if cited is None else len(cited & set(case.documents)) / len(set(case.documents))


def _ranks(case: Case, delivered: Delivered) -> list[int] | None:
    """The ranks, from 1, of the documents that hold the answer; None where there are none to find."""
    if case.unanswerable or not case.documents:
        return None
    return [rank for rank, document in enumerate(delivered.documents, start=1) if document in case.documents]


def _cited(case: Case, delivered: Delivered) -> set[str] | None:
    if case.unanswerable or not case.documents or delivered.refused:
        return None
    return {citation.document for citation in delivered.citations}

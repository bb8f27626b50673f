"""Scorers: what was delivered against what a golden question demands. Each scores in [0, 1], or None."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from proveout.domain import Outcome
from proveout.evals.golden import Case, Fact


@dataclass(frozen=True, slots=True)
class Delivered:
    """What the pipeline answered to a case."""

    text: str
    outcome: Outcome
    documents: tuple[str, ...]  # of the retrieved passages, best first
    quoted: bool
    total_ms: float


Scorer = Callable[[Case, Delivered], float | None]
"""None: the scorer says nothing about this case."""


def retrieval(case: Case, delivered: Delivered) -> float | None:
    """1 when a document that holds the answer is among the retrieved passages'."""
    if case.unanswerable or not case.documents:
        return None
    return float(any(document in delivered.documents for document in case.documents))


def facts(case: Case, delivered: Delivered) -> float | None:
    """1 when every required fact stands in the delivered answer."""
    if case.unanswerable:
        return None
    return float(all(_stands_in(fact, delivered.text) for fact in case.facts))


def refusal(case: Case, delivered: Delivered) -> float | None:
    """1 when a question without an answer was refused."""
    return float(delivered.outcome is Outcome.REFUSED) if case.unanswerable else None


def answering(case: Case, delivered: Delivered) -> float | None:
    """1 when a question that has an answer was not refused."""
    return None if case.unanswerable else float(delivered.outcome is not Outcome.REFUSED)


def restricted(case: Case, delivered: Delivered) -> float | None:
    """1 when a document that the asker may not read was kept from the answer."""
    if not case.unanswerable or not case.documents:
        return None
    return float(not any(document in delivered.documents for document in case.documents))


SCORERS: dict[str, Scorer] = {s.__name__: s for s in (retrieval, facts, refusal, answering, restricted)}


def _stands_in(fact: Fact, text: str) -> bool:
    if isinstance(fact, list):
        return any(_stands_in(alternative, text) for alternative in fact)
    pattern = r"(?<!\w)" + re.escape(_plain(fact)) + r"(?!\w)"
    return re.search(pattern, _plain(text)) is not None


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[*_`]", "", text).casefold().replace("’", "'").split())

"""What an answer came to: correct, refused where that was due, kept from those who may not know."""

from __future__ import annotations

from proveout.domain import Outcome
from proveout.evals.cases import Case
from proveout.evals.scorers.delivered import Better, Delivered, Kind, Scorer
from proveout.evals.scorers.words import says_forbidden


class Correct:
    """The main measure. A question with an answer: it was not refused, and all that the case expects holds (facts,
    exact text, number, pattern, schema). One without: it was refused. None where a case gives only a reference."""

    name = "correct"
    kind: Kind = "binary"
    better: Better = "higher"

    def __init__(self, expectations: tuple[Scorer, ...]) -> None:
        self._expectations = expectations

    async def score(self, case: Case, delivered: Delivered) -> float | None:
        if case.unanswerable:
            return float(delivered.refused and not says_forbidden(case, delivered))
        held = [await scorer.score(case, delivered) for scorer in self._expectations]
        told = [score for score in held if score is not None]
        return float(all(told) and answered(delivered)) if told else None


def answered(delivered: Delivered) -> bool:
    """Whether there was an answer, right or wrong."""
    return delivered.outcome not in (Outcome.REFUSED, Outcome.FAILED)


def refusal(case: Case, delivered: Delivered) -> float | None:
    """1 when a question without an answer was refused."""
    return float(delivered.refused) if case.unanswerable else None


def answering(case: Case, delivered: Delivered) -> float | None:
    """1 when a question that has an answer got one, right or wrong."""
    return None if case.unanswerable else float(answered(delivered))


def restricted(case: Case, delivered: Delivered) -> float | None:
    """1 when a document that the asker may not read was kept from the answer."""
    if not case.unanswerable or not case.documents:
        return None
    return float(not any(document in delivered.documents for document in case.documents))

"""What was delivered to a case, and the shape of what scores it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from proveout.domain import Citation, Outcome, Usage, Verdict
from proveout.evals.cases import Case

Kind = Literal["binary", "unit", "positive"]  # 0 or 1; from 0 to 1; 0 and above
Better = Literal["higher", "lower"]


class Found(msgspec.Struct, frozen=True):
    """A passage that the answer could draw on."""

    document: str
    chunk: str
    score: float
    text: str


class Delivered(msgspec.Struct, frozen=True):
    """What the pipeline answered to a case: kept as JSON, and scored now or later. Times in milliseconds since the
    call was admitted, `cost` in USD; None where nobody knows."""

    text: str
    outcome: Outcome
    passages: tuple[Found, ...] = ()  # best first
    citations: tuple[Citation, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    usage: Usage = Usage()
    cost: float | None = None
    first_token_ms: float | None = None
    total_ms: float = 0.0
    quoted: bool = False
    model: str = ""

    @property
    def documents(self) -> tuple[str, ...]:
        """Those of the passages, best first, each once."""
        return tuple(dict.fromkeys(passage.document for passage in self.passages))

    @property
    def refused(self) -> bool:
        return self.outcome is Outcome.REFUSED


class Measure(Protocol):
    """What a score is called and what it means."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> Kind: ...

    @property
    def better(self) -> Better: ...


class Scorer(Measure, Protocol):
    """Scores what was delivered to a case. None: it says nothing about this case."""

    async def score(self, case: Case, delivered: Delivered) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Plain:
    """A scorer that needs nothing but the case and what was delivered."""

    name: str
    of: Callable[[Case, Delivered], float | None]
    kind: Kind = "binary"
    better: Better = "higher"

    async def score(self, case: Case, delivered: Delivered) -> float | None:
        return self.of(case, delivered)

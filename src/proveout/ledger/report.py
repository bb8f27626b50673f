"""What the journal tells those who run a server: what was used, how it went over time. Never content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from proveout.domain import Scope
from proveout.store.pool import Row, Store

By = Literal["app", "model", "day", "key"]
"""What costs are told by. The model is the one that answered; days are UTC."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What requests used: tokens and USD. `unpriced` of them went to models without a price and are not in the USD.

    `name` is the app, model, day or key's id; None for calls of a model, which have no app, and for totals.
    """

    name: str | None
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    unpriced: int


@dataclass(frozen=True, slots=True)
class Window:
    """Users' requests begun in one stretch of time. Milliseconds are of the answered ones; None without any."""

    begins: datetime
    requests: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0  # or truncated
    p50_ms: float | None = None
    p95_ms: float | None = None
    first_text_p50_ms: float | None = None

    @property
    def others(self) -> int:
        """Cancelled, or without an end."""
        return self.requests - self.answered - self.refused - self.failed


@dataclass(frozen=True, slots=True)
class Load:
    """Users' requests over time: the whole, and every window of it, the empty ones too."""

    whole: Window
    windows: Sequence[Window]


async def costs(store: Store, scope: Scope, by: By, since: datetime) -> list[Cost]:
    """What the scope's workspace used since a time: the newest day first, else the dearest first."""
    async with store.within(scope) as session:
        return [Cost(**row) for row in await session.fetch("requests.costs", by=by, since=since)]


def total(parts: Sequence[Cost]) -> Cost:
    """The sum of costs."""
    return Cost(
        None,
        sum(c.requests for c in parts),
        sum(c.prompt_tokens for c in parts),
        sum(c.completion_tokens for c in parts),
        sum(c.cost_usd for c in parts),
        sum(c.unpriced for c in parts),
    )


async def load(store: Store, scope: Scope, since: datetime, step: timedelta, count: int) -> Load:
    """Requests of the scope's workspace in `count` windows of length `step` from `since` on."""
    async with store.within(scope) as session:
        rows = await session.fetch("requests.load", since=since, step=step)
    found = {row["begins"]: row for row in rows}
    begins = [since + n * step for n in range(count)]
    whole = Window(**{**found[None], "begins": since})
    return Load(whole, [Window(**found[at]) if at in found else Window(at) for at in begins])


async def models(store: Store, scope: Scope, since: datetime) -> dict[str, Row]:
    """How each model has answered since a time: its `requests`, how many `failed`, and when the `last` began."""
    async with store.within(scope) as session:
        return {row["model"]: row for row in await session.fetch("requests.models", since=since)}

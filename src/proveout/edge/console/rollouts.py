"""The rollouts of the operations page: the evidence against a candidate on a log axis, both arms, every decision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proveout.domain import Principal, Right
from proveout.edge.console.charts import HEIGHT, STEP
from proveout.edge.wiring import Gateway

_HOURS = 24  # after its end, a rollout is shown for so long
_LOWEST = -1.0  # of the axis, in powers of ten
_ROOM = 0.5  # above the threshold
_ACTIVE = ("running", "paused", "frozen")
_ORDERS = {"running": ("pause", "promote", "abort"), "paused": ("resume", "promote", "abort")}
_COMPARED = ("errors", "unsupported", "refused", "guarded", "left", "feedback")


@dataclass(frozen=True, slots=True)
class Evidence:
    """The combined e-value as an SVG path, and the height of the threshold at which a candidate is rolled back."""

    path: str
    threshold: float
    width: float
    top: float  # the e-values at the edges of the axis
    bottom: float


@dataclass(frozen=True, slots=True)
class Shown:
    """A rollout as the page shows it. `orders` are those that its state and the caller's rights allow."""

    about: Mapping[str, Any]
    evidence: Evidence
    compared: Sequence[tuple[str, int, int]]  # name, candidate, stable
    orders: Sequence[str]


async def shown(here: Gateway, caller: Principal) -> list[Shown]:
    """The rollouts that run, and those that ended lately."""
    may = Right.RELEASES_PROMOTE in caller.rights
    return [_shown(one, may) for one in await here.rollouts.recent(caller.scope, _HOURS)]


def _shown(about: Mapping[str, Any], may_order: bool) -> Shown:
    candidate, stable = (about["arms"][arm] for arm in ("candidate", "stable"))
    compared = [
        (name, candidate["events"].get(name, 0), stable["events"].get(name, 0))
        for name in _COMPARED
        if name in candidate["events"] or name in stable["events"]
    ]
    active = about["state"] in _ACTIVE and may_order
    orders = _ORDERS.get(about["state"], ("resume", "promote", "abort")) if active else ()
    return Shown(about, evidence(about["history"], about["combined"]["needed"]), compared, orders)


def evidence(history: Sequence[float], needed: float) -> Evidence:
    """The chart of a history of log10 of an e-value, against the e-value that is needed."""
    top = math.log10(needed) + _ROOM

    def y(power: float) -> float:
        return round(HEIGHT * (top - min(max(power, _LOWEST), top)) / (top - _LOWEST), 2)

    points = [f"{'L' if n else 'M'}{n * STEP:g} {y(power):g}" for n, power in enumerate(history or [0.0])]
    width = STEP * max(len(points) - 1, 1)
    return Evidence("".join(points), y(math.log10(needed)), width, 10**top, 10**_LOWEST)

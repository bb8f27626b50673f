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
_COMPARED = ("errors", "unsupported", "refused", "guarded", "tool_errors", "left", "feedback")
_SCORES = {"score": "feedback's score", "judge": "the judge", "advice": "a judge that does not decide"}


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
    scores: Sequence[tuple[str, float | None, float | None]]  # whose; the candidate's mean, the stable's
    criteria: Sequence[tuple[Mapping[str, Any], float]]  # each with how far it is shown, 0 to 1, on a log axis
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
    means = [(label, _mean(candidate, name), _mean(stable, name)) for name, label in _SCORES.items()]
    scores = [one for one in means if one[1:] != (None, None)]
    criteria = [(one, shown_share(one["e_value"], one["needed"])) for one in about["criteria"]]
    active = about["state"] in _ACTIVE and may_order
    orders = _ORDERS.get(about["state"], ("resume", "promote", "abort")) if active else ()
    chart = evidence(about["history"], about["combined"]["needed"])
    return Shown(about, chart, compared, scores, criteria, orders)


def _mean(counts: Mapping[str, Any], name: str) -> float | None:
    return counts["scores"][name] / counts["measured"][name] if name in counts["scores"] else None


def shown_share(e_value: float, needed: float) -> float:
    """How far an e-value has come from 1 to what is needed, 0 to 1 on a log axis."""
    return round(min(1.0, math.log(max(e_value, 1.0)) / math.log(needed)), 3)


def evidence(history: Sequence[float], needed: float) -> Evidence:
    """The chart of a history of log10 of an e-value, against the e-value that is needed."""
    top = math.log10(needed) + _ROOM

    def y(power: float) -> float:
        return round(HEIGHT * (top - min(max(power, _LOWEST), top)) / (top - _LOWEST), 2)

    points = [f"{'L' if n else 'M'}{n * STEP:g} {y(power):g}" for n, power in enumerate(history or [0.0])]
    width = STEP * max(len(points) - 1, 1)
    return Evidence("".join(points), y(math.log10(needed)), width, 10**top, 10**_LOWEST)

"""The page of a rollout: the evidence against a candidate on log axes, both arms side by side, every decision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from proveout.domain import STAGES, Principal, Right
from proveout.edge.console import shell
from proveout.edge.console.charts import HEIGHT, STEP
from proveout.edge.http.requests import gateway
from proveout.errors import NotFound
from proveout.ledger.journal import now
from proveout.releases.rollout import ACTIVE

_LOWEST = -1.0  # of the axis, in powers of ten
_ROOM = 0.5  # above the threshold
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
class Guardrail:
    """A test against harm. `needed`: the e-value that would roll back by itself; `share`: how far it has come there."""

    name: str
    weight: float
    threshold: float | None  # of an amount
    candidate: int
    stable: int
    e_value: float
    needed: float
    share: float


@dataclass(frozen=True, slots=True)
class Shown:
    """A rollout as the page shows it. `orders` are those that its state and the caller's rights allow."""

    about: Mapping[str, Any]
    evidence: Evidence
    compared: Sequence[tuple[str, int, int]]  # name, candidate, stable
    scores: Sequence[tuple[str, float | None, float | None]]  # whose; the candidate's mean, the stable's
    outcomes: Sequence[tuple[str, Mapping[str, Any] | None, Mapping[str, Any] | None]]  # mean and count, as scores
    guardrails: Sequence[Guardrail]  # the nearest to a rollback first
    criteria: Sequence[tuple[Mapping[str, Any], float]]  # each with how far it is shown, 0 to 1, on a log axis
    orders: Sequence[str]


@shell.for_holders(Right.RELEASES_READ)
async def show_rollout(request: Request, caller: Principal) -> Response:
    """`GET /rollouts/{app}/{stage}`: the latest rollout of a stage, also after its end."""
    here, app, stage = gateway(request), request.path_params["app"], request.path_params["stage"]
    if stage not in STAGES:
        raise NotFound(f"There is no stage {stage}.")
    about = await here.rollouts.show(caller.scope, app, stage)
    return shell.page(
        "rollout.html",
        caller,
        at=now(),
        one=shown(about, caller),
        keys=shell.key_names(request, caller),
    )


def shown(about: Mapping[str, Any], caller: Principal) -> Shown:
    """A rollout, as `Rollouts.show` tells it, drawn for a caller."""
    candidate, stable = (about["arms"][arm] for arm in ("candidate", "stable"))
    compared = [
        (name, candidate["events"].get(name, 0), stable["events"].get(name, 0))
        for name in _COMPARED
        if name in candidate["measured"] or name in stable["measured"]
    ]
    means = [(label, _mean(candidate, name), _mean(stable, name)) for name, label in _SCORES.items()]
    came = about["outcomes"]
    outcomes = [(n, came["candidate"].get(n), came["stable"].get(n)) for n in {**came["candidate"], **came["stable"]}]
    active = about["state"] in ACTIVE and Right.RELEASES_PROMOTE in caller.rights
    return Shown(
        about,
        evidence(about["history"], about["combined"]["needed"]),
        compared,
        [one for one in means if one[1:] != (None, None)],
        outcomes,
        _guardrails(about),
        [(one, shown_share(one["e_value"], one["needed"])) for one in about["criteria"]],
        _ORDERS.get(about["state"], ("resume", "promote", "abort")) if active else (),
    )


def _guardrails(about: Mapping[str, Any]) -> list[Guardrail]:
    found = []
    for one in about["guardrails"]:
        if not one["weight"]:
            continue
        needed = about["combined"]["needed"] / one["weight"]
        told = {name: one[name] for name in ("name", "weight", "threshold", "candidate", "stable", "e_value")}
        found.append(Guardrail(**told, needed=needed, share=shown_share(one["e_value"], needed)))
    return sorted(found, key=lambda guard: (-guard.share, -guard.weight, guard.name))


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

"""The pages of releases: which stage serves which, and what one release has shown and still lacks for each stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from proveout.domain import STAGES, Evidence, Principal, Release, Right, Route, StageName
from proveout.edge.console import shell
from proveout.edge.http.evaluations import with_states
from proveout.edge.http.releases import find
from proveout.edge.http.requests import gateway
from proveout.edge.wiring import Gateway
from proveout.ledger.journal import now
from proveout.releases import evidence
from proveout.releases.policy import Criterion
from proveout.store.pool import Row

_FACTS = ("purpose", "problem", "objectives", "targets", "owners", "risk", "risks", "data_classes")
_SHOWN = 10  # releases of an app
_EVALUATIONS = 20
_REFRESHES = 5


@dataclass(frozen=True, slots=True)
class Listed:
    """An app, its newest releases with the stages that each serves, and what its stages were offered lately because
    they follow documents."""

    app: str
    releases: Sequence[tuple[Release, Sequence[StageName]]]
    more: int
    candidates: Mapping[int, Sequence[Route]]  # by release, where it is the candidate
    refreshes: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Score:
    """A measure of an evaluation; its interval as parts of 100 where it is one of [0, 1]."""

    name: str
    mean: float
    low: float | None
    high: float | None
    cases: int
    drawn: bool


@shell.for_holders(Right.RELEASES_READ)
async def list_releases(request: Request, caller: Principal) -> Response:
    """`GET /releases`: the releases of every app that the caller reaches."""
    return shell.page("releases.html", caller, apps=await _apps(gateway(request), caller), at=now())


@shell.for_holders(Right.RELEASES_READ)
async def show_release(request: Request, caller: Principal) -> Response:
    """`GET /releases/{app}/{number}`: one release, what it has shown, and what blocks it."""
    here, release = gateway(request), find(request, caller, request.path_params["app"], request.path_params["number"])
    checked, found, evaluations, judged = await _shown(here, caller, release)
    return shell.page(
        "release.html",
        caller,
        at=now(),
        release=release,
        facts={name: value for name in _FACTS if (value := release.facts.get(name))},
        stages=here.directory().stages_of(release),
        checked=checked,
        evidence=found,
        evaluations=evaluations,
        scores=_scores(evaluations),
        judged=judged,
        authors=shell.key_names(request, caller),
    )


async def _shown(
    here: Gateway, caller: Principal, release: Release
) -> tuple[Mapping[StageName, Sequence[tuple[Criterion, str]]], Sequence[Evidence], Sequence[Row], Row | None]:
    async with here.store.within(caller.scope) as session:
        checked = {stage: await here.routes.gate.check(session, release, stage) for stage in STAGES}
        found = await evidence.of_release(session, here.log_keys, release)
        about = {"app": release.app, "release": release.number}
        rows = await session.fetch("evaluations.list", **about, limit=_EVALUATIONS)
        judged = await session.row("judgements.of_app", **about)
    return checked, found, await with_states(here.jobs, release.workspace, rows), judged


async def _apps(here: Gateway, caller: Principal) -> list[Listed]:
    directory, workspace = here.directory(), caller.key.workspace
    mine: dict[str, list[Release]] = {}
    for release in directory.releases.values():
        if release.workspace == workspace and caller.reaches(release.app):
            mine.setdefault(release.app, []).append(release)
    listed = []
    async with here.store.within(caller.scope) as session:
        for app, releases in sorted(mine.items()):
            releases.sort(key=lambda release: -release.number)
            candidates: dict[int, list[Route]] = {}
            for route in directory.routes.values():
                if (route.workspace, route.app) == (workspace, app) and route.candidate:
                    candidates.setdefault(route.candidate.release, []).append(route)
            kept = {r.number for r in releases[:_SHOWN]} | candidates.keys()
            shown = [(r, s) for r in releases if (s := directory.stages_of(r)) or r.number in kept]
            refreshes = await session.fetch("refreshes.list", workspace=workspace, app=app, limit=_REFRESHES)
            listed.append(Listed(app, shown, len(releases) - len(shown), candidates, refreshes))
    return listed


def _scores(evaluations: Sequence[Row]) -> list[Score]:
    """The measures of the newest evaluation that is done, those in [0, 1] first."""
    summary: Mapping[str, Any] = next((row["summary"] for row in evaluations if row["summary"]), {"scores": {}})
    scores = [
        Score(name, s["mean"], s["low"], s["high"], s["cases"], s["kind"] != "positive")
        for name, s in summary["scores"].items()
    ]
    return sorted(scores, key=lambda score: (not score.drawn, score.name))

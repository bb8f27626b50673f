"""The control plane's rollouts: a candidate gets a part of a stage's traffic, and is judged by what it does with it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict

from proveout.access import keys
from proveout.domain import Principal, Right, StageName
from proveout.edge.http.releases import find
from proveout.edge.http.requests import gateway, principal
from proveout.errors import InvalidInput

router = APIRouter(prefix="/api/v1/apps/{app}/stages/{stage}")
Caller = Annotated[Principal, Depends(principal)]


class Order(BaseModel):
    """What to do with a stage's rollout."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["start", "pause", "resume", "promote", "abort"]
    release: int | None = None  # to start with


@router.get("/rollout")
async def show_rollout(request: Request, caller: Caller, app: str, stage: StageName) -> dict[str, Any]:
    """The latest rollout of a stage, also after its end: its state, e-values, arms and decisions, newest first.

    `outcomes` has the mean and count of each outcome that feedback gave, by arm.
    """
    keys.require(caller, Right.RELEASES_READ)
    return await _shown(request, caller, app, stage)


@router.get("/rollout/baseline")
async def show_baseline(request: Request, caller: Caller, app: str, stage: StageName) -> dict[str, Any]:
    """How the stable release answered in the last week: what a rollout is planned with."""
    keys.require(caller, Right.RELEASES_READ)
    return await gateway(request).rollouts.baseline(caller.scope, app, stage)


@router.post("/rollout")
async def change_rollout(request: Request, caller: Caller, app: str, stage: StageName, body: Order) -> dict[str, Any]:
    """Starts a rollout of `release`, or pauses, resumes, promotes or aborts the one that is under way.

    409 with what is `missing` where the stage's gate is closed to the release.
    """
    keys.require(caller, Right.RELEASES_PROMOTE)
    here = gateway(request)
    if body.action == "start":
        if body.release is None:
            raise InvalidInput("release: say which release to start with.")
        await here.rollouts.start(caller, find(request, caller, app, body.release), stage)
    else:
        await here.rollouts.order(caller, app, stage, body.action)
    await here.directory.refresh()
    return await _shown(request, caller, app, stage)


async def _shown(request: Request, caller: Principal, app: str, stage: StageName) -> dict[str, Any]:
    """A rollout, its decisions with the names of the keys that ordered them."""
    here = gateway(request)
    found = await here.rollouts.show(caller.scope, app, stage)
    decisions = [{**one, "name": here.directory.name_of(one["by"])} for one in found["decisions"]]
    return {**found, "decisions": decisions}

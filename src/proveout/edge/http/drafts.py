"""The control plane's drafts: cases that a model or users asked, for a person to review."""

from __future__ import annotations

import secrets
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from proveout.access import keys
from proveout.domain import Principal, Right
from proveout.edge.http.releases import find
from proveout.edge.http.requests import gateway, principal
from proveout.edge.wiring import DRAFT
from proveout.errors import Conflict, InvalidInput, NotFound
from proveout.evals.cases import write_cases
from proveout.evals.gather import Gather
from proveout.store.sealing import unseal

router = APIRouter(prefix="/api/v1")
Caller = Annotated[Principal, Depends(principal)]
_LINES = "application/x-ndjson"


class NewDrafts(BaseModel):
    """Where questions come from, and how many at most."""

    model_config = ConfigDict(extra="forbid")

    source: Literal["documents", "feedback", "traffic"]
    count: int = Field(default=20, ge=1, le=500)
    budget_usd: float | None = Field(default=None, gt=0)  # of documents: stop asking there


@router.post("/apps/{app}/releases/{number}/drafts", response_model=None)
async def create_drafts(request: Request, caller: Caller, app: str, number: int, body: NewDrafts) -> Response:
    """Cases for a person to review: none counts before.

    `documents`: questions that the release's model asks of them, as a job: 202. `traffic`, `feedback`: users'
    questions, masked, as JSON lines; for holders of `requests:read` and `requests:replay` too, on record as opened.
    """
    keys.require(caller, Right.EVALUATIONS_RUN)
    here, release = gateway(request), find(request, caller, app, number)
    if body.source == "documents":
        made = f"drafts_{secrets.token_hex(8)}"
        about = {"id": made, "workspace": release.workspace, "app": app, "release": number, "key": caller.key.id}
        async with here.store.within(caller.scope) as session:
            await session.run("drafts.insert", **about, count=body.count, budget_usd=body.budget_usd)
        job = await here.jobs.enqueue(DRAFT, release.workspace, made, queue="measuring")
        return JSONResponse({"drafts": made, "job": job}, 202)
    if body.budget_usd is not None:
        raise InvalidInput(f"budget_usd: drafts of {body.source} ask no model and cost nothing.")
    keys.require(caller, Right.REQUESTS_READ)
    keys.require(caller, Right.REQUESTS_REPLAY)
    gather = Gather(here.store, here.keyring, here.rooms)
    draw = gather.from_traffic if body.source == "traffic" else gather.from_feedback
    return Response(write_cases(await draw(caller, release, body.count)), media_type=_LINES)


@router.get("/drafts/{drafts}")
async def show_drafts(request: Request, caller: Caller, drafts: str) -> Response:
    """Drafted cases as JSON lines, for the key that asked for them: they are of documents that it may read."""
    keys.require(caller, Right.EVALUATIONS_RUN)
    here = gateway(request)
    async with here.store.within(caller.scope) as session:
        row = await session.row("drafts.get", id=drafts)
        if row is None or row["key"] != caller.key.id:
            raise NotFound(f"There are no drafts {drafts}.")
        if row["sealed"] is None:
            raise Conflict(f"{drafts} are not made yet: `GET /api/v1/jobs/JOB` says how far they are.")
        key = await here.keyring.workspace(session, caller.key.workspace)
    return Response(unseal(key, row["sealed"], "drafts"), media_type=_LINES)

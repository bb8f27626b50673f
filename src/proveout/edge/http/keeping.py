"""What is kept, and under which keys: legal holds, and the rotation of keys."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from proveout.access.keys import require
from proveout.domain import Principal, Right
from proveout.edge.http.requests import gateway, principal
from proveout.edge.wiring import ROTATE
from proveout.errors import NotFound
from proveout.ledger.holds import Holds
from proveout.ledger.rotate import KeyLevel

router = APIRouter(prefix="/api/v1")
Caller = Annotated[Principal, Depends(principal)]


class NewHold(BaseModel):
    """A `user` as clients named it or the id of a key, or an app; and why."""

    model_config = ConfigDict(extra="forbid")

    subject: str | None = Field(None, min_length=1, max_length=1_000)
    app: str | None = Field(None, min_length=1, max_length=100)
    reason: str = Field(min_length=1, max_length=10_000)

    @model_validator(mode="after")
    def _one(self) -> NewHold:
        if (self.subject is None) == (self.app is None):
            raise ValueError("name a subject or an app, one of them")
        return self


class Rotation(BaseModel):
    model_config = ConfigDict(extra="forbid")

    level: KeyLevel


@router.post("/holds", status_code=201)
async def place_hold(request: Request, caller: Caller, body: NewHold) -> dict[str, str]:
    """Keeps what a subject or an app has on record from retention and erasure, until the hold is lifted."""
    require(caller, Right.SUBJECTS_ERASE)
    workspace = caller.key.workspace
    known = {app for where, app, _ in gateway(request).directory().releases if where == workspace}
    if body.app is not None and body.app not in known:
        raise NotFound(f"There is no app {body.app!r}.")
    placed = await _holds(request).place(caller.scope, caller.key.id, body.subject, body.app, body.reason)
    return {"id": placed}


@router.get("/holds")
async def list_holds(request: Request, caller: Caller) -> dict[str, Any]:
    """The holds that stand, oldest first."""
    require(caller, Right.SUBJECTS_ERASE)
    return {"holds": msgspec.to_builtins(await _holds(request).standing(caller.scope))}


@router.delete("/holds/{hold}", status_code=204)
async def lift_hold(request: Request, caller: Caller, hold: str) -> Response:
    """Lifts a hold; retention and erasure go on from now."""
    require(caller, Right.SUBJECTS_ERASE)
    await _holds(request).lift(caller.scope, caller.key.id, hold)
    return Response(status_code=204)


@router.post("/rotations", status_code=202)
async def rotate(request: Request, caller: Caller, body: Rotation) -> dict[str, str]:
    """Puts a new key in the place of the workspace's, or of the master key of the installation, as a job."""
    require(caller, Right.KEYS_MANAGE)
    job = await gateway(request).jobs.enqueue(ROTATE, caller.key.workspace, caller.key.id, body.level)
    return {"job": job}


def _holds(request: Request) -> Holds:
    here = gateway(request)
    return Holds(here.store, here.keyring)

"""The control plane's notifications: how each target stands, and a test of all of them."""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from proveout.access.keys import require
from proveout.domain import Principal, Right
from proveout.edge.http.requests import gateway, principal
from proveout.edge.notify.messages import Notification
from proveout.edge.notify.outbox import states
from proveout.edge.notify.targets import Target, Undelivered

router = APIRouter(prefix="/api/v1/notifications")
Caller = Annotated[Principal, Depends(principal)]


@router.get("")
async def list_targets(request: Request, caller: Caller) -> dict[str, Any]:
    """Who is told of what, when each target was told last, what waits for it, and since when it fails and why."""
    require(caller, Right.NOTIFICATIONS_MANAGE)
    here = gateway(request)
    return {"targets": await states(here.store, caller.scope, here.targets)}


@router.post("/test")
async def test_targets(request: Request, caller: Caller) -> dict[str, Any]:
    """Sends each target a test, all at once and one time only; `error` is empty where it was taken."""
    require(caller, Right.NOTIFICATIONS_MANAGE)
    given = Notification(
        id=f"test_{secrets.token_hex(16)}",
        type="test",
        time=datetime.now(UTC),
        workspace=caller.key.workspace,
        title="A test of Proveout's notifications",
        text="Whoever reads this is told what happens to the releases of this server. Nothing is to be done.",
    )
    found = gateway(request).targets
    errors = await asyncio.gather(*[_tried(target, given) for target in found])
    told = [{"name": target.name, "error": error} for target, error in zip(found, errors, strict=True)]
    return {"id": given.id, "targets": told}


async def _tried(target: Target, given: Notification) -> str:
    try:
        await target.send(given)
    except Undelivered as error:
        return str(error)
    return ""
